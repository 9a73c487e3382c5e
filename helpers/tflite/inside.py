"""What happens inside a `.tflite` while it runs: how large each channel of each tensor gets. Loads no TensorFlow."""

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.tflite import flatbuffer, inputs, interpreting, litert

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import OpResolverType


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


def _by_name(model, values):
    found, names = {}, _names(litert.content(model))
    for index, each in values.items():
        found[f"{names[index]}_{index}" if names[index] in found else names[index]] = each
    return found


def _shown(model, samples):
    """(index, array (n, channels)) of every tensor, for one part of the samples after another."""
    blob, samples = litert.content(model), inputs.by_name(samples)
    for name, array in samples.items():
        if not array.size or (array.dtype.kind == "f" and not np.isfinite(array).all()):
            raise InputError(f"samples {name} are empty, or hold NaN or infinity: give clean samples.")
    why = interpreting.unusable(*interpreting.declared(interpreting.opened(blob, 1)), samples)
    if why:
        raise InputError(f"samples do not fit the model: {why}.")
    number = len(next(iter(samples.values())))
    size, wanted = litert.at_once(blob, number), _computed(blob)
    for start in range(0, number, size):
        part = {name: array[start : start + size] for name, array in samples.items()}
        with runtime_env.quiet():  # it warns of the memory that all these tensors take
            found = list(_run(blob, part, wanted))
        for index, values in found:
            yield index, values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _run(blob, part, wanted):
    """(index, real numbers) of some tensors for a batch of samples."""
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
    details = {each["index"]: each for each in runner.get_tensor_details()}
    for index in wanted:
        yield index, interpreting.real_numbers(runner.get_tensor(index), details[index])


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
