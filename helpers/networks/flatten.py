"""Any functional Keras model, of Keras 2 or 3, as one flat model of Keras 2 in float32 that computes the same.

Models inside the model are opened, bare operators become layers where there is one for them, separable convolutions are
taken apart, augmentation is left out, mixed precision becomes float32. The copy is compared with the original before it
is handed out.
"""

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.networks import layer_copies

with runtime_env.quiet():
    import keras  # Keras 3, which TensorFlow brings along
    import tensorflow as tf

BOTH = (tf.keras.Model, keras.Model)
# What does nothing in inference, and is not to be trained, quantized or pruned with.
AUGMENTATION = ("RandomFlip", "RandomRotation", "RandomZoom", "RandomContrast", "RandomTranslation", "RandomBrightness")
SPLIT = (tf.keras.layers.Conv1D, tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D, tf.keras.layers.Dense)
SYMBOLIC = type(tf.keras.Input((1,)))  # what Keras 2 calls layers with while a model is put together
SEPARABLE = (tf.keras.layers.SeparableConv2D, keras.layers.SeparableConv2D)
OPEN_SIDE = 64  # what an open size of an input is taken for where the copy is compared
DIFFERENCE = 1e-4  # between copy and original, as a share of the largest output; kernels of both Keras round alike


def flat(model, split_activations=False):
    """A functional or Sequential model of Keras 2 or 3 -> (a flat one of Keras 2, float32, with copies of its weights;
    notes, a sentence for each thing that is not as it was).

    Names of layers are kept, but for those that would occur twice: they get the name of the model that they stood in.
    split_activations: an activation inside a convolution or dense layer becomes a layer of its own, <layer>_activation, and
    a ReLU that was given by its name a ReLU layer.
    Raises StructureError for a model without declared inputs, layers that Keras 2 does not have, a copy that does not
    compute the same, and float16 where this processor cannot compute it as set.
    """
    builder = _Builder(split_activations)
    copy = builder.build(model)
    builder.fill()
    if (distance := difference(model, copy)) is not None:
        raise StructureError(
            f"model {model.name} in Keras 2 would answer otherwise (by {distance:.2g}): it stays a graph."
        )
    return copy, builder.notes


def parts(model):
    """Where `flat(model)` has each layer: layer -> names of layers there, in the order of its weights. An input layer stands
    for the layer that feeds it, since that of a model inside the model is left out.

    model: of Keras 3. Raises StructureError as `flat` does, but does not compare.
    """
    builder = _Builder()
    builder.build(model)
    halves = {layer: (half.name,) for layer, half in builder.apart.items()}
    return builder.fed | {layer: (*halves.get(layer, ()), copy.name) for layer, copy in builder.copies.items()}


def is_flat(model):
    """Whether there is nothing in a model of Keras 2 that `flat` would change, but for Sequential becoming functional."""
    if not isinstance(model, tf.keras.Model):
        return False
    nested = any(isinstance(layer, (*BOTH, *SEPARABLE)) or _is_bare(layer) for layer in model.layers)
    mixed = any(layer.compute_dtype == "float16" for layer in model.layers)
    return not (nested or mixed or any(type(layer).__name__ in AUGMENTATION for layer in model.layers))


def layers_of(model):
    """The layers of a model and of the models inside it, of either Keras; none for None."""
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, BOTH):
            yield from layers_of(layer)
        else:
            yield layer


class _Builder:
    """Copies layers, each once however often it is used, and connects the copies."""

    def __init__(self, split_activations=False):
        self.copies, self.names, self.notes = {}, set(), []
        self.split_activations, self.activations = split_activations, {}
        self.apart = {}  # separable convolution -> the copy of its depthwise half
        self.fed = {}  # input layer of Keras 3 -> (the name of the copy that feeds it,)

    def build(self, model):
        """The flat model, with weights of its own still."""
        graph = functional(model)
        inputs = [self.input(tensor) for tensor in graph.inputs]
        return tf.keras.Model(inputs, self.inline(graph, inputs, ()), name=model.name)

    def input(self, tensor):
        name = self.unique(tensor.name.split(":")[0].replace("/", "_"), ())
        return tf.keras.Input(tuple(tensor.shape)[1:], dtype=_dtype_name(tensor.dtype), name=name)

    def unique(self, name, within):
        for prefix in (None, *reversed(within)):
            tried = f"{prefix}_{name}" if prefix else name
            if tried not in self.names:
                break
        number, first = 1, tried
        while tried in self.names:
            tried, number = f"{first}_{number}", number + 1
        self.names.add(tried)
        return tried

    def inline(self, graph, inputs, within):
        """What a functional model puts out for these inputs, tensors of the copy."""
        made = {id(old): new for old, new in zip(graph.inputs, inputs, strict=True)}
        if isinstance(graph, keras.Model):
            places = zip(graph.inputs, inputs, strict=True)
            self.fed |= {old._keras_history.operation: (new.node.layer.name,) for old, new in places}

        def renewed(structure):
            return tf.nest.map_structure(lambda each: made.get(id(each), each), structure)

        masks = _masks(graph)
        for layer, args, kwargs, outputs in _calls(graph):
            if id(tf.nest.flatten(outputs)[0]) in masks:
                continue
            kwargs = {name: value for name, value in kwargs.items() if id(value) not in masks}
            new = self.called(layer, renewed(args), renewed(kwargs), within)
            made |= {id(old): each for old, each in zip(tf.nest.flatten(outputs), tf.nest.flatten(new), strict=True)}
        return [made[id(tensor)] for tensor in graph.outputs]

    def called(self, layer, args, kwargs, within):
        kwargs = {name: value for name, value in kwargs.items() if name != "training" and value is not None}
        if isinstance(layer, BOTH):
            inner = functional(layer)
            return self.inline(inner, tf.nest.flatten([args, kwargs]), (*within, layer.name))
        kind = type(layer).__name__
        if kind in AUGMENTATION:
            self.notes.append(f"Layer {layer.name} ({kind}) acts in training only: it is left out.")
            return args[0]
        if _is_bare(layer):
            return self.operator(layer, args, kwargs, within)
        if layer_copies.hard(layer) and kind == "Activation":
            return self.hard(args[0], layer, within)
        if layer not in self.copies:
            if getattr(layer, "compute_dtype", "float32") == "float16" and "float16" not in str(self.notes):
                self.notes.append("Mixed precision (float16) became float32.")
            steps = args[0].shape[1] if kind in (*layer_copies.RECURRENT, "Bidirectional") else None
            if steps and not layer.get_config().get("unroll"):
                self.notes.append(f"Layer {layer.name} ({kind}) is unrolled over its {steps} steps, for the converter.")
            self.copies[layer] = layer_copies.copied(layer, self.unique(layer.name, within), bool(steps))
            if isinstance(layer, SEPARABLE):
                self.apart[layer], self.copies[layer] = layer_copies.separated(
                    self.copies[layer], self.unique(f"{layer.name}_depthwise", within)
                )
            if self.split_activations:
                self.copies[layer], self.activations[layer] = self.split(self.copies[layer])
        if layer in self.apart:
            args = (self.apart[layer](*args, **kwargs),)
            kwargs = {}
        made = self.copies[layer](*args, **kwargs)
        activation = self.activations.get(layer)
        if layer_copies.hard(layer):
            return self.hard(made, layer, within)
        return activation(made) if activation else made

    def hard(self, x, layer, within):
        """relu6(x + 3) / 6, or x times that, of Howard et al. 2019, *MobileNetV3*, section 5.2."""
        layers, name = tf.keras.layers, layer.name
        gate = layers.Rescaling(1.0, 3.0, name=self.unique(f"{name}_shifted", within))(x)
        gate = layers.ReLU(6.0, name=self.unique(f"{name}_relu6", within))(gate)
        gate = layers.Rescaling(1 / 6, name=self.unique(f"{name}_gate", within))(gate)
        if layer_copies.hard(layer) == "hard_sigmoid":
            return gate
        return layers.Multiply(name=self.unique(f"{name}_product", within))([x, gate])

    def split(self, layer):
        """A layer without its activation, and the activation as a layer, or None."""
        function, kind = getattr(layer, "activation", None), type(layer)
        if function is None or function is tf.keras.activations.linear:
            return layer, None
        name = getattr(function, "__name__", "")
        relu = _ACTIVATIONS[name] if name in ("relu", "relu6") else None
        if kind is tf.keras.layers.Activation:
            return (relu(layer.name) if relu else layer), None
        if not isinstance(layer, SPLIT):
            return layer, None
        apart = self.unique(f"{layer.name}_activation", ())
        linear = kind.from_config({**layer.get_config(), "activation": "linear"})
        made = relu(apart) if relu else tf.keras.layers.Activation(function, name=apart)
        return linear, made

    def operator(self, layer, args, kwargs, within):
        """A bare operator as a layer, where Keras has one that does the same; else as it is."""
        symbol = _symbol(layer)
        values = [*args, *(value for name, value in kwargs.items() if name != "name")]
        tensors = [value for value in values if isinstance(value, SYMBOLIC)]
        name = self.unique(layer.name.replace(".", "_"), within)
        if symbol == "relu" and len(tensors) == len(values) == 1 and not isinstance(layer, tf.keras.layers.Layer):
            settings = {
                each: getattr(layer, each)
                for each in ("max_value", "negative_slope", "threshold")
                if hasattr(layer, each)
            }
            return tf.keras.layers.ReLU(**settings, name=name)(tensors[0])
        if symbol in _ACTIVATIONS and len(tensors) == len(values) == 1:
            return _ACTIVATIONS[symbol](name)(tensors[0])
        if symbol in _MERGES and len(tensors) == len(values) == 2:
            return _MERGES[symbol](name=name)(tensors)
        if symbol in _SCALINGS and len(tensors) == 1 and len(values) == 2 and values[0] is tensors[0]:
            scaled = _SCALINGS[symbol](np.asarray(values[1], "float32"))
            return tf.keras.layers.Rescaling(*(_plain(each) for each in scaled), name=name)(tensors[0])
        if isinstance(layer, tf.keras.layers.Layer):
            return layer.function(*args, **kwargs)  # Keras 2 makes its own layer of it
        raise StructureError(f"operator {layer.name} of Keras 3 has no layer in Keras 2: use a layer instead.")

    def fill(self):
        for old, new in self.copies.items():
            weights = old.get_weights()
            if old in self.apart:
                self.apart[old].set_weights(weights[:1])
                weights = weights[1:]
            try:
                new.set_weights(weights)
            except ValueError as error:
                kind = type(old).__name__
                raise StructureError(f"layer {old.name} ({kind}) has other weights in Keras 2") from error
            if hasattr(new, "finalize_state"):  # Normalization computes with what it made of its weights
                new.finalize_state()


def functional(model):
    """The graph of layers of a model. Raises StructureError if it has none."""
    if isinstance(model, keras.Sequential):
        model = getattr(model, "_functional", None) or model
    if not getattr(model, "inputs", None) or not hasattr(model, "_nodes_by_depth"):
        raise StructureError(
            f"model {model.name} is not functional, or has no input shape yet: begin it with an Input."
        )
    return model


def _calls(graph):
    """(layer, args, kwargs, outputs) of every call in a functional model, in an order in which it can be computed."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if isinstance(graph, keras.Model):
                yield node.operation, node.arguments.args, node.arguments.kwargs, node.outputs
            else:
                yield node.layer, node.call_args, node.call_kwargs, node.outputs


def _masks(graph):
    """The tensors (their ids) of a graph of Keras 3 that say which steps count, and nothing else, as layers of Keras 2 do without being
    told: those behind an Embedding with mask_zero, or a Masking."""
    calls, found = list(_calls(graph)) if isinstance(graph, keras.Model) else [], set()
    asked = {
        (id(args[0]), layer.mask_value if isinstance(layer, keras.layers.Masking) else 0)
        for layer, args, _, _ in calls
        if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    }
    for layer, args, _, outputs in calls:
        kind = type(layer).__name__ if _is_bare(layer) and args else ""
        compared = kind == "NotEqual" and isinstance(args[-1], (int, float)) and (id(args[0]), args[-1]) in asked
        if compared or (kind == "Any" and id(args[0]) in found):
            found.add(id(outputs[0]))
    others = [
        (args, {name: value for name, value in kwargs.items() if not name.endswith("mask")})
        for _, args, kwargs, outputs in calls
        if id(outputs[0]) not in found
    ]
    read = {id(each) for each in tf.nest.flatten([others, graph.outputs])}
    return set() if found & read else found


def _is_bare(layer):
    kind = type(layer).__name__
    return kind in ("TFOpLambda", "SlicingOpLambda") or not isinstance(layer, (tf.keras.layers.Layer, keras.Layer))


def _symbol(layer):
    """What a bare operator does, in one word of either Keras."""
    if isinstance(layer, tf.keras.layers.Layer):
        return getattr(layer, "symbol", "").split(".")[-1]
    return {"TrueDivide": "truediv", "Divide": "truediv"}.get(type(layer).__name__, type(layer).__name__.lower())


def _dtype_name(dtype):
    name = getattr(dtype, "name", dtype)
    return "float32" if name == "float16" else name


def _plain(array):
    return float(array) if np.ndim(array) == 0 else np.asarray(array).tolist()


def difference(model, copy):
    """How far a model of either Keras and a flat copy are apart in their answers to random samples, two in [0, 1] and two as large as
    pixels of either sign (the largest absolute difference), if rounding does not explain it; else None. Raises StructureError where
    this processor cannot compute float16."""
    exact = "float16" not in str({getattr(layer, "compute_dtype", "") for layer in model.layers})
    # What is added up of large numbers is rounded at their size, and may be all that a softmax sees.
    for low, high, near in ((0, 1, DIFFERENCE if exact else 0.05), *([(-255, 255, 0.05)] if exact else ())):
        distance = _distance(model, copy, low, high, near, exact)
        if distance is not None:
            return distance
    return None


def _distance(model, copy, low, high, near, exact):
    """The largest difference of the answers to samples in [low, high], or None if it is a share `near` of the largest answer at most."""
    random, samples = np.random.default_rng(0), []
    for tensor in copy.inputs:
        shape = [2, *(side or OPEN_SIDE for side in tensor.shape[1:])]
        values = random.uniform(low, high, shape) if tensor.dtype.is_floating else random.integers(0, 2, shape)
        if values.ndim > 2:
            values[1, -1] = 0  # as a sequence is filled up
        samples.append(values.astype(tensor.dtype.name))
    taken = functional(model).input if isinstance(model, keras.Model) else None
    given = keras.tree.pack_sequence_as(taken, samples) if isinstance(taken, dict) else _alone(samples)
    try:
        answers = [tf.nest.flatten(each(x, training=False)) for each, x in ((model, given), (copy, _alone(samples)))]
    except tf.errors.AbortedError:
        if exact:
            raise
        raise StructureError(
            "the model computes in float16, which TensorFlow takes for fast on this processor and oneDNN, kept to AVX2 by this "
            "lab, does not have: set the environment variable ONEDNN_MAX_CPU_ISA=DEFAULT before Python starts."
        ) from None
    for pair in zip(*answers, strict=True):
        old, new = (np.asarray(each, "float64") for each in pair)
        known = np.isfinite(old)  # a logarithm of such samples is not
        distance = np.abs(old - new)[known].max(initial=0)
        if not distance <= near * max(1e-3, np.abs(old[known]).max(initial=0)):
            return distance
    return None


def _alone(values):
    return values[0] if len(values) == 1 else values


def _activation(function):
    return lambda name: tf.keras.layers.Activation(function, name=name)


_ACTIVATIONS = {
    "relu": lambda name: tf.keras.layers.ReLU(name=name),
    "relu6": lambda name: tf.keras.layers.ReLU(6.0, name=name),
    **{
        name: _activation(name)
        for name in ("sigmoid", "tanh", "softmax", "elu", "selu", "softplus", "softsign", "gelu")
    },
    **{name: _activation("swish") for name in ("silu", "swish")},
}
_MERGES = {
    "add": tf.keras.layers.Add,
    "subtract": tf.keras.layers.Subtract,
    "multiply": tf.keras.layers.Multiply,
    "maximum": tf.keras.layers.Maximum,
    "minimum": tf.keras.layers.Minimum,
}
# x and a constant -> scale and offset
_SCALINGS = {
    "truediv": lambda c: (1 / c, 0.0),
    "multiply": lambda c: (c, 0.0),
    "subtract": lambda c: (1.0, -c),
    "add": lambda c: (1.0, c),
    "bias_add": lambda c: (1.0, c),
}
