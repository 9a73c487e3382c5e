"""Per-tensor quantization without the collapse and without training: batch norms folded, weights that read dead channels
cleared, and, after Nagel et al. 2019 (*Data-free quantization through weight equalization and bias correction*, sections
4.1, 4.2), channels equalized and biases corrected.

All works on flat functional models of convolutions, depthwise convolutions, dense layers and what stands between them.
"""

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.compress import affine
from helpers.networks import flatten, models, structure
from helpers.networks.structure import CappedReLU, by_input_channel, by_output_channel, has_kernel, kind
from helpers.tflite import inputs

with runtime_env.quiet():
    import tensorflow as tf

SWEEPS = 50
CONVERGED = 1e-3
DEAD = 1e-6  # share of its layer's largest range below which a channel carries nothing
# Layers that scale with their input, channel by channel, so that a factor may pass through them.
PASSED_THROUGH = (
    tf.keras.layers.ZeroPadding2D,
    tf.keras.layers.MaxPooling2D,
    tf.keras.layers.AveragePooling2D,
    tf.keras.layers.GlobalAveragePooling2D,
    tf.keras.layers.ZeroPadding1D,
    tf.keras.layers.MaxPooling1D,
    tf.keras.layers.AveragePooling1D,
    tf.keras.layers.GlobalAveragePooling1D,
    tf.keras.layers.Dropout,
)


def fold_batch_norms(model):
    """A model without batch norms that computes the same: each is folded into the layer of weights before it.

    In inference a batch norm multiplies and shifts each channel, which a kernel and a bias can do as well (Jacob et al.
    2018, section 3.2). A model without batch norm comes back as a copy. A batch norm that does not follow a linear layer of
    weights, which feeds nothing else, stays (as in DenseNet).
    Raises StructureError for what `structure.flat` refuses.
    """
    model = structure.flat(model)
    folded = _foldable(model)
    config = _without(model.get_config(), folded)
    own = {type(layer).__name__: type(layer) for layer in model.layers}  # of its author's, too
    result = tf.keras.Model.from_config(config, custom_objects=own)
    norms = {source: model.get_layer(norm) for norm, source in folded.items()}
    for layer in result.layers:
        weights = model.get_layer(layer.name).get_weights()
        layer.set_weights(_folded_weights(layer, weights, norms[layer.name]) if layer.name in norms else weights)
    return result


def _foldable(model):
    """Name of each batch norm that can be folded -> of the layer of weights that takes it up."""
    consumers, found = structure.consumers(model), {}
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            source = structure.source(layer)
            last = list(layer.axis) == [len(layer.output_shape) - 1]
            if last and has_kernel(source) and len(consumers[source.name]) == 1 and structure.linear(source):
                found[layer.name] = source.name
    return found


def channel_ranges(model):
    """The largest absolute weight of every output channel, a row each: layer, kind, channel, range, levels, dead.

    kind: depthwise, pointwise (1 x 1), convolution or dense. levels: how many of the 255 the channel gets under one scale
    for the whole kernel. dead: the range is next to nothing beside the layer's largest. A batch norm still in the model is
    not counted in: fold first. Raises InputError for NaN.
    """
    rows = []
    for layer in model.layers:
        if not has_kernel(layer):
            continue
        kernel = by_output_channel(layer, layer.get_weights()[0])
        ranges, levels = np.abs(kernel).max(axis=0), affine.levels(kernel, axis=1)
        rows.append(
            pd.DataFrame(
                {
                    "layer": layer.name,
                    "kind": kind(layer),
                    "channel": np.arange(len(ranges)),
                    "range": ranges,
                    "levels": levels,
                    "dead": ranges <= DEAD * ranges.max(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def clear_dead(model):
    """A copy of a folded model in which weights that read an always-zero channel are zero; it computes the same, to DEAD.

    Weight decay empties a kernel's channel; where its bias is not positive, the ReLU after it gives zero for every input.
    What the next layer makes of it has no effect and was not trained, and after folding it may be the largest weight of
    its layer, since a batch norm divides by the deviation of a channel that does not move. A single scale for the layer
    then serves that weight alone. Raises StructureError for a batch norm or a nested model.
    """
    model = _folded(model)
    result = models.copy(model)
    for first, activation, second in _pairs(model):
        kernel, *bias = first.get_weights()
        ranges = np.abs(by_output_channel(first, kernel)).max(axis=0)
        bias = bias[0] if bias else np.zeros_like(ranges)
        dead = (ranges <= DEAD * ranges.max()) & (bias <= 0 if activation is not None else bias == 0)
        reader = result.get_layer(second.name)
        kernel, *rest = reader.get_weights()
        reader.set_weights([_scaled_inputs(reader, kernel, np.where(dead, 0.0, 1.0)), *rest])
    return result


def equalize(model):
    """Cross-layer equalization of a folded model: a copy in which neighbouring layers share out their ranges.

    A channel's weights are divided by s on the way in and multiplied by s on the way out, which positive scaling lets
    through a ReLU: s_i = sqrt(r1_i r2_i) / r2_i for the ranges r1, r2 of channel i before and after (Nagel et al. 2019,
    equation 11), for every pair of layers with nothing but an activation, padding or pooling between them, repeated until
    the ranges stand still. Nagel et al. replace ReLU6 by ReLU; here its cap is divided by s too, channel by channel, so
    that the model computes the same (see CappedReLU). Dead channels are not scaled: call `clear_dead` first.
    Raises StructureError for a batch norm or a nested model.
    """
    model = _folded(model)
    found = _pairs(model)
    weights = {layer.name: layer.get_weights() for layer in model.layers if has_kernel(layer)}
    factors = {first.name: np.ones(first.output_shape[-1]) for first, _, _ in found}
    for _ in range(SWEEPS):
        largest_change = 0.0
        for first, _, second in found:
            before = np.abs(by_output_channel(first, weights[first.name][0])).max(axis=0)
            after = np.abs(by_input_channel(weights[second.name][0])).max(axis=0)
            usable = (before > DEAD * before.max()) & (after > DEAD * after.max())
            s = np.where(usable, np.sqrt(np.divide(before, after, where=usable, out=np.ones_like(before))), 1.0)
            weights[first.name] = _scaled_outputs(first, weights[first.name], 1 / s)
            weights[second.name][0] = _scaled_inputs(second, weights[second.name][0], s)
            factors[first.name] *= s
            largest_change = max(largest_change, np.abs(np.log(s)).max())
        if largest_change < CONVERGED:
            break
    caps = {
        between.name: between.max_value / factors[first.name]
        for first, between, _ in found
        if isinstance(between, tf.keras.layers.ReLU) and between.max_value is not None
    }

    def with_caps(layer):
        return CappedReLU(name=layer.name) if layer.name in caps else type(layer).from_config(layer.get_config())

    result = tf.keras.models.clone_model(model, clone_function=with_caps)
    for layer in result.layers:
        if layer.name in caps:
            layer.set_weights([caps[layer.name]])
        else:
            layer.set_weights(weights.get(layer.name, model.get_layer(layer.name).get_weights()))
    return result


def correct_bias(model, calibration):
    """A copy of a folded model whose biases make up for what per-tensor int8 weights do to the means.

    Layer by layer, the mean of every output channel over the calibration set, float32 (samples, ...), is compared between
    the float model and one whose kernels (not activations) are rounded and whose earlier biases are corrected already;
    the difference goes into the bias (Nagel et al. 2019, section 4.2 and appendix D: the empirical variant).
    A layer without a bias gets one. Raises StructureError for a batch norm that can be folded; InputError for an empty or
    ill-fitting calibration set.
    """
    model = _with_biases(_folded(model))
    inputs.representative(calibration, model.input_shape)
    result = models.copy(model)
    calibration = tf.convert_to_tensor(calibration, tf.float32)
    exact, rough = {}, {}  # what each layer puts out, as long as another one needs it
    waiting = {name: len(layers) for name, layers in structure.consumers(model).items()}
    for layer in result.layers:
        sources = [source.name for source in tf.nest.flatten(layer.inbound_nodes[0].inbound_layers)]
        if not sources:
            exact[layer.name] = rough[layer.name] = calibration
            continue
        exact[layer.name] = _answer(layer, exact)
        if has_kernel(layer):
            kernel, bias = layer.get_weights()
            layer.set_weights([affine.rounded(kernel), bias])
            outputs = _answer(layer, rough)
            shift = tf.reduce_mean(exact[layer.name] - outputs, axis=range(len(outputs.shape) - 1)).numpy()
            layer.set_weights([kernel, bias + shift])
            rough[layer.name] = outputs + shift
        else:
            rough[layer.name] = _answer(layer, rough)
        for source in sources:
            waiting[source] -= 1
            if not waiting[source]:
                del exact[source], rough[source]
    return result


def _with_biases(model):
    """The model, or a copy of it in which every layer of weights has a bias, of zeros where there was none."""
    lacking = {layer.name for layer in model.layers if has_kernel(layer) and not layer.use_bias}
    if not lacking:
        return model

    def clone(layer):
        more = {"use_bias": True} if layer.name in lacking else {}
        return type(layer).from_config({**layer.get_config(), **more})

    twin = tf.keras.models.clone_model(model, clone_function=clone)
    for layer in twin.layers:
        weights = model.get_layer(layer.name).get_weights()
        layer.set_weights([*weights, np.zeros(layer.output_shape[-1])] if layer.name in lacking else weights)
    return twin


def _scaled_outputs(layer, weights, factors):
    kernel, *bias = weights
    scaled = by_output_channel(layer, kernel.astype(np.float64)) * factors
    return [scaled.reshape(kernel.shape).astype(kernel.dtype), *[(b * factors).astype(b.dtype) for b in bias]]


def _scaled_inputs(layer, kernel, factors):
    return (kernel.astype(np.float64) * factors[:, None]).astype(kernel.dtype)


def _folded_weights(layer, weights, norm):
    gamma = norm.gamma.numpy() if norm.scale else 1.0
    beta = norm.beta.numpy() if norm.center else 0.0
    factors = gamma / np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    kernel, bias = weights[0], weights[1] if len(weights) > 1 else 0.0
    shift = beta + (bias - norm.moving_mean.numpy()) * factors
    return [*_scaled_outputs(layer, [kernel], factors), shift.astype(kernel.dtype)]


def _folded(model):
    model = structure.flat(model)
    norms = _foldable(model)
    if norms:
        raise StructureError(f"layer {next(iter(norms))} is a batch norm: call fold_batch_norms(model) first.")
    within = any(has_kernel(layer) and not structure.linear(layer) for layer in model.layers)
    generic = any(_is_generic_relu(layer) for layer in model.layers)
    return flatten.flat(model, split_activations=True)[0] if within or generic else model


def _is_generic_relu(layer):
    """Whether this is a ReLU that was given by its name, Activation("relu")."""
    return isinstance(layer, tf.keras.layers.Activation) and getattr(layer.activation, "__name__", "") in (
        "relu",
        "relu6",
    )


def _without(config, folded):
    """A functional model's config in which the layers that are the keys of `folded` are replaced by its values."""

    def redirected(value):
        """A reference to a tensor, [layer, node, place, ...], wherever it stands among the arguments of a call."""
        if isinstance(value, dict):
            return {name: redirected(each) for name, each in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        found = [redirected(each) for each in value]
        refers = len(found) > 2 and isinstance(found[0], str) and isinstance(found[1], int)
        return [folded.get(found[0], found[0]), *found[1:]] if refers else found

    layers = [layer for layer in config["layers"] if layer["name"] not in folded]
    for layer in layers:
        layer["inbound_nodes"] = redirected(layer["inbound_nodes"])
        if layer["name"] in folded.values():
            layer["config"]["use_bias"] = True
    return {**config, "layers": layers, "output_layers": redirected(config["output_layers"])}


def _answer(layer, outputs):
    """What a layer makes of what others put out, by their names, called as the model calls it: with a slope or an axis."""
    node = layer.inbound_nodes[0]

    def value(each):
        if not hasattr(each, "_keras_history"):
            return each
        source, _, place = each._keras_history  # private, as all that Keras says of calls
        return tf.nest.flatten(outputs[source.name])[place]

    arguments, named = tf.nest.map_structure(value, (node.call_args, node.call_kwargs))
    return layer(*arguments, **{name: each for name, each in named.items() if name != "training"})


def pairs(model):
    """The pairs of layers that `equalize` and `clear_dead` treat in a folded model, a row each: first, activation ("" for
    none), second, channels (how many lie between them).

    Raises StructureError if there is none, as in a network whose activations let no factor through (swish, GELU).
    """
    rows = [
        (first.name, activation.name if activation else "", second.name, first.output_shape[-1])
        for first, activation, second in _pairs(_folded(model))
    ]
    return pd.DataFrame(rows, columns=["first", "activation", "second", "channels"])


def _pairs(model):
    """Every (layer, its activation or None, next layer of weights) where nothing else looks at what lies between."""
    consumers = structure.consumers(model)
    found = [pair for layer in model.layers if (pair := _pair_from(layer, consumers))]
    if not found:
        between = sorted({_called(layer) for layer in model.layers if not has_kernel(layer)} - {"InputLayer"})
        raise StructureError(
            f"model {model.name} has no two layers of weights with only a ReLU, padding or pooling between them (it has "
            f"{', '.join(between)}): there is nothing to equalize or to clear. Quantize it per-channel, or keep its sensitive "
            "layers in float."
        )
    return found


def _called(layer):
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", type(layer).__name__) if activation is not None else type(layer).__name__


def _pair_from(layer, consumers):
    if not has_kernel(layer) or not structure.linear(layer):
        return None
    activation, follower = None, layer
    while len(consumers[follower.name]) == 1 and consumers[follower.name][0] is not None:
        follower = consumers[follower.name][0]
        if has_kernel(follower):  # in a grouped convolution an input channel has no kernel to itself
            return (layer, activation, follower) if getattr(follower, "groups", 1) == 1 else None
        relu = isinstance(follower, tf.keras.layers.ReLU) and not follower.negative_slope and not follower.threshold
        if relu and activation is None:
            activation = follower
        elif not isinstance(follower, PASSED_THROUGH):
            return None
    return None
