"""The main graph of a `.tflite`, read from its flatbuffer and ready to be run by TensorFlow: `Plan`."""

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress.tflite_operators import BIAS_PLACE, KERNEL_PLACE, NO_GRADIENT, RULES, Node, why_not
from helpers.tflite import flatbuffer, rewrite

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

# Between real numbers and integers: what they mean is told by the scales of the tensors around them.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
BITS = {"INT4": 4, "INT8": 8, "INT16": 16}
NUMBERS = {  # type of a tensor -> dtype
    **{kind: kind.lower() for kind in ("FLOAT16", "FLOAT32", "FLOAT64", "BOOL", "INT8", "INT16", "INT32", "INT64")},
    **{"UINT8": "uint8", "UINT32": "uint32", "INT4": "int8"},
}


def opened(model):
    """A float `.tflite` (bytes or path) to be worked on: (the file with its weights as float32 and a signature, its Plan, notes of
    what was changed for that). Raises InputError for an unusable or a quantized file, and for weights that are NaN or infinite."""
    file, notes = rewrite.with_plain_weights(rewrite.with_signature(model))
    plan = Plan(file)
    if plan.is_quantized():
        raise InputError("model is quantized already: give the float32 .tflite that it was made from.")
    broken = flatbuffer.not_finite(file)
    if broken:
        raise InputError(f"model has NaN or infinity in {', '.join(broken[:3])}: train or convert it again.")
    return file, plan, notes


def places_of_weights(node):
    """Where an operator has its kernel and its bias among its inputs; none for one without weights."""
    places = (KERNEL_PLACE.get(node.kind), BIAS_PLACE.get(node.kind))
    return [place for place in places if place is not None and place < len(node.inputs) and node.inputs[place] >= 0]


class Plan:
    """The main graph of a file, ready to be run: nodes, constants (index -> array), names, dtypes and ranges of its tensors."""

    def __init__(self, blob):
        with flatbuffer.unpacked(blob) as parsed:
            graph = parsed.subgraphs[0]
            kinds = [flatbuffer.names(schema.TensorType)[tensor.type] for tensor in graph.tensors]
            strange = sorted({kind for kind in kinds if kind not in NUMBERS})
            if strange:
                raise StructureError(f"model has tensors of type {strange[0]}, which are no numbers.")
            self.dtypes = [np.dtype(NUMBERS[kind]) for kind in kinds]
            self.names = [tensor.name.decode() for tensor in graph.tensors]
            self.shapes = [_shape(tensor) for tensor in graph.tensors]
            self.inputs, self.outputs = list(map(int, graph.inputs)), list(map(int, graph.outputs))
            self._stored, self._quantization = kinds, [tensor.quantization for tensor in graph.tensors]
            self.nodes = [
                Node(
                    flatbuffer.operator_name(parsed, operator),
                    operator.builtinOptions,
                    list(map(int, operator.inputs)),
                    list(map(int, operator.outputs)),
                    self.names[operator.outputs[0]],
                    self.dtypes[operator.outputs[0]],
                )
                for operator in graph.operators
            ]
            self.ranges = {index: self._range(index) for index in range(len(kinds)) if self._scales(index)}
            self.constants = {
                index: self._constant(index, data, tensor)
                for index, tensor in enumerate(graph.tensors)
                if len(data := flatbuffer.stored(parsed.buffers[tensor.buffer], blob))
            }
            for index in self.ranges:
                self.dtypes[index] = np.dtype("float32")

    def _scales(self, index):
        quantization = self._quantization[index]
        return [] if quantization is None or quantization.scale is None else list(quantization.scale)

    def _range(self, index):
        """(low, high, bits) of a tensor of integers with one scale: the real numbers that the ends of its type stand for."""
        if len(self._scales(index)) != 1 or self._stored[index] not in BITS:
            return None
        bits, scale = BITS[self._stored[index]], float(self._scales(index)[0])
        zero = int(self._quantization[index].zeroPoint[0])
        half = 2 ** (bits - 1)
        return scale * (-half - zero), scale * (half - 1 - zero), bits

    def rounding(self, index):
        """(bits, axis) of a constant of integers: axis None for one scale; (None, None) for one of real numbers."""
        if not self._scales(index) or self._stored[index] not in BITS:
            return None, None
        several = len(self._scales(index)) > 1
        return BITS[self._stored[index]], self._quantization[index].quantizedDimension if several else None

    def is_whole(self, index):
        """Whether a tensor holds integers that stand for real numbers."""
        return bool(self._scales(index)) and self._stored[index] != "FLOAT32"

    def is_quantized(self):
        """Whether any tensor holds integers for real numbers, or an operator turns one into the other."""
        return any(map(self.is_whole, self.ranges)) or any(node.kind in CONVERSIONS for node in self.nodes)

    def step(self, index):
        """The scale of a tensor of integers that has one."""
        return float(self._scales(index)[0])

    def _constant(self, index, data, tensor):
        shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
        if self._stored[index] == "INT4":
            data = flatbuffer.integers_of_4_bits(data)[: int(np.prod(shape))]
        values = np.ascontiguousarray(data).view(NUMBERS[self._stored[index]]).reshape(shape)
        scales = self._scales(index)
        if not scales:
            return values
        along = [1] * len(shape)
        if len(scales) > 1:
            along[self._quantization[index].quantizedDimension] = -1
        zero = np.reshape(np.asarray(self._quantization[index].zeroPoint), along if len(scales) > 1 else ())
        scale = np.reshape(np.asarray(scales, np.float32), along if len(scales) > 1 else ())
        return ((values.astype(np.int64) - zero) * scale).astype(np.float32)

    def check_rules(self):
        """Raises StructureError for an operator without a rule, by the name of what it makes."""
        for node in self.nodes:
            why = "" if node.kind in CONVERSIONS else why_not(node)
            if why:
                raise StructureError(f"model has {node.name}, and {why}: give the part of the model without it.")

    def open_reshapes(self):
        """Let every RESHAPE to one sample take as many as it is given, as most converters write it. Returns itself."""
        for node in self.nodes:
            shape = self.constants.get(node.inputs[1]) if node.kind == "RESHAPE" and len(node.inputs) > 1 else None
            if shape is not None and shape[:1] == 1 and -1 not in shape:
                self.constants[node.inputs[1]] = np.concatenate([[-1], shape[1:]]).astype(shape.dtype)
        return self

    def weights(self):
        """Indices of the float constants that are kernels and biases, in order."""
        found = [node.inputs[place] for node in self.nodes for place in places_of_weights(node)]
        return list(dict.fromkeys(i for i in found if i in self.constants and self.constants[i].dtype == np.float32))

    def end(self, index):
        """What makes a tensor, "SOFTMAX", "LOGISTIC" or "", and the tensor that it is made of (or itself)."""
        for node in self.nodes:
            if index in node.outputs:
                if node.kind in CONVERSIONS:
                    kind, before = self.end(node.inputs[0])
                    return (kind, before) if kind else ("", index)
                if node.kind == "LOGISTIC" or (node.kind == "SOFTMAX" and node.options.beta == 1):
                    return node.kind, node.inputs[0]
        return "", index

    def before_ends(self):
        """The tensors of the outputs, or, where a softmax or a sigmoid makes one, what it is made of."""
        return [self.end(index)[1] for index in self.outputs]

    def downstream(self, indices):
        """The set of the tensors that have a gradient by some of these, and the operators without one that stop it, in order."""
        reached, stopped = set(indices), []
        for node in self.nodes:
            if reached.intersection(node.inputs):
                if node.kind in NO_GRADIENT:
                    stopped.append(node)
                else:
                    reached.update(node.outputs)
        return reached, stopped

    def run(self, constants, inputs, rounded, ends):
        """The values of the tensors `ends`. constants: index -> what to take instead of the file's. rounded: called with
        the index and the value of every tensor that is computed or given."""
        values = {**self.constants, **constants}
        for index, value in zip(self.inputs, inputs, strict=True):
            values[index] = rounded(index, value)
        for node in self.nodes:
            for index, value in zip(node.outputs, self.computed(node, values), strict=True):
                values[index] = rounded(index, value)
        return [values[index] for index in ends]

    def computed(self, node, values):
        """What an operator makes of the tensors that it reads, index -> value: a list."""
        given = [values[index] if index >= 0 else None for index in node.inputs]
        found = given[0] if node.kind in CONVERSIONS else RULES[node.kind](node, *given)
        return found if isinstance(found, list) else [found]


def _shape(tensor):
    """-1 where it is open; the first is that of the batch."""
    known = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return () if known is None else tuple(map(int, known))
