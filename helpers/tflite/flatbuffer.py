"""The flatbuffer of a `.tflite`: its parts as the schema has them, to be read or changed. Takes the bytes of a file.

`litert` tells of a file in the terms of networks; what is here is plumbing for it and for `rewrite`.
"""

import contextlib
import functools

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.tflite import interpreting

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

    from helpers.tflite import packing
    from helpers.tflite.packing import stored as stored  # for who reads files by this module

WEIGHT_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
ENORMOUS = 1e37  # 8 bits of such a range have no scale in float32


def integers_of_4_bits(data):
    """int8 (2 n,) of uint8 (n,): two lie in a byte, the lower half first."""
    return (np.stack([data << 4, data & 0xF0], axis=-1).view(np.int8) >> 4).ravel()


def operator_name(parsed, operator):
    """Such as "CONV_2D", of an operator in an unpacked file; a custom one is "CUSTOM"."""
    code = parsed.operatorCodes[operator.opcodeIndex]
    return names(schema.BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]


@functools.cache
def names(enumeration):
    """Number -> name of the schema's constants, as of `schema.TensorType`."""
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


@contextlib.contextmanager
def unpacked(blob):
    """The content of a file as the schema's `ModelT`, to be read or changed. Tensors without names, as files for small devices have
    them, get one by their place. Raises InputError for a damaged file, or for whatever goes wrong while it is read."""
    with refusing_damage(blob):
        parsed = schema.ModelT.InitFromPackedBuf(blob, 0)
        for graph in parsed.subgraphs:
            for place, tensor in enumerate(graph.tensors):
                tensor.name = tensor.name or f"tensor_{place}".encode()
        yield parsed


def custom_operators(blob):
    """The names of the operators in a file that no interpreter knows without code of their author's."""
    with unpacked(blob) as parsed:
        codes = (
            parsed.operatorCodes[operator.opcodeIndex] for graph in parsed.subgraphs for operator in graph.operators
        )
        return sorted({code.customCode.decode() for code in codes if code.customCode})


def not_finite(blob):
    """The names of a file's float constants that hold NaN, and of kernels and biases that hold infinity (elsewhere, as in a
    mask, that may be meant)."""
    with unpacked(blob) as parsed:
        graph, found = parsed.subgraphs[0], []
        weights = {
            index
            for operator in graph.operators
            if operator_name(parsed, operator) in WEIGHT_OPERATORS
            for index in operator.inputs[1:]
        }
        for index, tensor in enumerate(graph.tensors):
            if tensor.type == schema.TensorType.FLOAT32:
                values = stored(parsed.buffers[tensor.buffer], blob).view("float32")
                if not (np.isfinite(values).all() if index in weights else not np.isnan(values).any()):
                    found.append(tensor.name.decode())
        return found


def without_scale(blob):
    """The names of a file's float constants with numbers for which float32 has no scale of integers: infinity, and the most negative
    number, which masks have and the converter writes for -inf."""
    with unpacked(blob) as parsed:
        constants = [each for each in parsed.subgraphs[0].tensors if each.type == schema.TensorType.FLOAT32]
        values = [stored(parsed.buffers[each.buffer], blob).view("float32") for each in constants]
        return [
            each.name.decode() for each, of in zip(constants, values, strict=True) if (np.abs(of) >= ENORMOUS).any()
        ]


def of_signature(blob, name, label):
    """The bytes of a file with one of its signatures alone; the file itself if it has one or none. Raises InputError, which begins
    with the label, where the name (or None) does not say which one, and for a damaged file."""
    known, single = packing.signatures(blob)
    try:
        place = interpreting.chosen(known, name)
    except ValueError as error:
        raise InputError(f"{label}: {error}.") from error
    with refusing_damage(blob):
        return blob if single else packing.alone(blob, place)


def signature_names(blob, ends):
    """Index of each tensor of the first signature -> the name that it has there. ends: "inputs" or "outputs"."""
    with unpacked(blob) as parsed:
        entries = getattr(parsed.signatureDefs[0], ends) if parsed.signatureDefs else []
        return {entry.tensorIndex: entry.name.decode() for entry in entries}


def check_one_signature(blob, label):
    """Raises InputError for a file of several signatures, since each is a network of its own: `rewrite.one_signature` gives the
    file of one. label: what the sentence begins with. What is damaged is left for whoever reads it."""
    names, single = packing.signatures(blob)
    if not single:
        raise InputError(f"{label}: {interpreting.several(names)}.")


def has_signature(blob):
    """Whether a file names its inputs and outputs in a signature. Raises InputError for a damaged file."""
    with refusing_damage(blob):
        return schema.Model.GetRootAs(blob, 0).SignatureDefsLength() > 0


def has_old_codes(blob):
    """Whether a file gives its operators by the numbers of old converters alone, which litert-quantizer does not read: to
    it, each of them would be an ADD. Raises InputError for a damaged file."""
    with refusing_damage(blob):
        model = schema.Model.GetRootAs(blob, 0)
        codes = [model.OperatorCodes(place) for place in range(model.OperatorCodesLength())]
        return any(code.DeprecatedBuiltinCode() > code.BuiltinCode() for code in codes)


@contextlib.contextmanager
def refusing_damage(blob):
    """Raises InputError for whatever goes wrong while a file is read."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the generated reader, or what it read, fail in any way
        raise InputError(
            f"model of {len(blob):,} bytes is damaged ({type(error).__name__}): convert or copy it again."
        ) from error
