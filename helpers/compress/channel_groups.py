"""Which channels of a flat Keras model can be removed, and what goes along with each; multiply-accumulates."""

import fnmatch
from dataclasses import dataclass, field

import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.networks import structure
from helpers.networks.structure import has_kernel, kind

with runtime_env.quiet():
    import tensorflow as tf

layers, activations = tf.keras.layers, tf.keras.activations

# Layers that handle every channel by itself, beside those with a rule of their own in `_after`.
BY_CHANNEL = (
    structure.CappedReLU,
    layers.PReLU,
    layers.ReLU,
    layers.LeakyReLU,
    layers.ELU,
    layers.ThresholdedReLU,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.UpSampling2D,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.SpatialDropout1D,
    layers.ZeroPadding1D,
    layers.Cropping1D,
    layers.UpSampling1D,
    layers.MaxPooling1D,
    layers.AveragePooling1D,
    layers.GlobalMaxPooling1D,
    layers.GlobalAveragePooling1D,
)
ADDITIONS = (layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
ELEMENTWISE = (
    *(getattr(activations, name) for name in ("linear", "relu", "elu", "selu", "gelu", "swish", "mish", "tanh")),
    *(getattr(activations, name) for name in ("sigmoid", "hard_sigmoid", "softplus", "softsign", "exponential")),
    *(tf.nn.relu, tf.nn.relu6, tf.nn.leaky_relu, tf.nn.elu, tf.nn.silu, tf.nn.tanh, tf.nn.sigmoid),
)


@dataclass(frozen=True)
class Group:
    """The channels of one layer that can be removed, with all that goes along.

    name: of the layer that puts them out. width: how many. followers: layers that handle each by itself, in the model's
    order. consumers: layers of weights that read them. parameters, macs (of one sample): what one channel less saves while
    all other groups are whole. origins: name of the layer and of its followers -> which channel each entry of the last
    axis of its output belongs to, int (entries,).
    """

    name: str
    width: int
    followers: tuple
    consumers: tuple
    parameters: int
    macs: int
    origins: dict = field(repr=False, compare=False)


def groups(model, only="*"):
    """The prunable groups of a flat model, in its order: name -> Group. None of them is no error.

    only: a pattern such as "*_expand" for the names of layers; the others stay whole.
    Layers whose channels cannot be followed stay whole too: `left_whole` names them, with the reason.
    Raises StructureError for what `structure.flat` refuses.
    """
    return find(checked(model), lambda name: fnmatch.fnmatchcase(name, only))


def left_whole(model, only="*"):
    """Layers of weights that no group removes channels of, although `only` fits their name: name -> why not, in words."""
    model = checked(model)
    consumers = structure.consumers(model)
    found = {layer.name: _group(model, layer, consumers) for layer in _producers(model)}
    return {name: why for name, why in found.items() if isinstance(why, str) and fnmatch.fnmatchcase(name, only)}


def macs(model):
    """Multiply-accumulates of one sample in convolutions, depthwise convolutions and dense layers.

    Separable and transposed convolutions count too. Raises StructureError for nested models, other layers with a kernel,
    and an input whose size is left open.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2DTranspose):
            total += _places(layer, layer.input_shape) * int(np.prod(layer.weights[0].shape))
        elif isinstance(layer, layers.SeparableConv2D):
            total += _places(layer, layer.output_shape) * sum(
                int(np.prod(kernel.shape)) for kernel in layer.weights[:2]
            )
        elif has_kernel(layer):
            total += _layer_macs(layer)
        elif isinstance(layer, tf.keras.Model) or any("kernel" in weight.name for weight in layer.weights):
            raise StructureError(
                f"layer {layer.name} ({type(layer).__name__}) has operations that are not counted here."
            )
    return total


def checked(model):
    """The model as `structure.flat` gives it. Raises StructureError, as `groups` does, and unless its channels are last."""
    model = structure.flat(model)
    for layer in model.layers:
        if getattr(layer, "data_format", None) == "channels_first":
            raise StructureError(f"layer {layer.name} has its channels first: build the model with channels_last.")
    return model


def find(model, wanted):
    """`groups` of a checked model, of those layers whose name `wanted` says yes to."""
    consumers = structure.consumers(model)
    found = [_group(model, layer, consumers) for layer in _producers(model) if wanted(layer.name)]
    return {group.name: group for group in found if isinstance(group, Group)}


def _producers(model):
    return [layer for layer in model.layers if has_kernel(layer) and kind(layer) != "depthwise"]


def _group(model, producer, consumers):
    """The Group of a layer, or why its channels stay whole."""
    if getattr(producer, "groups", 1) != 1:
        return "it is a grouped convolution"
    width = producer.output_shape[-1]
    path, readers = {producer.name: np.arange(width)}, set()
    waiting = [producer]
    while waiting:
        layer = waiting.pop()
        if not _elementwise(layer):
            return f"{_described(layer)} in {layer.name} mixes channels"
        for follower in consumers[layer.name]:
            if follower is None:
                return "its channels are the model's output"
            if isinstance(follower, ADDITIONS):
                return f"its channels are added to others in {follower.name}"
            if has_kernel(follower) and kind(follower) != "depthwise":
                if getattr(follower, "groups", 1) != 1:
                    return f"{follower.name}, a grouped convolution, reads its channels"
                readers.add(follower.name)
            elif (origins := _after(follower, path[layer.name])) is not None:
                path[follower.name] = origins
                waiting.append(follower)
            else:
                return f"its channels cannot be followed through {follower.name} ({_described(follower)})"
    if not readers:
        return "no layer of weights reads its channels"
    followers = tuple(layer.name for layer in model.layers if layer.name in path and layer is not producer)
    readers = tuple(layer.name for layer in model.layers if layer.name in readers)
    with_channel = [model.get_layer(name) for name in followers]
    reading = [model.get_layer(name) for name in readers]
    kernels = [layer for layer in (producer, *with_channel, *reading) if has_kernel(layer)]
    parameters = (
        sum(weight.size for weight in producer.get_weights())
        + sum(w.size for layer in with_channel for w in layer.get_weights() if _by_channel(layer, w, path[layer.name]))
        + sum(layer.get_weights()[0].size for layer in reading)
    )
    spent = sum(_layer_macs(layer) for layer in kernels)
    return Group(producer.name, width, followers, readers, parameters // width, spent // width, path)


def _after(layer, origins):
    """Which channel each entry that a layer puts out belongs to, or None if channels cannot be followed through it."""
    if isinstance(layer, layers.BatchNormalization):
        return origins if list(layer.axis) == [len(layer.output_shape) - 1] else None
    if isinstance(layer, layers.DepthwiseConv2D):
        return np.repeat(origins, layer.depth_multiplier)
    if isinstance(layer, layers.Flatten):
        return np.tile(origins, layer.output_shape[-1] // len(origins))
    followed = isinstance(layer, BY_CHANNEL) or (isinstance(layer, layers.Activation) and _elementwise(layer))
    return origins if followed else None


def _by_channel(layer, weight, origins):
    """Whether a follower's weight has an entry for each channel (a PReLU may share one among all)."""
    return (has_kernel(layer) and weight.ndim > 1) or weight.shape[-1] == len(origins)


def _elementwise(layer):
    return getattr(layer, "activation", activations.linear) in ELEMENTWISE


def _described(layer):
    activation = (
        "" if _elementwise(layer) else f" with {getattr(layer.activation, '__name__', type(layer.activation).__name__)}"
    )
    return type(layer).__name__ + activation


def _layer_macs(layer):
    return _places(layer, layer.output_shape) * int(np.prod(layer.weights[0].shape))


def _places(layer, shape):
    if None in shape[1:-1]:
        raise StructureError(f"layer {layer.name} has an output of open size {shape}: fix the input's size.")
    return int(np.prod(shape[1:-1]))
