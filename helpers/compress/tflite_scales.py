"""Where a factor for each channel can move in a float `.tflite` so that it still computes the same: `passages`.

What makes a tensor is multiplied (a normalization's gamma and beta, a layer's kernel and bias), what reads it is divided. Between
the two stands only what lets a positive factor through. Factors that are powers of two change no bit of float32.
"""

from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.compress import tflite_layout
from helpers.compress.tflite_operators import KERNEL_PLACE
from helpers.compress.tflite_plan import places_of_weights

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema

NORMALIZATION, SCALE, WEIGHTS = "normalization", "scale", "weights"
DATA_PLACE = {**dict.fromkeys(KERNEL_PLACE, 0), "TRANSPOSE_CONV": 2, "BATCH_MATMUL": 0}
SUMS, ROOTS = ("ADD", "SUB", "MINIMUM", "MAXIMUM"), ("RSQRT", "SQRT", "POW")  # both operands are scaled alike
SAME_ORDER = (
    "RESHAPE",
    "SQUEEZE",
    "EXPAND_DIMS",
    "RELU",
    "LEAKY_RELU",
    "PRELU",
    "ABS",
    "NEG",
)  # numbers stay where they are
PLACEWISE = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
SOME_OF = ("SLICE", "STRIDED_SLICE", "GATHER")  # such as the token that stands for a class
GATES = ("LOGISTIC", "TANH")  # no factor passes; a constant that multiplies what goes in can take it back
OVER_AXES = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
NEAR = 12  # operators between a normalization's root and what it puts out


@dataclass(frozen=True)
class Passage:
    """A tensor whose channels can be scaled. tensor: its index; channels: how many it has, along its last axis. kind:
    NORMALIZATION, SCALE (other constants that multiply and add), or WEIGHTS of layers. made, read: (number of an operator, place
    among its inputs) of the constants that are to be multiplied, and divided."""

    tensor: int
    channels: int
    kind: str
    made: tuple
    read: tuple

    def moved(self, plan, constants, factors):
        """Constants in which channel i of the tensor is multiplied by factors[i]: (operator, place) -> array, those of `constants`
        and those that change. constants: what was changed before, in the same form. factors: (channels,), greater than 0."""
        found = dict(constants)
        for places, each in ((self.made, np.asarray(factors)), (self.read, 1 / np.asarray(factors))):
            for at in places:
                values = _current(plan, found, at)
                along = tflite_layout.spread(plan.nodes[at[0]], at[1], values.shape, each, places is self.read)
                found[at] = (values * along).astype(values.dtype)
        return found

    def gamma(self, plan):
        """How much the constants of its products multiply each channel, without the sign: (channels,)."""
        found = np.ones(self.channels)
        for number, place in self.made:
            if plan.nodes[number].kind == "MUL":
                values = np.abs(plan.constants[plan.nodes[number].inputs[place]])
                found = found * values.reshape(-1, self.channels).max(0)
        return found

    def largest_weights(self, plan, constants):
        """The largest absolute weight that reads each channel: (channels,). constants: as in `moved`."""
        return np.max(self.reading(plan, constants), axis=0)

    def reading(self, plan, constants):
        """Of each kernel that reads the tensor the largest absolute weight for each channel: list of (channels,)."""
        return self._ranges(plan, constants, self.read, True)

    def making(self, plan, constants):
        """Of each kernel that makes the tensor, or a part of it, the largest absolute weight for each channel: list of
        (channels,), empty where only normalizations do."""
        return self._ranges(plan, constants, self.made, False)

    def kernels_reading(self, plan, constants):
        """(number of its operator, values) of each such kernel."""
        return [(at[0], _current(plan, constants, at)) for at in self._kernels(plan, self.read)]

    def kernels_making(self, plan, constants):
        """(number of its operator, values) of each such kernel."""
        return [(at[0], _current(plan, constants, at)) for at in self._kernels(plan, self.made)]

    def _kernels(self, plan, places):
        kinds = ((at, plan.nodes[at[0]].kind) for at in places)
        return [at for at, kind in kinds if kind in DATA_PLACE and at[1] == KERNEL_PLACE.get(kind, 1)]

    def _ranges(self, plan, constants, places, reads):
        return [
            tflite_layout.largest(plan.nodes[at[0]], at[1], np.abs(_current(plan, constants, at)), self.channels, reads)
            for at in self._kernels(plan, places)
        ]


def passages(plan):
    """Every Passage of a `tflite_plan.Plan`, in the order in which their tensors are read; no two have an operator's constant in
    the same role."""
    graph, found, taken = _Graph(plan), [], set()
    for number, node in enumerate(plan.nodes):
        if not graph.reads_by_weights(number):
            continue
        source = graph.source(node.inputs[DATA_PLACE[node.kind]])
        channels = plan.shapes[source][-1] if len(plan.shapes[source]) > 1 else 0
        if source in taken or channels < 2:
            continue
        closed = _Closure(graph, channels).closed(source)
        if closed is None or taken & closed.scaled or not graph.alone(closed):
            continue
        taken |= closed.scaled
        by_weights = any(plan.nodes[at].kind in KERNEL_PLACE for at, _ in closed.made)
        kind = WEIGHTS if by_weights else NORMALIZATION if graph.has_root(source) else SCALE
        found.append(Passage(source, channels, kind, tuple(sorted(closed.made)), tuple(sorted(closed.read))))
    return found


class _Graph:
    """What makes and reads the tensors of a plan."""

    def __init__(self, plan):
        self.plan = plan
        self.maker = {index: number for number, node in enumerate(plan.nodes) for index in node.outputs}
        self.reading = {}
        for number, node in enumerate(plan.nodes):
            for place, index in enumerate(node.inputs):
                self.reading.setdefault(index, []).append((number, place))

    def constant(self, index):
        """The values of a constant of real numbers, or None."""
        values = self.plan.constants.get(index)
        return values if values is not None and values.dtype == np.float32 else None

    def reads_by_weights(self, number):
        """Whether an operator multiplies channels of its input by constant weights."""
        node = self.plan.nodes[number]
        if node.kind not in DATA_PLACE or self.constant(node.inputs[DATA_PLACE[node.kind]]) is not None:
            return False
        return self.constant(node.inputs[KERNEL_PLACE.get(node.kind, 1)]) is not None

    def source(self, index):
        """The tensor behind what only moves numbers, or takes some of them."""
        while index in self.maker:
            node = self.plan.nodes[self.maker[index]]
            if node.kind not in (*SAME_ORDER, *PLACEWISE, *SOME_OF, *OVER_AXES, "TRANSPOSE"):
                break
            index = node.inputs[0]
        return index

    def has_root(self, index):
        """Whether a tensor is made with the help of a root, without layers of weights in between: as by a deviation."""
        edge = {index}
        for _ in range(NEAR):
            nodes = [self.plan.nodes[self.maker[each]] for each in edge if each in self.maker]
            if any(node.kind in ROOTS for node in nodes):
                return True
            edge = {each for node in nodes if node.kind not in DATA_PLACE for each in node.inputs}
        return False

    def alone(self, closed):
        """Whether every kernel of a closure is read in its roles alone: a layer that is used in two places has one for both."""
        for number, place in (*closed.made, *closed.read):
            node = self.plan.nodes[number]
            if place == KERNEL_PLACE.get(node.kind, 1) and node.kind in DATA_PLACE:
                for at in self.reading[node.inputs[place]]:
                    if (at in closed.made, at in closed.read) != (
                        (number, place) in closed.made,
                        (number, place) in closed.read,
                    ):
                        return False
        return True


class _Stuck(Exception):
    """A factor cannot pass."""


class _Closure:
    """Everything that has to be scaled along with a tensor: the tensors, and the constants that are made or read."""

    def __init__(self, graph, channels):
        self.graph, self.channels = graph, channels
        self.scaled, self.made, self.read, self.open = set(), set(), set(), set()

    def closed(self, start):
        """Itself, with all that scaling a tensor needs; None if that is not possible."""
        try:
            self._spread_from([start])
        except _Stuck:
            return None
        for number in sorted(self.open):  # products of which either factor may be scaled
            if not self.scaled.intersection(self.graph.plan.nodes[number].inputs):
                return self._tried(number)
        return self if self.made and self.read else None

    def _tried(self, number):
        for index in self.graph.plan.nodes[number].inputs:
            trial = _Closure(self.graph, self.channels)
            trial.scaled, trial.made, trial.read, trial.open = map(set, (self.scaled, self.made, self.read, self.open))
            found = trial.closed(index) if self._is_full(index) else None
            if found:
                return found
        return None

    def _spread_from(self, waiting):
        while waiting:
            index = waiting.pop()
            if index in self.scaled:
                continue
            if index not in self.graph.maker or index in self.graph.plan.outputs:
                raise _Stuck
            self.scaled.add(index)
            waiting += self._into(self.graph.maker[index])
            for number, place in self.graph.reading.get(index, []):
                waiting += self._out_of(number, place)

    def _is_full(self, index):
        """Whether the last axis of a tensor holds the channels, once or several times."""
        shape = self.graph.plan.shapes[index]
        return bool(shape) and shape[-1] > 0 and shape[-1] % self.channels == 0

    def _into(self, number):
        """The tensors that are scaled too where the output of an operator is."""
        node = self.graph.plan.nodes[number]
        if getattr(node.options, "fusedActivationFunction", HOMOGENEOUS[0]) not in HOMOGENEOUS:
            raise _Stuck
        if node.kind in KERNEL_PLACE:
            kernel = self.graph.constant(node.inputs[KERNEL_PLACE[node.kind]])
            places = places_of_weights(node)
            if any(self.graph.constant(node.inputs[place]) is None for place in places):
                raise _Stuck
            if kernel.shape[-1 if node.kind == "DEPTHWISE_CONV_2D" else 0] % self.channels:
                raise _Stuck
            self.made.update((number, place) for place in places)
            return []
        if node.kind in SUMS:
            return [index for place, index in enumerate(node.inputs) if not self._changed(number, place)]
        if node.kind == "MUL":
            return self._factor(number)
        if node.kind == "DIV" and node.inputs[1] not in self.scaled:
            return [] if self._changed(number, 0) else [node.inputs[0]]
        if self._passes(node):
            return [node.inputs[0]]
        raise _Stuck

    def _factor(self, number):
        """Of a product one factor is scaled: a constant, if there is one; else `closed` finds out which."""
        node = self.graph.plan.nodes[number]
        constants = [place for place in (0, 1) if self.graph.constant(node.inputs[place]) is not None]
        both = node.inputs[0] == node.inputs[1] or self.scaled.issuperset(node.inputs)
        if both or (any((number, place) in self.made for place in (0, 1)) and self.scaled.intersection(node.inputs)):
            raise _Stuck
        if self.scaled.intersection(node.inputs):
            return []
        if constants:
            self._changed(number, constants[0])
            return []
        self.open.add(number)
        return []

    def _changed(self, number, place):
        """Whether an operand is a constant, which then is scaled; a tensor must have all channels."""
        index = self.graph.plan.nodes[number].inputs[place]
        values = self.graph.constant(index)
        if values is None:
            if not self._is_full(index):
                raise _Stuck
            return False
        if values.ndim and values.shape[-1] % self.channels == 0:
            self.made.add((number, place))
        elif values.any():
            raise _Stuck
        return True

    def _out_of(self, number, place):
        """The tensors that are scaled too where an input of an operator is."""
        node = self.graph.plan.nodes[number]
        if node.kind == "SHAPE":
            return []
        if node.kind in DATA_PLACE:
            if place != DATA_PLACE[node.kind] or not self.graph.reads_by_weights(number):
                raise _Stuck
            self._check_kernel(node)
            self.read.add((number, KERNEL_PLACE.get(node.kind, 1)))
            return []
        if node.kind == "MUL" and self._takes_back(node, 1 - place):
            self.read.add((number, 1 - place))
            return []
        if node.kind in (*SUMS, "MUL", "DIV"):
            fits = self._is_full(node.inputs[place])
            fits = fits and (node.kind != "DIV" or place == 0) and (node.kind != "MUL" or self._is_one_of_two(number))
        else:
            fits = place == 0 and self._passes(node)
        if not fits:
            raise _Stuck
        return [node.outputs[0]]

    def _takes_back(self, node, place):
        """Whether an operand of a product is a constant for each channel, and only gates read the product."""
        values = self.graph.constant(node.inputs[place])
        kinds = [self.graph.plan.nodes[number].kind for number, _ in self.graph.reading.get(node.outputs[0], [])]
        plain = not node.options.fusedActivationFunction and node.outputs[0] not in self.graph.plan.outputs
        whole = values is not None and values.shape == (self.channels,) and self._is_full(node.outputs[0])
        return whole and plain and bool(kinds) and set(kinds) <= set(GATES)

    def _is_one_of_two(self, number):
        node = self.graph.plan.nodes[number]
        taken = any((number, place) in self.made for place in (0, 1))
        return not taken and not self.scaled.issuperset(node.inputs)

    def _check_kernel(self, node):
        """A kernel must have a row for each channel."""
        kernel = self.graph.constant(node.inputs[KERNEL_PLACE.get(node.kind, 1)])
        if node.kind == "BATCH_MATMUL":
            fits = not node.options.adjX and kernel.shape[-1 if node.options.adjY else -2] == self.channels
        elif node.kind == "FULLY_CONNECTED":
            fits = kernel.shape[-1] % self.channels == 0
        elif node.kind == "DEPTHWISE_CONV_2D":
            fits = kernel.shape[-1] % self.channels == 0 and self._is_whole(node)
        elif node.kind == "CONV_2D":  # a grouped one has fewer rows than channels, and several kernels
            groups, left = divmod(self.channels, kernel.shape[-1])
            fits = self._is_whole(node) and not left and kernel.shape[0] % groups == 0
        else:
            fits = self._is_whole(node) and kernel.shape[-1] == self.channels
        if not fits:
            raise _Stuck

    def _is_whole(self, node):
        return self.graph.plan.shapes[node.inputs[DATA_PLACE[node.kind]]][-1] == self.channels

    def _passes(self, node):
        """Whether an operator with one input lets a positive factor through to the same channel."""
        if node.kind in SAME_ORDER:
            return True
        source, constants = node.inputs[0], self.graph.plan.constants
        if not self._is_full(source):
            return False
        rank = len(self.graph.plan.shapes[source])
        if node.kind == "TRANSPOSE":
            order = constants.get(node.inputs[1])
            return order is not None and int(order[-1]) == rank - 1
        if node.kind in OVER_AXES:
            axes = constants.get(node.inputs[1])
            return axes is not None and rank - 1 not in np.ravel(axes) % rank
        if node.kind in ("PAD", "MIRROR_PAD"):
            sides = constants.get(node.inputs[1])
            return sides is not None and not np.any(sides[-1])
        if node.kind in SOME_OF:
            return _keeps_last_axis(
                node, self.graph.plan.shapes[source], [constants.get(index) for index in node.inputs[1:]]
            )
        return node.kind in PLACEWISE


def _keeps_last_axis(node, shape, given):
    """Whether what takes some places of a tensor takes all channels. shape: of the tensor; given: the other inputs of the operator,
    None where they are computed."""
    rank = len(shape)
    if node.kind == "GATHER":
        return not node.options.batchDims and node.options.axis % rank != rank - 1
    if given[0] is None:
        return False
    if node.kind == "SLICE":
        return given[0][-1] == 0 and given[1] is not None and given[1][-1] in (-1, shape[-1])
    options, axis = node.options, rank - 1
    plain = not (options.ellipsisMask or options.newAxisMask or options.offset)
    if not plain or len(given[0]) < rank:
        return plain
    everything = options.endMask >> axis & 1 and (options.beginMask >> axis & 1 or given[0][axis] == 0)
    return bool(everything and given[2] is not None and given[2][axis] == 1 and not options.shrinkAxisMask >> axis & 1)


def _current(plan, constants, at):
    """The values of an operator's constant, as changed so far."""
    number, place = at
    return constants.get(at, plan.constants[plan.nodes[number].inputs[place]])
