"""Layers of either Keras as layers of Keras 2 with the same settings."""

import inspect

from helpers.base import runtime_env
from helpers.base.errors import StructureError, first_line

with runtime_env.quiet():
    import keras  # Keras 3, which TensorFlow brings along
    import tensorflow as tf

HARD = ("hard_silu", "hard_swish", "hard_sigmoid")  # of Keras 3; Keras 2 lacks two, and means another by the third
RECURRENT = ("LSTM", "GRU", "SimpleRNN")
# Settings of a layer that inference does not need, by how their names end.
UNUSED = ("name", "dtype", "trainable", "seed", "initializer", "regularizer", "constraint")
_RENAMED = {("LeakyReLU", "negative_slope"): "alpha"}  # of Keras 3 -> of Keras 2


def hard(layer):
    """The name of a layer's activation if it is one of HARD in Keras 3; else ""."""
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return (
        name if name in HARD and isinstance(layer, keras.Layer) and not isinstance(layer, tf.keras.layers.Layer) else ""
    )


def copied(layer, name, unroll=False):
    """A layer of Keras 2 with the settings of one of either Keras, its weights not set. unroll: whether to write out the steps of a
    recurrent one. Raises StructureError where Keras 2 has no such layer or setting."""
    kind = type(layer).__name__
    if isinstance(layer, tf.keras.layers.Layer):
        config = {**layer.get_config(), "name": name, "dtype": "float32"}
        if unroll and kind in RECURRENT:
            config["unroll"] = True
        if unroll and kind == "Bidirectional":
            for inner in ("layer", "backward_layer"):
                if config.get(inner):
                    config[inner] = {**config[inner], "config": {**config[inner]["config"], "unroll": True}}
        try:
            return type(layer).from_config(config)
        except Exception:  # perhaps an author's function, which Keras does not find by its name
            functions = {key: getattr(layer, key, value) for key, value in config.items() if key.endswith("activation")}
            return _made(layer, kind, type(layer).from_config, config | functions)
    known = getattr(tf.keras.layers, kind, None)
    if known is None or type(layer) is not getattr(keras.layers, kind, None):
        raise StructureError(f"layer {layer.name} ({kind}) is not known to Keras 2.")
    config = layer.get_config()
    if kind in ("Bidirectional", "TimeDistributed"):
        inner = layer.forward_layer if kind == "Bidirectional" else layer.layer
        more = {"merge_mode": layer.merge_mode} if kind == "Bidirectional" else {}
        return known(copied(inner, inner.name.removeprefix("forward_"), unroll), name=name, **more)
    config = {_RENAMED.get((kind, key), key): value for key, value in config.items() if not key.endswith(UNUSED)}
    strange = [key for key, value in config.items() if isinstance(value, dict)] or _set(layer, _parameters(known))
    if strange:
        raise StructureError(f"layer {layer.name} ({kind}) has its {strange[0]} in Keras 3 alone")
    kept = {key: value for key, value in config.items() if key in _parameters(known)}
    if unroll and kind in RECURRENT:
        kept["unroll"] = True
    if hard(layer):
        kept["activation"] = "linear"  # it follows as layers of its own
    return _made(layer, kind, lambda settings: known(name=name, **settings), kept)


def _made(layer, kind, make, settings):
    try:
        return make(settings)
    except Exception as error:  # an author's layer may raise anything
        raise StructureError(f"layer {layer.name} ({kind}) cannot be had in Keras 2 ({first_line(error)})") from error


def _set(layer, known):
    """Settings of a layer of Keras 3 that are not its defaults, and that Keras 2 does not know."""
    kind, config = type(layer), layer.get_config()
    return [
        key
        for key, parameter in inspect.signature(kind.__init__).parameters.items()
        if key in config
        and not {key, _RENAMED.get((kind.__name__, key))} & known
        and not key.endswith(UNUSED)
        and config[key] not in (parameter.default, keras.config.image_data_format())
    ]


def separated(layer, name):
    """A separable convolution as the two convolutions that it stands for."""
    config = layer.get_config()
    shared = {key: config[key] for key in ("padding", "dilation_rate", "data_format")}
    depthwise = tf.keras.layers.DepthwiseConv2D(
        layer.kernel_size, layer.strides, depth_multiplier=layer.depth_multiplier, use_bias=False, name=name, **shared
    )
    pointwise = tf.keras.layers.Conv2D(
        layer.filters,
        1,
        activation=layer.activation,
        use_bias=layer.use_bias,
        data_format=layer.data_format,
        name=layer.name,
    )
    return depthwise, pointwise


def _parameters(kind):
    """The names that a layer's constructor takes, those of the classes below it included."""
    names = set()
    for each in kind.__mro__:
        if each is tf.keras.layers.Layer:
            break
        if "__init__" in vars(each):
            names |= set(inspect.signature(each.__init__).parameters)
    return names - {"self", "kwargs", "args"}
