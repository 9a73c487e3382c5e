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
from helpers.networks import models, structure
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
    tf.keras.layers.Dropout,
)


def fold_batch_norms(model):
    """A model without batch norms that computes the same: each is folded into the layer of weights before it.

    In inference a batch norm multiplies and shifts each channel, which a kernel and a bias can do as well (Jacob et al.
    2018, section 3.2). A model without batch norm comes back as a copy.
    Raises StructureError for nested models and for a batch norm that does not follow a layer of weights alone.
    """
    model = structure.flat(model)
    consumers = structure.consumers(model)
    folded = {}  # batch norm -> layer that takes it up
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            source = structure.source(layer)
            alone = len(consumers[source.name]) == 1
            if list(layer.axis) != [len(layer.output_shape) - 1]:
                raise StructureError(f"batch norm {layer.name} has axis {layer.axis}: only the last one can be folded.")
            if not has_kernel(source) or not alone or not structure.linear(source):
                raise StructureError(
                    f"batch norm {layer.name} follows {source.name} ({type(source).__name__}): "
                    "it can be folded only into a linear convolution or dense layer that feeds nothing else."
                )
            folded[layer.name] = source.name
    config = _without(model.get_config(), folded)
    result = tf.keras.Model.from_config(config)
    norms = {source: model.get_layer(norm) for norm, source in folded.items()}
    for layer in result.layers:
        weights = model.get_layer(layer.name).get_weights()
        layer.set_weights(_folded_weights(layer, weights, norms[layer.name]) if layer.name in norms else weights)
    return result


def channel_ranges(model):
    """The largest absolute weight of every output channel, a row each: layer, kind, channel, range, levels, dead.

    kind: depthwise, pointwise (1 x 1), convolution or dense. levels: how many of the 255 the channel gets under one scale
    for the whole kernel. dead: the range is next to nothing beside the layer's largest. A batch norm still in the model is
    not counted in: fold first. Raises ValueError for NaN.
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
    pairs = _pairs(model)
    weights = {layer.name: layer.get_weights() for layer in model.layers if has_kernel(layer)}
    factors = {first.name: np.ones(first.output_shape[-1]) for first, _, _ in pairs}
    for _ in range(SWEEPS):
        largest_change = 0.0
        for first, _, second in pairs:
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
        for first, between, _ in pairs
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
    Raises StructureError for a layer of weights without a bias, a nested model, or an activation inside such a layer;
    InputError for an empty or ill-fitting calibration set.
    """
    model = structure.flat(model)
    inputs.representative(calibration, model.input_shape)
    result = models.copy(model)
    for layer in result.layers:
        if has_kernel(layer) and not (layer.use_bias and structure.linear(layer)):
            raise StructureError(
                f"layer {layer.name} must be linear and have a bias: call fold_batch_norms(model) first."
            )
    calibration = tf.convert_to_tensor(calibration, tf.float32)
    exact, rough = {}, {}  # what each layer puts out, as long as another one needs it
    waiting = {name: len(layers) for name, layers in structure.consumers(model).items()}
    for layer in result.layers:
        sources = [source.name for source in tf.nest.flatten(layer.inbound_nodes[0].inbound_layers)]
        if not sources:
            exact[layer.name] = rough[layer.name] = calibration
            continue
        exact[layer.name] = layer(_arguments(exact, sources), training=False)
        if has_kernel(layer):
            kernel, bias = layer.get_weights()
            layer.set_weights([affine.rounded(kernel), bias])
            outputs = layer(_arguments(rough, sources))
            shift = tf.reduce_mean(exact[layer.name] - outputs, axis=range(len(outputs.shape) - 1)).numpy()
            layer.set_weights([kernel, bias + shift])
            rough[layer.name] = outputs + shift
        else:
            rough[layer.name] = layer(_arguments(rough, sources), training=False)
        for source in sources:
            waiting[source] -= 1
            if not waiting[source]:
                del exact[source], rough[source]
    return result


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
    norms = [layer.name for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
    if norms:
        raise StructureError(f"layer {norms[0]} is a batch norm: call fold_batch_norms(model) first.")
    return model


def _without(config, folded):
    """A functional model's config in which the layers that are the keys of `folded` are replaced by its values."""

    def redirected(reference):
        return [folded.get(reference[0], reference[0]), *reference[1:]]

    layers = [layer for layer in config["layers"] if layer["name"] not in folded]
    for layer in layers:
        layer["inbound_nodes"] = [[redirected(reference) for reference in node] for node in layer["inbound_nodes"]]
        if layer["name"] in folded.values():
            layer["config"]["use_bias"] = True
    outputs = [redirected(reference) for reference in config["output_layers"]]
    return {**config, "layers": layers, "output_layers": outputs}


def _arguments(outputs, sources):
    return outputs[sources[0]] if len(sources) == 1 else [outputs[source] for source in sources]


def _pairs(model):
    """Every (layer, its activation or None, next layer of weights) where nothing else looks at what lies between."""
    consumers = structure.consumers(model)
    return [pair for layer in model.layers if (pair := _pair_from(layer, consumers))]


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
