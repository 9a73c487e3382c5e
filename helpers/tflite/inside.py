"""What happens inside a `.tflite` while it runs: how large each channel of each tensor gets. Loads no TensorFlow."""

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.tflite import flatbuffer, inputs, interpreting, litert, packing

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import OpResolverType


MOVING = ("RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "PAD", "MAX_POOL_2D")


def channel_maxima(model, samples):
    """The largest absolute value of every channel of every tensor of real numbers that a file takes or computes: name -> float32
    (channels,), in the order in which they are computed.

    Channels lie along the last axis; a tensor with fewer than two axes has one. samples: (n, ...), or name of an input -> such an
    array. Where two tensors have one name, the later one gets its number behind it. Built-in kernels run, since a delegate shows
    nothing of what happens inside it. Raises InputError for an unusable file, and for samples that do not fit or are not finite.
    """
    return _by_name(model, maxima_by_index(model, samples))


def maxima_by_index(model, samples):
    """`channel_maxima`, by the index of each tensor in the main graph."""
    found = {}
    for index, rows in _shown(model, samples):
        maxima = np.abs(rows).max(0, initial=0)
        found[index] = np.maximum(found[index], maxima) if index in found else maxima
    return found


def channel_powers(model, samples):
    """The mean square of every channel, otherwise as `channel_maxima`: name -> float64 (channels,)."""
    return _by_name(model, powers_by_index(model, samples))


def powers_by_index(model, samples):
    """`channel_powers`, by the index of each tensor in the main graph."""
    sums, numbers = {}, {}
    for index, rows in _shown(model, samples):
        sums[index] = sums.get(index, 0) + (rows.astype(np.float64) ** 2).sum(0)
        numbers[index] = numbers.get(index, 0) + len(rows)
    return {index: sums[index] / max(1, numbers[index]) for index in sums}


def channel_products(model, samples):
    """The mean product of every two channels of what each dense layer reads, otherwise as `channel_maxima`: name -> float64
    (channels, channels). Where operators that only move values lie before it (MOVING), what they read has the same, unless a
    dense layer reads that, too."""
    blob, sums, numbers = litert.content(model), {}, {}
    read, sources = _dense(blob)
    for index, rows in _shown(blob, samples, read):
        rows = rows.astype(np.float64)
        sums[index], numbers[index] = sums.get(index, 0) + rows.T @ rows, numbers.get(index, 0) + len(rows)
    means = {index: sums[index] / max(1, numbers[index]) for index in sums}
    for index in list(means):
        source = sources.get(index)
        while source is not None and source not in means:
            means[source] = means[index]
            source = sources.get(source)
    return _by_name(blob, means)


def for_one_sample(model, samples):
    """The bytes of a file that takes one sample at a time, and says of every tensor the sizes that it then has: whoever writes
    them down, as a Hadamard rotation does, finds them. samples: as `channel_maxima` takes them; the first one is run."""
    blob = litert.content(model)
    samples = {name: array[:1] for name, array in inputs.by_name(samples).items()}
    with runtime_env.quiet():
        found = {each["index"]: each["shape"].tolist() for each in _invoked(blob, samples).get_tensor_details()}
    with flatbuffer.unpacked(blob) as content:
        for index, tensor in enumerate(content.subgraphs[0].tensors):
            tensor.shape, tensor.shapeSignature = found.get(index, tensor.shape), None
        return packing.packed(content, blob)


def _by_name(model, values):
    found, names = {}, _names(litert.content(model))
    for index, each in values.items():
        found[f"{names[index]}_{index}" if names[index] in found else names[index]] = each
    return found


def _shown(model, samples, only=None):
    """(index, array (n, channels)) of every tensor, or of `only` these, for one part of the samples after another."""
    blob, samples = litert.content(model), inputs.by_name(samples)
    for name, array in samples.items():
        if not array.size or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise InputError(f"samples {name} are empty, or hold NaN or infinity: give clean samples.")
    why = interpreting.unusable(*interpreting.declared(interpreting.opened(blob, 1)), samples)
    if why:
        raise InputError(f"samples do not fit the model: {why}.")
    number = len(next(iter(samples.values())))
    size = litert.at_once(blob, samples)
    wanted = [index for index in _computed(blob) if only is None or index in only]
    for start in range(0, number, size):
        part = {name: array[start : start + size] for name, array in samples.items()}
        with runtime_env.quiet():  # it warns of the memory that all these tensors take
            found = list(_run(blob, part, wanted))
        for index, values in found:
            yield index, values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _run(blob, part, wanted):
    """(index, real numbers) of some tensors for a batch of samples."""
    runner = _invoked(blob, part)
    details = {each["index"]: each for each in runner.get_tensor_details()}
    for index in wanted:
        yield index, interpreting.real_numbers(runner.get_tensor(index), details[index])


def _invoked(blob, part):
    """An interpreter that has run a batch of samples and kept all tensors."""
    runner = interpreting.load(
        blob,
        runtime_env.LITERT_THREADS,
        len(next(iter(part.values()))),
        part,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    arrays = interpreting.fed(interpreting.declared(runner)[0], part)
    for details, array in zip(runner.get_input_details(), arrays, strict=True):
        runner.set_tensor(details["index"], interpreting.as_stored(array, details))
    runner.invoke()
    return runner


def _names(blob):
    with flatbuffer.unpacked(blob) as parsed:
        return [tensor.name.decode() for tensor in parsed.subgraphs[0].tensors]


def _computed(blob):
    """Indices of the tensors that hold real numbers, as such or as integers with one scale, and depend on the samples."""
    with flatbuffer.unpacked(blob) as parsed:
        graph = parsed.subgraphs[0]
        made = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
        return [int(index) for index in dict.fromkeys(made) if index >= 0 and _is_real(graph.tensors[index])]


def _is_real(tensor):
    scale = tensor.quantization.scale if tensor.quantization is not None else None
    whole = tensor.type in (schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16)
    return tensor.type == schema.TensorType.FLOAT32 or (whole and scale is not None and len(scale) == 1)


def _dense(blob):
    """Of a file's dense layers the indices of the tensors that they read, and output -> input of all operators in MOVING."""
    with flatbuffer.unpacked(blob) as parsed:
        named = [(flatbuffer.operator_name(parsed, each), each) for each in parsed.subgraphs[0].operators]
        read = {int(each.inputs[0]) for op, each in named if op == "FULLY_CONNECTED"}
        return read, {int(each.outputs[0]): int(each.inputs[0]) for op, each in named if op in MOVING}
