"""A `.tflite` file in hand: load it, look inside, run it in batches, weigh it.

Wherever a model is taken, it may be given as bytes or as the path of a file.
"""

import gzip
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.tflite import flatbuffer, inputs, interpreting, layer_names

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

BATCH = 64
PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides what is inside it
GZIP_LEVEL = 9
LIKELY = 64  # of an open side
KEPT_BYTES = 200_000_000  # of tensors that are all kept at once, to be looked at after a run


@dataclass(frozen=True)
class Size:
    """Bytes on disk, and after `gzip -9`: zeros and repeated values show up only in the second."""

    raw: int
    gzip: int

    def __str__(self):
        return f"{self.raw / 1000:,.0f} kB, gzipped {self.gzip / 1000:,.0f} kB"


def content(model):
    """The bytes of a model. Raises InputError if there are none, they are not a TFLite flatbuffer, or it has several signatures
    (of which `rewrite.one_signature` makes a file of one)."""
    blob = inputs.tflite(model)
    flatbuffer.check_one_signature(blob, "model" if isinstance(model, bytes) else str(model))
    return blob


def interpreter(model, threads=1, batch=None, delegates=True):
    """An interpreter with its tensors allocated, for a batch of that many samples (None: as the file says).

    delegates: False for the built-in kernels instead of XNNPACK's, which are the default on CPUs.
    Raises InputError for a truncated or otherwise unusable file.
    """
    blob = content(model)
    try:
        with runtime_env.quiet():
            kernels = OpResolverType.AUTO if delegates else PLAIN
            loaded = Interpreter(model_content=blob, num_threads=threads, experimental_op_resolver_type=kernels)
            if batch is not None:
                details = loaded.get_input_details()[0]
                loaded.resize_tensor_input(details["index"], [batch, *details["shape"][1:]])
            _allocate(loaded)
    except (ValueError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[0]
        name = "model" if isinstance(model, bytes) else str(model)
        raise InputError(
            f"{name} ({len(blob):,} bytes) cannot be loaded ({cause}): convert or copy it again."
        ) from error
    return loaded


def _allocate(loaded):
    """Allocate an interpreter's tensors. A file declares 1 for the sizes that it leaves open, of which a convolution may leave
    nothing; then a likely size is tried."""
    try:
        loaded.allocate_tensors()
    except RuntimeError:
        ends = loaded.get_input_details()
        if not any((each["shape_signature"][1:] < 0).any() for each in ends):
            raise
        for each in ends:
            sides = np.where(each["shape_signature"][1:] < 0, LIKELY, each["shape"][1:])
            loaded.resize_tensor_input(each["index"], [each["shape"][0], *sides])
        loaded.allocate_tensors()


def predict(model, x, batch=BATCH, threads=runtime_env.LITERT_THREADS, admits_batches=None):
    """Run a model with one input and one output over samples: float32 (n, ...) -> float32 (n, outputs).

    Batches are what makes this fast; the numbers are the same as one sample at a time, which is what a model gets that
    cannot take them. Integer inputs and outputs are quantized and dequantized with the file's own scale and zero point.
    admits_batches: whether it can take them, where its graph is known; None to find out (`interpreting.admits_batches`), which
    takes some 20 ms for MobileNetV2.
    Raises InputError when the samples do not fit the model's input.
    """
    x = np.asarray(x)
    if batch < 1:
        raise InputError(f"batch={batch!r} must be 1 or more.")
    size = 1
    if x.ndim and x.size:  # as few batches, and as even, as can be
        size = -(-len(x) // -(-len(x) // interpreting.at_a_time([x], batch)))
    if admits_batches is None:
        admits_batches = size == 1 or interpreting.admits_batches(content(model), size)
    if not admits_batches:
        size = 1  # a file made for one sample may answer a batch with the first one's values
    loaded = interpreter(model, threads, batch=size)
    _check_answers_each_by_itself(loaded, model if isinstance(model, bytes) else str(model))
    source, target = loaded.get_input_details()[0], loaded.get_output_details()[0]
    if x.shape[1:] != tuple(source["shape"][1:]) or not x.size:
        raise InputError(
            f"x has shape {x.shape}: this model takes (n, {', '.join(map(str, source['shape'][1:]))}), n at least 1."
        )
    try:
        [stored] = _stored(loaded, [x], size)
    except ValueError as error:
        raise InputError(f"x does not fit the model ({error}).") from error
    return interpreting.real_numbers(stored, target)


def run(model, samples, threads=runtime_env.LITERT_THREADS, batch=1, admits_batches=None, delegates=True):
    """Run a file of any inputs and outputs over samples: name of an input -> array (n, ...) -> name of an output -> array (n, ...),
    real numbers. Samples under names that the file does not have go into its other inputs, in the file's order.

    Open sizes take those of the samples. batch: how many at a time, at most, where the graph admits it, as in `predict`. delegates: as
    `interpreter` takes it. Raises InputError for samples that do not fit.
    """
    blob = content(model)
    loaded = interpreter(blob, threads, delegates=delegates)
    sources, targets = interpreting.declared(loaded)
    names = [each["name"] for each in sources]
    arrays = inputs.in_order(names, samples)
    named, size = dict(zip(names, arrays, strict=True)), interpreting.at_a_time(arrays, batch)
    _check_answers_each_by_itself(loaded, blob, named)
    if admits_batches is None:
        admits_batches = size == 1 or interpreting.admits_batches(blob, size, named)
    if not admits_batches:
        size = 1
    try:
        for details, array in zip(loaded.get_input_details(), arrays, strict=True):
            if list(details["shape"]) != [size, *array.shape[1:]]:
                loaded.resize_tensor_input(details["index"], [size, *array.shape[1:]])
        loaded.allocate_tensors()
        stored = _stored(loaded, arrays, size)
    except (ValueError, RuntimeError) as error:
        shown = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in zip(names, arrays, strict=True))
        raise InputError(f"samples do not fit the model ({str(error).strip().splitlines()[0]}): {shown}.") from error
    details = loaded.get_output_details()
    real = [interpreting.real_numbers(*each) for each in zip(stored, details, strict=True)]
    return dict(zip([each["name"] for each in targets], real, strict=True))


def _check_answers_each_by_itself(loaded, blob, samples=None):
    why = interpreting.remembers(loaded, blob, samples)
    if why:
        raise InputError(f"the model cannot be run over samples: {why}.")


def _stored(loaded, arrays, size):
    """What an interpreter puts out for samples, as stored: an array (n, ...) of each output."""
    return [np.concatenate(each) for each in zip(*interpreting.batches(loaded, arrays, size), strict=True)]


def size(model):
    """Size of a model, raw and gzipped."""
    blob = inputs.tflite(model)
    return Size(len(blob), len(gzip.compress(blob, GZIP_LEVEL, mtime=0)))


def tensors(model):
    """Every tensor of the main graph, a row each: name, shape, dtype, constant, scales (how many; 0 is float),
    zeros (share of zero values, constants only; those that a sparse encoding leaves out count).

    Raises InputError for a damaged file.
    """
    rows = []
    blob = content(model)
    with flatbuffer.unpacked(blob) as parsed:
        for tensor in parsed.subgraphs[0].tensors:
            data = flatbuffer.stored(parsed.buffers[tensor.buffer], blob)
            constant = len(data) > 0
            dtype = flatbuffer.names(schema.TensorType)[tensor.type].lower()
            shape = tuple(int(n) for n in tensor.shape) if tensor.shape is not None else ()
            scales = tensor.quantization.scale if tensor.quantization else None
            zeros = np.nan
            if constant and dtype in ("float32", "int8", "float16"):
                zeros = 1 - np.count_nonzero(data.view(dtype)) / math.prod(shape)
            rows.append(
                {
                    "name": tensor.name.decode(),
                    "shape": shape,
                    "dtype": dtype,
                    "constant": constant,
                    "scales": 0 if scales is None else len(scales),
                    "zeros": zeros,
                }
            )
    return pd.DataFrame(rows)


def weight_layers(model, known=(), others=False):
    """Every convolution and dense layer with weights of its own, a row each in order of the graph: layer (its name in
    Keras), op, name (of the output tensor), weights (how many numbers the kernel has), dtype (of the kernel).

    The converter keeps Keras' names in those of tensors, several joined where it fused operators; a tensor that keeps
    none gets the scope of its first name. known: names of the model's layers that have weights; a part of such a layer is
    called <layer>/<part>, as in "attention/query". others: operators without weights that give real numbers, too; they have
    0 of them. Raises InputError for a damaged file.
    """
    rows, kernels_ = [], []
    with flatbuffer.unpacked(content(model)) as parsed:
        graph = parsed.subgraphs[0]
        unpacking = ("DEQUANTIZE", "DENSIFY")
        computed = {
            index
            for operator in graph.operators
            for index in operator.outputs
            if flatbuffer.operator_name(parsed, operator) not in unpacking
        } | set(graph.inputs)
        for operator in graph.operators:
            op, made = flatbuffer.operator_name(parsed, operator), graph.tensors[operator.outputs[0]]
            weighted = op in flatbuffer.WEIGHT_OPERATORS
            # Two activations may be multiplied with each other, as in attention.
            weighted = weighted and operator.inputs[1] not in computed
            if not weighted and not (others and op not in unpacking and made.type == schema.TensorType.FLOAT32):
                continue
            kernel = graph.tensors[operator.inputs[1]] if weighted else made
            kernels_.append(kernel.name.decode())
            rows.append(
                {
                    "op": op,
                    "name": made.name.decode(),
                    "weights": math.prod(kernel.shape) if weighted else 0,
                    "dtype": flatbuffer.names(schema.TensorType)[kernel.type].lower(),
                }
            )
    table = pd.DataFrame(rows, columns=["layer", "op", "name", "weights", "dtype"])
    return table.assign(layer=layer_names.of(list(zip(table["name"], kernels_, strict=True)), known))


def kernels_in(model):
    """The integer kernels of convolutions and dense layers, also those that are unpacked to float32 before use, a row each
    in order of the graph: op, name (of the output tensor), integers (int8 array as stored), scales (float32 (channels,) or
    (1,)), axis (of the output channels).

    Raises InputError for a damaged file.
    """
    rows, blob = [], content(model)
    with flatbuffer.unpacked(blob) as parsed:
        graph, packed = parsed.subgraphs[0], {}
        for operator in graph.operators:
            op = flatbuffer.operator_name(parsed, operator)
            if op == "DEQUANTIZE":
                packed[operator.outputs[0]] = operator.inputs[0]
            if op not in flatbuffer.WEIGHT_OPERATORS:
                continue
            kernel = graph.tensors[packed.get(operator.inputs[1], operator.inputs[1])]
            data = flatbuffer.stored(parsed.buffers[kernel.buffer], blob)
            if kernel.type == schema.TensorType.INT4:
                data = flatbuffer.integers_of_4_bits(data)[: math.prod(kernel.shape)]
            elif kernel.type != schema.TensorType.INT8:
                continue
            rows.append(
                {
                    "op": op,
                    "name": graph.tensors[operator.outputs[0]].name.decode(),
                    "integers": data.view(np.int8).reshape(kernel.shape),
                    "scales": np.asarray(kernel.quantization.scale, np.float32),
                    "axis": 3 if op == "DEPTHWISE_CONV_2D" else 0,
                }
            )
    return pd.DataFrame(rows, columns=["op", "name", "integers", "scales", "axis"])


def per_channel(model):
    """How many integer kernels have a scale for every output channel: Series, operator -> such as "17 of 17"."""
    kernels = kernels_in(model)
    several = (kernels["scales"].map(len) > 1).groupby(kernels["op"])
    return several.sum().astype(str) + " of " + several.size().astype(str)


def at_once(model, samples):
    """How many samples to show a float file at a time where all of its tensors are kept: as many as fit into KEPT_BYTES, and one
    where the graph was made for one (`interpreting.admits_batches`). samples: name of an input -> array (n, ...), whose sizes
    open ones take."""
    blob, number = content(model), len(next(iter(samples.values())))
    with runtime_env.quiet():
        loaded = interpreting.load(blob, 1, samples=samples, experimental_op_resolver_type=PLAIN)
        shapes = {each["index"]: each["shape"].tolist() for each in loaded.get_tensor_details()}
    each = 4 * sum(math.prod(shapes.get(index, ())) for index in tensors(blob).query("not constant").index)
    size = max(1, min(number, KEPT_BYTES // max(1, each)))
    return size if size == 1 or interpreting.admits_batches(blob, size, samples) else 1


def layer_outputs(model, x):
    """What every convolution and dense layer puts out for samples: list of float32 arrays in order of the graph.

    Runs in built-in kernels, since a delegate shows nothing of what happens inside it. x: float32 (n, ...).
    """
    blob, x = content(model), np.asarray(x)
    with flatbuffer.unpacked(blob) as parsed:
        operators_ = parsed.subgraphs[0].operators
        outputs = [
            o.outputs[0] for o in operators_ if flatbuffer.operator_name(parsed, o) in flatbuffer.WEIGHT_OPERATORS
        ]
    size = at_once(blob, {"x": x})
    found = []
    with runtime_env.quiet():  # it warns of the memory that all these tensors take
        loaded = Interpreter(
            model_content=blob,
            num_threads=runtime_env.LITERT_THREADS,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=PLAIN,
        )
        source = loaded.get_input_details()[0]
        for start in range(0, len(x), size):
            part = x[start : start + size]
            loaded.resize_tensor_input(source["index"], part.shape)
            loaded.allocate_tensors()
            loaded.set_tensor(source["index"], interpreting.as_stored(part, source))
            loaded.reset_all_variables()
            loaded.invoke()
            details = {tensor["index"]: tensor for tensor in loaded.get_tensor_details()}
            found.append([interpreting.real_numbers(loaded.get_tensor(index), details[index]) for index in outputs])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def operators(model):
    """Every operator of the main graph in order, a row each: op, and the dtypes of its first two inputs.

    Raises InputError for a damaged file.
    """
    rows = []
    with flatbuffer.unpacked(content(model)) as parsed:
        graph = parsed.subgraphs[0]
        dtypes = [flatbuffer.names(schema.TensorType)[tensor.type].lower() for tensor in graph.tensors]
        for operator in graph.operators:
            name = flatbuffer.operator_name(parsed, operator)
            inputs = [dtypes[index] for index in operator.inputs[:2] if index >= 0]
            rows.append(
                {"op": name, "input": inputs[0] if inputs else "", "weights": inputs[1] if len(inputs) > 1 else ""}
            )
    return pd.DataFrame(rows)


def kernels(model):
    """Which kernels run a model here, in words: XNNPACK's for the whole graph, for parts of it, or the built-in ones."""
    # The public interface does not tell what a delegate took over; this private one lists the nodes after delegation.
    nodes = [node["op_name"] for node in interpreter(model)._get_ops_details()]
    parts = nodes.count("DELEGATE")
    if parts == 0:
        return "built-in, no XNNPACK"
    return "XNNPACK" if parts == 1 else f"XNNPACK in {parts} parts, built-in between"
