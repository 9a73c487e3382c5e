"""What a `.tflite` holds of each layer of weights, counted from the file."""

import math

import pandas as pd

from helpers.tflite import flatbuffer

POINT = 12  # bytes of a scale (float32) and its zero point (int64)
COLUMNS = ["kernel", "dtype", "scales", "inputs", "bytes"]


def held(file):
    """A row for each layer, in order of the graph: kernel (number of its buffer), dtype, scales (how many; 0 for float32), inputs (how
    many numbers of the kernel one output adds up; of a depthwise layer, of all channels), bytes (of kernel and bias, with their scales
    and zero points). file: bytes of a float or a quantized `.tflite`. Raises InputError for a damaged one."""
    rows = []
    with flatbuffer.unpacked(file) as parsed:
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
            if index in computed:  # two activations may be multiplied with each other, as in attention
                continue
            kernel = graph.tensors[index]
            parts = [kernel, *(graph.tensors[place] for place in _bias(op, operator) if place >= 0)]
            of, scales = kernel.quantization, kernel.quantization.scale if kernel.quantization else None
            blocks = getattr(of.details, "scales", None) if of else None
            rows.append(
                {
                    "kernel": kernel.buffer,
                    "dtype": flatbuffer.names(flatbuffer.schema.TensorType)[kernel.type].lower(),
                    "scales": math.prod(graph.tensors[blocks].shape) if blocks is not None else _length(scales),
                    "inputs": math.prod(kernel.shape[1:]),
                    "bytes": sum(_bytes(parsed, part, file) for part in parts)
                    + (0 if blocks is None else _bytes(parsed, graph.tensors[blocks], file)),
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _bias(op, operator):
    place = 3 if op == "TRANSPOSE_CONV" else 2
    return operator.inputs[place : place + 1]


def _bytes(parsed, tensor, file):
    scales = tensor.quantization.scale if tensor.quantization else None
    return len(flatbuffer.stored(parsed.buffers[tensor.buffer], file)) + POINT * _length(scales)


def _length(array):
    return 0 if array is None else len(array)
