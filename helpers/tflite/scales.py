"""The steps in which a quantized `.tflite` tells its numbers: one step for all of a tensor, however unlike its parts are."""

import math

import pandas as pd

from helpers.base import runtime_env
from helpers.tflite import flatbuffer, litert

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

COLUMNS = ["name", "tensor", "dtype", "step", "low", "high"]
INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(2**15), 2**15 - 1), "int4": (-8, 7)}


def of_outputs(model):
    """The step of each output of a `.tflite` (bytes or path), a row each in order of the file: name (in the signature, or of
    the tensor), tensor (the one that holds it before it is made float), dtype (of that), step, low, high (the least and the
    largest number that it can tell). Of a float tensor the last three are NaN.

    What is smaller than half a step beside its zero is told as 0. Raises InputError for a damaged file.
    """
    blob, rows = litert.content(model), []
    named = flatbuffer.signature_names(blob, "outputs")
    with flatbuffer.unpacked(blob) as parsed:
        graph = parsed.subgraphs[0]
        unpacking = {
            operator.outputs[0]: operator.inputs[0]
            for operator in graph.operators
            if flatbuffer.operator_name(parsed, operator) == "DEQUANTIZE"
        }
        for index in graph.outputs:
            tensor = graph.tensors[unpacking.get(index, index)]
            name = named.get(index, graph.tensors[index].name.decode())
            rows.append((name, tensor.name.decode(), *_told(tensor)))
    return pd.DataFrame(rows, columns=COLUMNS)


def step(ranges, bits=8):
    """The step that a tensor of some ranges gets: (largest - smallest) over the number of steps, 0 included, as converters
    have it for activations. ranges: (smallest, largest), or several of them that share one tensor."""
    pairs = list(ranges) if isinstance(ranges[0], tuple | list) else [ranges]
    low, high = min(0.0, *(float(pair[0]) for pair in pairs)), max(0.0, *(float(pair[1]) for pair in pairs))
    return (high - low) / (2**bits - 1)


def _told(tensor):
    """dtype, step, low, high."""
    dtype = flatbuffer.names(schema.TensorType)[tensor.type].lower()
    known = tensor.quantization is not None and tensor.quantization.scale is not None
    if not known or dtype not in INTEGERS:
        return dtype, math.nan, math.nan, math.nan
    scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    return dtype, scale, *((end - zero) * scale for end in INTEGERS[dtype])
