"""What a `.tflite` holds of each layer of weights, counted from the file."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers.tflite import flatbuffer

BITS = {"int4": 4, "int2": 2, "float16": 16, "float32": 32}  # 8 for all others
POINT = 12  # bytes of a scale (float32) and its zero point (int64)
COLUMNS = ["kernel", "dtype", "scales", "inputs", "bytes"]


def held(file):
    """A row for each layer, in order of the graph: kernel (number of its buffer), dtype, scales (how many; 0 for float32), inputs (how
    many numbers of the kernel one output adds up; of a depthwise layer, of all channels), bytes (of kernel and bias, with their scales
    and zero points). file: bytes of a float or a quantized `.tflite`. Raises InputError for a damaged one."""
    rows = []
    with flatbuffer.unpacked(file) as parsed:
        graph = parsed.subgraphs[0]
        for op, operator, index in _layers(parsed):
            kernel = graph.tensors[index]
            parts = [kernel, *(graph.tensors[place] for place in _bias(op, operator) if place >= 0)]
            of, scales = kernel.quantization, kernel.quantization.scale if kernel.quantization else None
            blocks = getattr(of.details, "scales", None) if of else None
            rows.append(
                {
                    "kernel": kernel.buffer,
                    "dtype": _dtype(kernel),
                    "scales": math.prod(graph.tensors[blocks].shape) if blocks is not None else _length(scales),
                    "inputs": math.prod(kernel.shape[1:]),
                    "bytes": sum(_bytes(parsed, part, file) for part in parts)
                    + (0 if blocks is None else _bytes(parsed, graph.tensors[blocks], file)),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class Kernel:
    """A layer's weights. op: its kind. reads: the name of the tensor that they are multiplied with. bits: of each weight.
    activations: bits of what is read, 8 or 16, where the layer is computed in integers; "dynamic" where what it reads is float32
    and is rounded as it runs; None where it is computed in float32. shape: of the kernel. content: its bytes and those of its
    scales. whole: whether there are as many bytes as shape and bits say."""

    op: str
    reads: str
    bits: int
    activations: int | str | None
    shape: tuple
    content: bytes
    whole: bool


def by_output(file):
    """Name of the tensor that each layer puts out, as the float file has it -> Kernel. file: as in `held`, with what it raises."""
    found = {}
    with flatbuffer.unpacked(file) as parsed:
        graph = parsed.subgraphs[0]
        for op, operator, index in _layers(parsed):
            kernel, read = graph.tensors[index], graph.tensors[operator.inputs[2 if op == "TRANSPOSE_CONV" else 0]]
            values, bits = flatbuffer.stored(parsed.buffers[kernel.buffer], file), BITS.get(_dtype(kernel), 8)
            content, of = values.tobytes(), kernel.quantization
            if of is not None and of.scale is not None:
                content += np.asarray(of.scale, np.float32).tobytes()
            blocks = getattr(of.details, "scales", None) if of else None
            if blocks is not None:
                content += flatbuffer.stored(parsed.buffers[graph.tensors[blocks].buffer], file).tobytes()
            computed = {"int8": 8, "int16": 16}.get(_dtype(read), "dynamic")
            if index != operator.inputs[1] or bits > 8:
                computed = None
            shape = tuple(map(int, kernel.shape))
            whole = len(values) == -(-math.prod(shape) * bits // 8)
            name = graph.tensors[operator.outputs[0]].name.decode().removesuffix("_quantized")
            found[name] = Kernel(op, read.name.decode(), bits, computed, shape, content, whole)
    return found


def _layers(parsed):
    """(kind, operator, index of the kernel as it is stored) of each layer."""
    graph = parsed.subgraphs[0]
    packed, computed = {}, set(graph.inputs)
    for operator in graph.operators:
        op = flatbuffer.operator_name(parsed, operator)
        if op in ("DEQUANTIZE", "DENSIFY"):
            packed[operator.outputs[0]] = operator.inputs[0]
        else:
            computed |= set(operator.outputs)
        if op not in flatbuffer.WEIGHT_OPERATORS:
            continue
        index = packed.get(operator.inputs[1], operator.inputs[1])
        if index not in computed:  # two activations may be multiplied with each other, as in attention
            yield op, operator, index


def _dtype(tensor):
    return flatbuffer.names(flatbuffer.schema.TensorType)[tensor.type].lower()


def _bias(op, operator):
    place = 3 if op == "TRANSPOSE_CONV" else 2
    return operator.inputs[place : place + 1]


def _bytes(parsed, tensor, file):
    scales = tensor.quantization.scale if tensor.quantization else None
    return len(flatbuffer.stored(parsed.buffers[tensor.buffer], file)) + POINT * _length(scales)


def _length(array):
    return 0 if array is None else len(array)
