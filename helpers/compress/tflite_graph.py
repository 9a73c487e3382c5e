"""A float `.tflite` as a TensorFlow function: its kernels and biases are variables, everything else is as in the file.

    graph = tflite_graph.Graph(blob)
    [logits] = graph(x)                            # as LiteRT answers, to rounding in float32
    simulated = graph.rounding_as(int8_blob)
    [logits] = simulated(x)                        # as the quantized file answers, and with a gradient
    graph.written()                                # the file with the weights as they are now

What made the file does not matter: Keras 2 or 3, PyTorch, JAX. Rounding is simulated as in Jacob et al. 2018 (section 3), by
TensorFlow's fake quantization, whose gradient passes straight through (Bengio et al. 2013). Where, and how finely, is read from
the quantized file itself, so that the two agree by construction.
"""

from dataclasses import dataclass

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.compress.tflite_operators import BIAS_PLACE, KERNEL_PLACE, without_activation
from helpers.compress.tflite_plan import CONVERSIONS, Plan, opened, places_of_weights
from helpers.tflite import flatbuffer, interpreting, litert, rewrite

with runtime_env.quiet():
    import tensorflow as tf

ONE_BY_ONE = 16  # samples by which biases are corrected where each is computed for itself
TINY = 1e-20  # a channel without weights has a range all the same


class Graph(tf.Module):
    """The main graph of a float `.tflite`, given as bytes or as the path of a file.

    inputs, outputs: names, as in its signature. weights: index of a tensor -> tf.Variable, for the kernels and biases of
    convolutions and dense layers; a kernel that several layers share is one variable, and so is its bias. notes: what was changed, in sentences.
    Called with a tensor for each input, (n, ...); gives a list with one for each output. A file that was made for one sample at a
    time is called for one after the other.

    Raises InputError for an unusable or a quantized file and for weights that are NaN or infinite; StructureError for an
    operator that has no rule here, by its name and its layer's.
    """

    def __init__(self, model):
        super().__init__()
        file, plan, self.notes = opened(model)
        self.file = rewrite.with_own_constants(
            file, {op: (KERNEL_PLACE[op], place) for op, place in BIAS_PLACE.items()}
        )
        self._plan = plan if self.file == file else Plan(self.file)
        named = {ends: flatbuffer.signature_names(self.file, ends) for ends in ("inputs", "outputs")}
        self.inputs = [named["inputs"][index] for index in self._plan.inputs]
        self.outputs = [named["outputs"][index] for index in self._plan.outputs]
        self._plan.check_rules()
        self.weights = {
            index: tf.Variable(self._plan.constants[index], name=self._plan.names[index])
            for index in self._plan.weights()
        }
        forms = [shape for shape, _ in self.input_forms()]
        self._batched = all(shape[:1] == (-1,) for shape in forms) or (
            len(forms) == 1 and interpreting.admits_batches(self.file, 2)
        )
        self._opened = not self._batched and self._opens()
        if self._opened:
            self._plan, self._batched = Plan(self.file).open_reshapes(), True

    def _opens(self):
        """Whether two samples together have the answers of each alone once RESHAPE takes any number, tried on noise: as when
        PyTorch's converter saw one sample. That saves most of the time of training."""
        forms, random = self.input_forms(), np.random.default_rng(0)
        if any(dtype != np.float32 or -1 in shape[1:] for shape, dtype in forms):
            return False
        x = [random.normal(size=(2, *shape[1:])).astype("float32") for shape, _ in forms]
        alone, together = self._plan, Plan(self.file).open_reshapes()
        run = {"constants": {}, "rounded": lambda index, value: value, "ends": alone.before_ends()}
        try:
            found = together.run(inputs=x, **run)
            apart = zip(*(alone.run(inputs=[each[i : i + 1] for each in x], **run) for i in (0, 1)), strict=True)
            wanted = [np.concatenate(pair) for pair in apart]
        except (tf.errors.InvalidArgumentError, ValueError):
            return False
        return all(
            np.shape(one) == other.shape
            and np.ptp(other, 0).max() > np.abs(other).max() / 1000  # otherwise it tells nothing
            and np.abs(one - other).max() < np.abs(other).max() / 10000
            for one, other in zip(found, wanted, strict=True)
        )

    def opened(self, blob):
        """The Plan of a file that has the same operators as this one, open as this one is."""
        plan = Plan(blob)
        return plan.open_reshapes() if self._opened else plan

    def takes_batches(self):
        """Whether several samples are computed together."""
        return self._batched

    def __call__(self, *inputs):
        return self.called(self._plan, self.weights, inputs, lambda index, value: value)

    def called(self, plan, constants, inputs, rounded, ends=None):
        """The tensors `ends` of a plan (its outputs, by default) for some inputs."""
        ends = plan.outputs if ends is None else ends

        def once(*each):
            return plan.run(constants, each, rounded, ends)

        inputs = [tf.convert_to_tensor(each) for each in inputs]
        if self._batched:
            return once(*inputs)
        kinds = [tf.TensorSpec(None, plan.dtypes[index]) for index in ends]
        alone = tf.map_fn(lambda each: once(*(one[None] for one in each)), tuple(inputs), fn_output_signature=kinds)
        return [tf.reshape(each, tf.concat([[-1], tf.shape(each)[2:]], 0)) for each in alone]

    def logits(self, *inputs):
        """As a call, but where an output is what a softmax or a sigmoid makes, what goes into it instead (see `ends`)."""
        return self.called(self._plan, self.weights, inputs, lambda index, value: value, self._plan.before_ends())

    def nodes(self):
        """The operators in their order: list of Node."""
        return self._plan.nodes

    def name_of(self, index):
        """Of a tensor."""
        return self._plan.names[index]

    def input_forms(self):
        """Of each input its shape, -1 where it is open, and its dtype."""
        return [(self._plan.shapes[index], self._plan.dtypes[index]) for index in self._plan.inputs]

    def output_shapes(self):
        """Of each output, -1 where it is open."""
        return [self._plan.shapes[index] for index in self._plan.outputs]

    def ends(self):
        """What makes each output: "SOFTMAX", "LOGISTIC", or "" for any other operator. list of str."""
        return [self._plan.end(index)[0] for index in self._plan.outputs]

    def rounding_as(self, quantized):
        """A `Simulation` of a quantized file that was made of this one, over the same variables."""
        return Simulation(self, quantized)

    def check_trainable(self):
        """Names of the weights that no output depends on in a way that has a gradient.

        Raises StructureError, naming the operator that stands in the way, if that is so of all of them.
        """
        if not self.weights:
            raise StructureError("model has no convolution and no dense layer with weights: there is nothing to train.")
        reached, stopped = self._plan.downstream(self.weights)
        if not reached.intersection(self._plan.outputs):
            at = f"{stopped[0].kind} ({stopped[0].name})" if stopped else "nothing that leads to an output"
            raise StructureError(
                f"model cannot be trained: between its weights and its outputs stands {at}, which has no gradient. Give the "
                "model without that operator."
            )
        outputs = set(self._plan.outputs)
        return [self.name_of(index) for index in self.weights if not outputs & self._plan.downstream([index])[0]]

    def written(self):
        """The file with the weights as they are now: bytes."""
        return rewrite.with_constants(self.file, {index: weight.numpy() for index, weight in self.weights.items()})


class Simulation:
    """A quantized file in real numbers, over the variables of the float graph that it was made from.

    Every tensor that is stored as integers there is rounded to its scale; kernels are rounded to the range that they have
    now. Called as the graph is. Raises StructureError if the file was not made from this graph.
    """

    def __init__(self, graph, quantized):
        self.graph = graph
        self._plan = plan = graph.opened(litert.content(quantized))
        plan.check_rules()
        self._ranges = {
            index: plan.ranges[index]
            for index in plan.ranges
            if index not in plan.constants and plan.ranges[index] is not None
        }
        self._by_kernel = {  # index of what an operator makes -> how its kernel rounds, if not once and halves upwards
            node.outputs[0]: _Average(*self._ranges[node.outputs[0]])
            for node in plan.nodes
            if node.kind == "AVERAGE_POOL_2D" and self._bits(node.outputs[0]) == 8
        }
        self._made = self._matched(graph._plan, plan)

    def _matched(self, exact, plan):
        """Constant of the quantized graph -> how it is made of a variable: function of none. Operators come in the same order in
        both."""
        unpacked = {node.outputs[0]: node.inputs[0] for node in plan.nodes if node.kind in CONVERSIONS}
        twins = [node for node in plan.nodes if node.kind not in CONVERSIONS]
        if [node.kind for node in twins] != [node.kind for node in exact.nodes]:
            raise StructureError("the quantized file has other operators than this one: it was made from another.")
        found = {}
        for node, twin in zip(exact.nodes, twins, strict=True):
            kernel = None
            for place in places_of_weights(node):
                variable = self.graph.weights.get(node.inputs[place])
                if variable is None:
                    continue
                index = twin.inputs[place]
                index = index if index in plan.constants else unpacked.get(index, index)
                if place == KERNEL_PLACE[node.kind]:
                    kernel = _Kernel(variable, *plan.rounding(index))
                    found[index] = kernel.rounded
                    source, made = twin.inputs[0], twin.outputs[0]
                    if twin.kind == "CONV_2D" and kernel.bits == 4 and self._bits(made) == 8:
                        grouped = plan.shapes[source][-1] != variable.shape[-1]
                        self._by_kernel[made] = _Twice(kernel, plan.step(source), plan.step(made), grouped)
                elif plan.is_whole(index) and kernel is not None:
                    [source] = [at for at in twin.inputs if at not in plan.constants and plan.is_whole(at)]
                    found[index] = _Bias(variable, plan.step(source), kernel).rounded
                else:
                    found[index] = variable.read_value
        return found

    def __call__(self, *inputs):
        return self._called(inputs, self._plan.outputs)

    def logits(self, *inputs):
        """As `Graph.logits`, rounded; what goes into a last softmax is that before it was rounded."""
        return self._called(inputs, self._plan.before_ends())

    def one_by_one(self, real):
        """(Node, what it makes) of each operator, from what the function `real` gives for the tensors that it reads."""
        constants = {**self._plan.constants, **self._weights()}
        for node in self._plan.nodes:
            given = {
                index: constants[index] if index in constants else real(index) for index in node.inputs if index >= 0
            }
            yield node, self._rounded(node.outputs[0], self._plan.computed(node, given)[0])

    def correct_biases(self, *inputs):
        """Move every bias of the graph by what rounding does to the mean of its channel, over some inputs and all places: layer after
        layer, so that each makes up for what the corrected ones before it still do (Nagel et al. 2019, *Data-free quantization
        through weight equalization and bias correction*, section 4.2 and appendix D: the empirical variant). What the float file
        answers changes by that. A layer without a bias stays. inputs: as the graph is called with; a file that takes one sample at a
        time is shown ONE_BY_ONE of them."""
        exact_plan, plan = self.graph.opened(self.graph.file), self._plan  # with the biases that the file has
        parts = [inputs]
        if not self.graph.takes_batches():
            parts = [[each[i : i + 1] for each in inputs] for i in range(min(ONE_BY_ONE, len(inputs[0])))]
        exact = [{**exact_plan.constants, **dict(zip(exact_plan.inputs, part, strict=True))} for part in parts]
        rough = [{**plan.constants, **self._weights()} for _ in parts]
        for values, part in zip(rough, parts, strict=True):
            values |= {i: self._rounded(i, tf.convert_to_tensor(x)) for i, x in zip(plan.inputs, part, strict=True)}
        ahead, corrected = iter(exact_plan.nodes), set()
        for twin in plan.nodes:
            if twin.kind not in CONVERSIONS:
                node = next(ahead)
                self._correct_bias(exact_plan, node, twin, exact, rough, corrected)
                for values in exact:
                    self._take(exact_plan, node, values, lambda index, value: value)
            for values in rough:
                self._take(plan, twin, values, self._rounded)

    def _correct_bias(self, exact_plan, node, twin, exact, rough, corrected):
        place = BIAS_PLACE.get(node.kind, len(node.inputs))
        index = node.inputs[place] if place < len(node.inputs) else -1
        if index not in self.graph.weights or index in corrected or twin.inputs[place] not in self._made:
            return
        corrected.add(index)  # one that several layers share is corrected for the first
        # Before the activation: where it cuts off, a mean tells nothing of the shift.
        bare, shifts = [without_activation(each) for each in (node, twin)], []
        for wanted, found in zip(exact, rough, strict=True):
            [wanted], [found] = exact_plan.computed(bare[0], wanted), self._plan.computed(bare[1], found)
            shifts.append(tf.reduce_mean(wanted - found, range(len(found.shape) - 1)))
        self.graph.weights[index].assign_add(tf.reduce_mean(shifts, 0))
        for values in rough:
            values[twin.inputs[place]] = self._made[twin.inputs[place]]()

    @staticmethod
    def _take(plan, node, values, rounded):
        for index, value in zip(node.outputs, plan.computed(node, values), strict=True):
            values[index] = rounded(index, value)

    def _bits(self, index):
        return self._ranges[index][2] if index in self._ranges else None

    def _weights(self):
        return {index: made() for index, made in self._made.items()}

    def _called(self, inputs, ends):
        return self.graph.called(self._plan, self._weights(), inputs, self._rounded, ends)

    def _rounded(self, index, value):
        if index not in self._ranges:
            return value
        low, high, bits = self._ranges[index]
        if index in self._by_kernel:
            value = self._by_kernel[index].rounded(value)
        return tf.quantization.fake_quant_with_min_max_args(value, low, high, bits)


@dataclass(frozen=True)
class _Kernel:
    """A kernel as integers of so many bits can hold it, with a scale for each entry along `axis` or (None) for all: symmetric,
    narrow, its range that of its largest weight. bits None: as it is."""

    variable: tf.Variable
    bits: int | None
    axis: int | None

    def largest(self):
        others = [other for other in range(len(self.variable.shape)) if other != self.axis]
        return tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(self.variable), others), TINY))

    def step(self):
        return self.largest() / (2 ** (self.bits - 1) - 1)

    def rounded(self):
        if self.bits is None:
            return self.variable.read_value()
        step = self.step()
        if self.axis is not None:
            step = tf.reshape(step, [-1 if axis == self.axis else 1 for axis in range(len(self.variable.shape))])
        # Halves go to the even number, as litert-quantizer has them: weights that were float16 once hit them often.
        whole = tf.round(self.variable / step)
        return self.variable + tf.stop_gradient(whole * step - self.variable)


@dataclass(frozen=True)
class _Bias:
    """A bias as whole multiples of what its accumulator counts in: the step of the input times that of the kernel (Jacob et al.
    2018, section 2.4). At 4 bits that is not small beside a step of the output."""

    variable: tf.Variable
    step: float
    kernel: _Kernel

    def rounded(self):
        step = self.step * self.kernel.step()
        whole = tf.clip_by_value(tf.round(self.variable / step), -(2.0**31), 2.0**31)
        return self.variable + tf.stop_gradient(whole * step - self.variable)


@dataclass(frozen=True)
class _Twice:
    """How LiteRT's built-in convolution rounds, which is the one that runs kernels of 4 bits (XNNPACK has none): to whole parts
    of a step of the output, and those to whole steps. A step has 2^n parts, where the multiplier, what the accumulator counts in
    divided by the step of the output, lies between 2^-n-1 and 2^-n (`MultiplyByQuantizedMultiplier` of TensorFlow Lite). One
    number in 2^(n+1) lies below a half and is rounded up; at 8 bits n is about 8, at 4 bits about 4.
    away: halves are rounded away from zero, as in the kernel of grouped convolutions, and not upwards (on x86)."""

    kernel: _Kernel
    source_step: float
    step: float
    away: bool

    def rounded(self, value):
        multiplier = tf.bitcast(self.source_step * self.kernel.step() / self.step, tf.int32)
        n = 126 - tf.bitwise.right_shift(multiplier, 23)  # from the exponent of a float32
        parts = 2.0 ** tf.cast(tf.maximum(n, 0), tf.float32)
        fine = tf.floor(value * (parts / self.step) + 0.5) / parts
        whole = _away(fine) if self.away else tf.floor(fine + 0.5)
        return value + tf.stop_gradient(whole * self.step - value)


@dataclass(frozen=True)
class _Average:
    """How LiteRT's built-in average pooling rounds (XNNPACK has none of integers): an average of the integers as they are stored,
    halves away from zero. Of four integers every fourth average is a half."""

    low: float
    high: float
    bits: int

    def rounded(self, value):
        step = (self.high - self.low) / (2**self.bits - 1)
        zero = -(2 ** (self.bits - 1)) - round(self.low / step)
        whole = _away(value / step + zero, 1e-4) - zero  # a float32 just below a half is one
        return value + tf.stop_gradient(whole * step - value)


def _away(value, margin=0.0):
    return tf.sign(value) * tf.floor(tf.abs(value) + 0.5 + margin)
