"""A `.tflite` cut between its operators: files of the parts, which one after the other compute what the whole does; and how far
two files compute the same. Loads no TensorFlow."""

import struct

import numpy as np

from helpers.base import runtime_env
from helpers.tflite import flatbuffer, litert

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

# Operators of whose results a part could not know: they remember, draw at random, or are unknown.
STATEFUL = (
    "CUSTOM",
    "VAR_HANDLE",
    "HASHTABLE",
    "RANDOM_UNIFORM",
    "RANDOM_STANDARD_NORMAL",
    "MULTINOMIAL",
    "STABLEHLO_RNG_BIT_GENERATOR",
)
SHAPES = ("SHAPE", "RANK")
NUMBERS = ("FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL")  # what can be handed from part to part
FIXED, OF_SHAPES, OF_SAMPLES = range(3)  # what the values of a tensor depend on
INPUTS, OUTPUTS, OPERATORS = 6, 8, 10  # places of fields in the schema's table of a graph
SIGNATURES = 18  # and of the file


class Cuttable:
    """A file that may be cut. Its steps are the operators that read what depends on the samples, in their order; the others, which
    unpack constants, go with whoever reads them. Place p lies before step p.

    blob: its bytes. steps: how many. places: those where it can be cut, rising; the first is 0. A file with several graphs, with
    memory, with operators of chance or of unknown kind can be cut nowhere else. Little is read before it is asked for, since
    reading takes longer than many a file runs. Raises what `litert.content` raises, and InputError for a damaged file.
    """

    def __init__(self, model):
        self.blob, self._tensors = litert.content(model), {}
        with flatbuffer.refusing_damage(self.blob):
            self._model = schema.Model.GetRootAs(self.blob, 0)
            self._graph = self._model.Subgraphs(0)
            codes = map(self._model.OperatorCodes, range(self._model.OperatorCodesLength()))
            self._codes = [schema.OperatorCodeT.InitFromObj(code) for code in codes]
            operators = map(self._graph.Operators, range(self._graph.OperatorsLength()))
            self._operators = [_Operator(operator, self._codes) for operator in operators]
            self.inputs, self.outputs = _indices(self._graph.InputsAsNumpy()), _indices(self._graph.OutputsAsNumpy())
            self._take_apart()

    def _take_apart(self):
        kinds = dict.fromkeys(self.inputs, OF_SAMPLES)  # of constants there are none
        self._kinds, self._makers, self._steps = kinds, {}, []
        for number, operator in enumerate(self._operators):
            kind = max((kinds.get(index, FIXED) for index in operator.read), default=FIXED)
            if kind == FIXED:
                self._makers.update(dict.fromkeys(operator.written, number))
            else:
                self._steps.append(number)
                kind = OF_SHAPES if operator.name in SHAPES else kind
            kinds.update(dict.fromkeys(operator.written, kind))
        self.steps, self._live, self.places = len(self._steps), self._living(), [0]
        if not self._is_whole():
            # A size among the inputs of a part would be a number like any other, and shapes open until it runs.
            self.places += [
                place
                for place in range(1, self.steps)
                if all(kinds[index] == OF_SAMPLES and self._type(index) in NUMBERS for index in self._live[place])
            ]

    def _living(self):
        """For each place, and behind the last step, the tensors that are there by then and are read later, or put out."""
        found, wanted = [], set(self.outputs)
        for number in reversed(self._steps):
            found.append(wanted)
            operator = self._operators[number]
            wanted = wanted.difference(operator.written).union(each for each in operator.read if self._is_live(each))
        return [sorted(each) for each in (wanted, *reversed(found))]

    def _is_live(self, index):
        return self._kinds.get(index, FIXED) != FIXED

    def _is_whole(self):
        """Whether it cannot be cut."""
        tensors = map(self._graph.Tensors, range(self._graph.TensorsLength()))
        return (
            self._model.SubgraphsLength() > 1
            or any(operator.name in STATEFUL for operator in self._operators)
            or not all(map(self._is_live, self.outputs))
            or any(tensor.IsVariable() for tensor in tensors)
        )

    def _type(self, index):
        return flatbuffer.names(schema.TensorType)[self._graph.Tensors(index).Type()]

    def _tensor(self, index):
        """What a tensor is, but for its name and its values, and for what writers say in several ways."""
        if index not in self._tensors:
            tensor = self._tensors[index] = schema.TensorT.InitFromObj(self._graph.Tensors(index))
            tensor.name, tensor.buffer = None, 0
            tensor.hasRank = tensor.hasRank or np.size(tensor.shape) > 0
            of = tensor.quantization
            if of is not None and of.details is None and (of.scale is None or not len(of.scale)):
                tensor.quantization = None
        return self._tensors[index]

    def _values(self, index):
        buffer = schema.BufferT.InitFromObj(self._model.Buffers(self._graph.Tensors(index).Buffer()))
        return flatbuffer.stored(buffer, self.blob)

    def live(self, place):
        """The indices of the tensors that are there at a place and are read behind it or put out: a list, rising."""
        return self._live[place]

    def taken(self, first, last=None):
        """The indices of those live at place `first` that the steps from there until place `last` read: a list, rising."""
        read = {index for number in self._steps[first:last] for index in self._operators[number].read}
        return [index for index in self._live[first] if index in read]

    def given(self, first, last=None):
        """The indices of those live at place `last`, or put out at the end of the file, that these steps make: a list."""
        made = {index for number in self._steps[first:last] for index in self._operators[number].written}
        return [index for index in (self.outputs if last is None else self._live[last]) if index in made]

    def written(self, step):
        """The indices of the tensors that a step makes."""
        return self._operators[self._steps[step]].written

    def quantization(self, index):
        """The scale and zero point of a tensor, as an interpreter gives them: 0 and 0 where it has none of its own."""
        of = self._tensor(index).quantization
        single = of is not None and of.scale is not None and len(of.scale) == 1
        return (float(np.float32(of.scale[0])), int(of.zeroPoint[0])) if single else (0.0, 0)

    def common(self, other):
        """How many first steps of two files compute the same, and which tensors of the other hold what those of this one hold: (steps,
        index -> index). Operators, options, and shapes, types, scales and constants of tensors must be equal; names may differ."""
        if len(self.inputs) != len(other.inputs):
            return 0, {}
        same = dict(zip(self.inputs, other.inputs, strict=True))
        if not all(self._alike(index, other, twin) for index, twin in same.items()):
            return 0, {}
        for step, (one, two) in enumerate(zip(self._steps, other._steps, strict=False)):
            made = self._does_the_same(one, other, two, same)
            if made is None:
                return step, same
            same.update(made)
        return min(self.steps, other.steps), same

    def _does_the_same(self, one, other, two, same):
        """Whether operators of two files do: what one writes -> what the other writes, or None."""
        mine, its = self._operators[one], other._operators[two]
        if mine.name != its.name or [len(mine.all), len(mine.written)] != [len(its.all), len(its.written)]:
            return None
        if not all(self._same_value(index, other, twin, same) for index, twin in zip(mine.all, its.all, strict=True)):
            return None
        made = dict(zip(mine.written, its.written, strict=True))
        alike = _equal(mine.kind(), its.kind()) and all(self._alike(each, other, made[each]) for each in made)
        return made if alike else None

    def _same_value(self, index, other, twin, same):
        """Whether what operators read is: values that depend on samples by their indices, constants by their content."""
        if min(index, twin) < 0:
            return index == twin  # left out
        if self._is_live(index) or other._is_live(twin):
            return same.get(index) == twin
        if index in self._makers and twin in other._makers:
            made = self._does_the_same(self._makers[index], other, other._makers[twin], same)
            return made is not None and made[index] == twin
        plain = index not in self._makers and twin not in other._makers
        return plain and self._alike(index, other, twin) and np.array_equal(self._values(index), other._values(twin))

    def _alike(self, index, other, twin):
        return _equal(self._tensor(index), other._tensor(twin))

    def part(self, first=0, last=None):
        """The bytes of a file of the steps from place `first` until place `last`, or until the end. Its inputs are `taken`, its
        outputs `given`, in their order. It has no signature.

        It is the same flatbuffer with other lists of inputs, outputs and operators, so that nothing is unpacked and packed
        again. Raises ValueError where a flatbuffer lies in an order that does not admit it.
        """
        file, graph = bytearray(self.blob), self._graph._tab
        for field, indices in ((INPUTS, self.taken(first, last)), (OUTPUTS, self.given(first, last))):
            file += bytes(-len(file) % 4)
            at = graph.Pos + graph.Offset(field)
            struct.pack_into("<I", file, at, len(file) - at)
            file += struct.pack(f"<{len(indices) + 1}i", len(indices), *indices)
        at = graph.Pos + graph.Offset(OPERATORS)
        start, number = graph.Vector(graph.Offset(OPERATORS)) - 4, len(self._operators)
        kept = self._with_makers(self._steps[first:last])
        # Offsets point forward, so that the shorter list stays at the end of where the longer one was.
        start += 4 * (number - len(kept))
        places = [self._operators[each].position - (start + 4 * place) for place, each in enumerate(kept, 1)]
        if min(places) <= 0:
            raise ValueError("the operators of this file lie before the list of them")
        struct.pack_into("<I", file, at, start - at)
        struct.pack_into(f"<{len(kept) + 1}I", file, start, len(kept), *places)
        if self._model.SignatureDefsLength():
            struct.pack_into("<I", file, self._model._tab.Vector(self._model._tab.Offset(SIGNATURES)) - 4, 0)
        return bytes(file)

    def _with_makers(self, numbers):
        """The numbers of operators, and of those that make the constants which they read."""
        found, new = set(numbers), set(numbers)
        while new:
            read = {index for number in new for index in self._operators[number].read}
            new = {self._makers[index] for index in read if index in self._makers} - found
            found |= new
        return sorted(found)


class _Operator:
    """all, read, written: indices of the tensors that it reads (-1 for one left out), of those that are there, and that it writes."""

    def __init__(self, operator, codes):
        self._operator, self._code, self._kind = operator, codes[operator.OpcodeIndex()], None
        self.position, number = operator._tab.Pos, max(self._code.builtinCode, self._code.deprecatedBuiltinCode)
        self.name = flatbuffer.names(schema.BuiltinOperator)[number]
        self.all, self.written = (_indices(ends()) for ends in (operator.InputsAsNumpy, operator.OutputsAsNumpy))
        self.read = [index for index in self.all if index >= 0]

    def kind(self):
        """What it is, but for the tensors."""
        if self._kind is None:
            found = schema.OperatorT.InitFromObj(self._operator)
            found.inputs = found.outputs = found.intermediates = None
            found.opcodeIndex = 0
            self._kind = [found, self._code]
        return self._kind


def _indices(found):
    """Of the reader's array of a list, which is a number where there is none."""
    return found.tolist() if isinstance(found, np.ndarray) else []


def _equal(one, two):
    """Whether two values of an unpacked file are the same."""
    if hasattr(one, "__dict__") and type(one) is type(two):
        its = vars(two)
        return all(_equal(value, its[key]) for key, value in vars(one).items())
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_equal, one, two))
    return np.array_equal(one, two) if isinstance(one, np.ndarray) or isinstance(two, np.ndarray) else one == two
