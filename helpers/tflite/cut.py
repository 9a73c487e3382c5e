"""A `.tflite` cut between its operators: files of the parts, which one after the other compute what the whole does; and how far
two files compute the same. Loads no TensorFlow."""

import numpy as np

from helpers.base import runtime_env
from helpers.tflite import flatbuffer, litert, packing

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
FIXED, OF_SHAPES, OF_SAMPLES = range(3)  # what the values of a tensor depend on


class Cuttable:
    """A file that may be cut. Its steps are the operators that read what depends on the samples, in their order; the others, which
    unpack constants, go with whoever reads them. Place p lies before step p.

    steps: how many. places: those where it can be cut, rising; the first is 0. A file with several graphs, with memory or
    with operators of chance can be cut nowhere else. Raises what `litert.content` raises, and InputError for a damaged file.
    """

    def __init__(self, model):
        self.blob = litert.content(model)
        with flatbuffer.unpacked(self.blob) as content:
            self._content, self._graph = content, content.subgraphs[0]
            self._take_apart()

    def _take_apart(self):
        graph, self._fixed, self._steps = self._graph, {}, []
        self._kinds = kinds = dict.fromkeys(self.inputs(), OF_SAMPLES)  # of constants there are none
        for number, operator in enumerate(graph.operators):
            kind = max((kinds.get(index, FIXED) for index in _read(operator)), default=FIXED)
            if kind == FIXED:
                self._fixed.update(dict.fromkeys(_written(operator), number))
            else:
                self._steps.append(number)
                shapes = flatbuffer.operator_name(self._content, operator) in SHAPES
                kind = OF_SHAPES if shapes else kind
            kinds.update(dict.fromkeys(_written(operator), kind))
        self.steps = len(self._steps)
        self._live = self._living()
        self.places = [0]
        if not self._is_whole():
            # A size among the inputs of a part would be a number like any other, and shapes in it open until it runs.
            self.places += [
                place
                for place in range(1, self.steps)
                if all(kinds[index] == OF_SAMPLES and self._is_number(index) for index in self._live[place])
            ]

    def _living(self):
        """For each place, and behind the last step, the tensors that are there by then and are read later, or put out."""
        found, wanted = [], set(self.outputs())
        for number in reversed(self._steps):
            found.append(wanted)
            operator = self._graph.operators[number]
            wanted = wanted - set(_written(operator)) | {each for each in _read(operator) if not self._is_fixed(each)}
        return [sorted(each) for each in (wanted, *reversed(found))]

    def _is_fixed(self, index):
        return self._kinds.get(index, FIXED) == FIXED

    def _stored(self, index):
        return flatbuffer.stored(self._content.buffers[self._graph.tensors[index].buffer], self.blob)

    def _is_number(self, index):
        return self._graph.tensors[index].type in (
            schema.TensorType.FLOAT32,
            schema.TensorType.INT8,
            schema.TensorType.UINT8,
            schema.TensorType.INT16,
            schema.TensorType.INT32,
            schema.TensorType.INT64,
            schema.TensorType.BOOL,
        )

    def _is_whole(self):
        """Whether it cannot be cut."""
        operators = (flatbuffer.operator_name(self._content, each) for each in self._graph.operators)
        return (
            len(self._content.subgraphs) > 1
            or any(tensor.isVariable for tensor in self._graph.tensors)
            or any(name in STATEFUL for name in operators)
            or any(map(self._is_fixed, self.outputs()))
        )

    def live(self, place):
        """The indices of the tensors that are there at a place and read behind it, outputs of the file included: a list, rising.
        At place 0 they are inputs of the file."""
        return self._live[place]

    def written(self, step):
        """The indices of the tensors that a step makes."""
        return _written(self._graph.operators[self._steps[step]])

    def inputs(self):
        """The indices of the file's inputs."""
        return [int(index) for index in self._graph.inputs]

    def outputs(self):
        """The indices of the file's outputs."""
        return [int(index) for index in self._graph.outputs]

    def quantization(self, index):
        """The scale and zero point of a tensor, as an interpreter gives them: 0 and 0 where it has none of its own."""
        of = self._graph.tensors[index].quantization
        single = of is not None and of.scale is not None and len(of.scale) == 1
        return (float(np.float32(of.scale[0])), int(of.zeroPoint[0])) if single else (0.0, 0)

    def common(self, other):
        """How many first steps of two files compute the same, and which tensors of the other hold what those of this one hold: (steps,
        index -> index). Operators, options, and shapes, types, scales and constants of tensors must be equal; names may differ."""
        same = {}
        if len(self.inputs()) != len(other.inputs()):
            return 0, {}
        for mine, its in zip(self.inputs(), other.inputs(), strict=True):
            if not self._alike(mine, other, its):
                return 0, {}
            same[mine] = its
        for step, (one, two) in enumerate(zip(self._steps, other._steps, strict=False)):
            made = self._does_the_same(one, other, two, same)
            if made is None:
                return step, same
            same.update(made)
        return min(self.steps, other.steps), same

    def _does_the_same(self, one, other, two, same):
        """Whether operators of two files do: what one writes -> what the other writes, or None."""
        mine, its = self._graph.operators[one], other._graph.operators[two]
        ends = [(mine.inputs, its.inputs), (mine.outputs, its.outputs)]
        if not self._same_kind(mine, other, its) or any(len(here) != len(there) for here, there in ends):
            return None
        read = zip(map(int, mine.inputs), map(int, its.inputs), strict=True)
        if not all(self._same_value(index, other, twin, same) for index, twin in read):
            return None
        made = dict(zip(map(int, mine.outputs), map(int, its.outputs), strict=True))
        return made if all(self._alike(index, other, twin) for index, twin in made.items()) else None

    def _same_kind(self, mine, other, its):
        codes = (file._content.operatorCodes[each.opcodeIndex] for file, each in ((self, mine), (other, its)))
        parts = ("builtinOptionsType", "builtinOptions", "builtinOptions2Type", "builtinOptions2", "customOptions")
        return _equal(*codes) and all(_equal(getattr(mine, part), getattr(its, part)) for part in parts)

    def _same_value(self, index, other, twin, same):
        """Whether what operators read is: values that depend on samples by their indices, constants by their content."""
        if min(index, twin) < 0:
            return index == twin  # left out
        if not (self._is_fixed(index) and other._is_fixed(twin)):
            return same.get(index) == twin
        if index in self._fixed and twin in other._fixed:
            made = self._does_the_same(self._fixed[index], other, other._fixed[twin], same)
            return made is not None and made[index] == twin
        plain = index not in self._fixed and twin not in other._fixed
        return plain and self._alike(index, other, twin) and np.array_equal(self._stored(index), other._stored(twin))

    def _alike(self, index, other, twin):
        mine, its = (vars(file._graph.tensors[each]) for file, each in ((self, index), (other, twin)))
        return all(_equal(value, its[key]) for key, value in mine.items() if key not in ("name", "buffer"))

    def part(self, first=0, last=None):
        """The bytes of a file of the steps from place `first` until place `last` (the end, by default). Its inputs are
        `live(first)`, its outputs `live(last)` or those of the file, in their order, but for those that are inputs of the part."""
        ends = self.outputs() if last is None else self.live(last)
        numbers = self._with_fixed(self._steps[first:last])
        taken, given = self.live(first), [index for index in ends if index not in self.live(first)]
        operators = [self._graph.operators[number] for number in numbers]
        kept = sorted({*taken, *given, *(each for one in operators for each in (*_read(one), *_written(one)))})
        place = {-1: -1, **{index: new for new, index in enumerate(kept)}}
        content, buffers = _copied(self._content), _Buffers(self._content, self.blob)
        graph = _copied(self._graph)
        graph.tensors = [buffers.moved(self._graph.tensors[index]) for index in kept]
        graph.inputs, graph.outputs = ([place[index] for index in ends] for ends in (taken, given))
        graph.operators = [_copied(operator) for operator in operators]
        for operator in graph.operators:
            operator.inputs = [place[int(index)] for index in operator.inputs]
            operator.outputs = [place[int(index)] for index in operator.outputs]
            operator.intermediates = None
        content.subgraphs, content.signatureDefs, content.metadataBuffer = [graph], None, None
        content.metadata = [buffers.moved(entry) for entry in self._content.metadata or []]
        content.buffers = buffers.found
        return packing.packed(content, self.blob)

    def _with_fixed(self, numbers):
        """The numbers of operators, and of those that make the constants which they read."""
        found, new = set(numbers), list(numbers)
        while new:
            read = {index for number in new for index in _read(self._graph.operators[number])}
            new = [self._fixed[index] for index in read if index in self._fixed and self._fixed[index] not in found]
            found.update(new)
        return sorted(found)


class _Buffers:
    """Those that a part of a file needs; the first is empty, as everywhere."""

    def __init__(self, content, blob):
        self._content, self._blob, self.found, self._places = content, blob, [schema.BufferT()], {}

    def moved(self, owner):
        """A copy of a tensor, or of an entry of metadata, with its buffer at its new place."""
        copy, old = _copied(owner), owner.buffer
        data = flatbuffer.stored(self._content.buffers[old], self._blob)
        if old not in self._places:
            self._places[old] = len(self.found) if len(data) else 0
            if len(data):
                buffer = schema.BufferT()
                buffer.data = data
                self.found.append(buffer)
        copy.buffer = self._places[old]
        return copy


def _copied(value):
    copy = type(value)()
    vars(copy).update(vars(value))
    return copy


def _read(operator):
    return [int(index) for index in operator.inputs if index >= 0]


def _written(operator):
    return [int(index) for index in operator.outputs if index >= 0]


def _equal(one, two):
    """Whether two values of an unpacked file are the same."""
    if one is two:
        return True
    if hasattr(one, "__dict__") and type(one) is type(two):
        its = vars(two)
        return all(_equal(value, its[key]) for key, value in vars(one).items())
    if one is None or two is None:
        return False
    if isinstance(one, (list, np.ndarray)) or isinstance(two, (list, np.ndarray)):
        if np.ndim(one) == 1 and len(one) and hasattr(one[0], "__dict__"):
            return len(one) == np.size(two) and all(map(_equal, one, two))
        return np.array_equal(one, two)
    return one == two
