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

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress.tflite_operators import BIAS_PLACE, KERNEL_PLACE, NO_GRADIENT, RULES, Node
from helpers.tflite import flatbuffer, litert, rewrite, runner

with runtime_env.quiet():
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

# Between real numbers and integers: what they mean is told by the scales of the tensors around them.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
TINY = 1e-20  # a channel without weights has a range all the same
BITS = {"INT4": 4, "INT8": 8, "INT16": 16}
NUMBERS = {
    **{
        "FLOAT32": "float32",
        "FLOAT16": "float16",
        "INT32": "int32",
        "INT64": "int64",
        "UINT8": "uint8",
        "BOOL": "bool",
    },
    **{"INT8": "int8", "INT16": "int16", "INT4": "int8", "UINT32": "uint32", "FLOAT64": "float64"},
}


class Graph(tf.Module):
    """The main graph of a float `.tflite`, given as bytes or as the path of a file.

    inputs, outputs: names, as in its signature. weights: index of a tensor -> tf.Variable, for the kernels and biases of
    convolutions and dense layers; one that several layers share is one variable. notes: what was changed, in sentences.
    Called with a tensor for each input, (n, ...); gives a list with one for each output. A file that was made for one sample at a
    time is called for one after the other.

    Raises InputError for an unusable or a quantized file and for weights that are NaN or infinite; StructureError for an
    operator that has no rule here, by its name and its layer's.
    """

    def __init__(self, model):
        super().__init__()
        self.file, self.notes = rewrite.with_plain_weights(rewrite.with_signature(model))
        _refuse_quantized(self.file)
        self._plan = _Plan(self.file)
        self.inputs, self.outputs = (
            list(flatbuffer.signature_names(self.file, ends).values()) for ends in ("inputs", "outputs")
        )
        self._plan.check_rules(RULES)
        self.weights = {
            index: tf.Variable(self._plan.constants[index], name=self._plan.names[index])
            for index in self._plan.weights()
        }
        if not self.weights:
            raise StructureError(
                "model has no convolution and no dense layer with weights of its own: nothing to train."
            )
        self._batched = runner.admits_batches(self.file, 2)

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
        alone = tf.map_fn(
            lambda each: once(*(one[None] for one in each)), tuple(inputs), fn_output_signature=[kind for kind in kinds]
        )
        return [tf.reshape(each, tf.concat([[-1], tf.shape(each)[2:]], 0)) for each in alone]

    def logits(self, *inputs):
        """As a call, but where an output is what a softmax or a sigmoid makes, what goes into it instead (see `ends`)."""
        return self.called(self._plan, self.weights, inputs, lambda index, value: value, self.before_ends())

    def ends(self):
        """What makes each output: "SOFTMAX", "LOGISTIC", or "" for any other operator. list of str."""
        return [self._plan.end(index)[0] for index in self._plan.outputs]

    def before_ends(self):
        return [self._plan.end(index)[1] for index in self._plan.outputs]

    def rounding_as(self, quantized):
        """A `Simulation` of a quantized file that was made of this one, over the same variables."""
        return Simulation(self, quantized)

    def check_trainable(self):
        """Names of the weights that no output depends on in a way that has a gradient.

        Raises StructureError, naming the operator that stands in the way, if that is so of all of them.
        """
        reached, stopped = set(self.weights), []
        for node in self._plan.nodes:
            if reached.intersection(node.inputs):
                if node.kind in NO_GRADIENT:
                    stopped.append(node)
                else:
                    reached.update(node.outputs)
        if not reached.intersection(self._plan.outputs):
            at = f"{stopped[0].kind} ({stopped[0].name})" if stopped else "nothing that leads to an output"
            raise StructureError(
                f"model cannot be trained: between its weights and its outputs stands {at}, which has no gradient. Give the "
                "model without that operator."
            )
        return [self._plan.names[index] for index in self.weights if not self._plan.leads_out(index)]

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
        self._plan = plan = _Plan(litert.content(quantized))
        plan.check_rules({*RULES, *CONVERSIONS})
        self._kernels = self._matched(graph._plan, plan)
        self._ranges = {
            index: plan.ranges[index]
            for index in plan.ranges
            if index not in plan.constants and plan.ranges[index] is not None
        }

    def _matched(self, exact, plan):
        """Constant of the quantized graph -> (variable, bits, axis). Operators come in the same order in both."""
        unpacked = {node.outputs[0]: node.inputs[0] for node in plan.nodes if node.kind in CONVERSIONS}
        twins = [node for node in plan.nodes if node.kind not in CONVERSIONS]
        if [node.kind for node in twins] != [node.kind for node in exact.nodes]:
            raise StructureError("the quantized file has other operators than this one: it was made from another.")
        found = {}
        for node, twin in zip(exact.nodes, twins, strict=True):
            for place in places_of_weights(node):
                index = twin.inputs[place]
                index = index if index in plan.constants else unpacked.get(index, index)
                if node.inputs[place] in self.graph.weights:
                    is_kernel = place == KERNEL_PLACE[node.kind]
                    bits, axis = plan.rounding(index) if is_kernel else (None, None)
                    found[index] = self.graph.weights[node.inputs[place]], bits, axis
        return found

    def __call__(self, *inputs):
        return self._called(inputs, self._plan.outputs)

    def logits(self, *inputs):
        """As `Graph.logits`, rounded; what goes into a last softmax is that before it was rounded."""
        return self._called(inputs, [self._plan.end(index)[1] for index in self._plan.outputs])

    def _called(self, inputs, ends):
        weights = {
            index: variable if bits is None else rounded_kernel(variable, bits, axis)
            for index, (variable, bits, axis) in self._kernels.items()
        }
        return self.graph.called(self._plan, weights, inputs, self._rounded, ends)

    def _rounded(self, index, value):
        if index not in self._ranges:
            return value
        low, high, bits = self._ranges[index]
        return tf.quantization.fake_quant_with_min_max_args(value, low, high, bits)


def rounded_kernel(kernel, bits, axis):
    """A kernel as integers of so many bits can hold it, with a scale for each entry along `axis` or (None) for all: symmetric,
    narrow, its range that of its largest weight."""
    if axis is None:
        size = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(kernel)), TINY))
        return tf.quantization.fake_quant_with_min_max_vars(kernel, -size, size, bits, narrow_range=True)
    order = [other for other in range(len(kernel.shape)) if other != axis] + [axis]
    kernel = tf.transpose(kernel, order)
    size = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(kernel), axis=list(range(len(order) - 1))), TINY))
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(kernel, -size, size, bits, narrow_range=True)
    return tf.transpose(rounded, np.argsort(order))


def places_of_weights(node):
    """Where an operator has its kernel and its bias among its inputs; none for one without weights."""
    places = (KERNEL_PLACE.get(node.kind), BIAS_PLACE.get(node.kind))
    return [place for place in places if place is not None and place < len(node.inputs) and node.inputs[place] >= 0]


class _Plan:
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
                index: self._constant(index, flatbuffer.stored(parsed.buffers[tensor.buffer], blob), tensor)
                for index, tensor in enumerate(graph.tensors)
                if len(flatbuffer.stored(parsed.buffers[tensor.buffer], blob))
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

    def check_rules(self, known):
        for node in self.nodes:
            if node.kind not in known:
                kind = (
                    f"{node.kind} has no rule here" if node.kind != "CUSTOM" else "a custom operator has no rule here"
                )
                raise StructureError(f"model has {node.name}, and {kind}: give the part of the model without it.")

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

    def leads_out(self, index):
        reached = {index}
        for node in self.nodes:
            if node.kind not in NO_GRADIENT and reached.intersection(node.inputs):
                reached.update(node.outputs)
        return bool(reached.intersection(self.outputs))

    def run(self, constants, inputs, rounded, ends):
        """The values of the tensors `ends`. constants: index -> what to take instead of the file's. rounded: called with
        the index and the value of every tensor that is computed or given."""
        values = {**self.constants, **constants}
        for index, value in zip(self.inputs, inputs, strict=True):
            values[index] = rounded(index, value)
        for node in self.nodes:
            given = [values[index] if index >= 0 else None for index in node.inputs]
            found = given[0] if node.kind in CONVERSIONS else RULES[node.kind](node, *given)
            for index, value in zip(node.outputs, found if isinstance(found, list) else [found], strict=True):
                values[index] = rounded(index, value)
        return [values[index] for index in ends]


def _refuse_quantized(blob):
    if len(litert.kernels_in(blob)) or set(litert.operators(blob)["op"]) & set(CONVERSIONS):
        raise InputError("model is quantized already: give the float32 .tflite that it was made from.")
    broken = flatbuffer.not_finite(blob)
    if broken:
        raise InputError(f"model has NaN or infinity in {', '.join(broken[:3])}: train or convert it again.")
