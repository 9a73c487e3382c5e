"""The models that the lab compresses."""

import weakref

import numpy as np

from helpers import runtime_env

with runtime_env.quiet():
    import tensorflow as tf

_traces = weakref.WeakKeyDictionary()


class ModelError(ValueError):
    """A model cannot be built as asked."""


def mlp(hidden_units=(256, 128), inputs=784, classes=10):
    """The article's multilayer perceptron: Dense-ReLU layers, then logits. Keras Sequential, not compiled.

    Raises ValueError if a layer has less than one unit.
    """
    if not hidden_units or min(hidden_units) < 1:
        raise ValueError(f"hidden_units={list(hidden_units)} must name at least one layer, each with 1 unit or more.")
    layers = [tf.keras.layers.Input((inputs,))]
    layers += [
        tf.keras.layers.Dense(units, activation="relu", name=f"hidden_{number}")
        for number, units in enumerate(hidden_units, 1)
    ]
    return tf.keras.Sequential([*layers, tf.keras.layers.Dense(classes, name="logits")], name="mlp")


def mobilenet_v2(size, classes, alpha=0.35):
    """MobileNetV2 (Sandler et al. 2018) with Keras' ImageNet weights of 224 px: one flat functional model, logits out.

    size: input pixels, a multiple of 32. Keras' batch norms average over 1,000 steps (momentum 0.999), longer than a
    fine-tuning lasts; here they average over 100.
    Raises ModelError when the weights can be neither found nor downloaded.
    """
    if size % 32 or size < 32 or classes < 2:
        raise ModelError(f"size={size} must be a multiple of 32 and classes={classes} at least 2.")

    def build(side, weights):
        return tf.keras.applications.MobileNetV2(
            (side, side, 3), alpha, include_top=False, weights=weights, pooling="avg"
        )

    try:
        with runtime_env.quiet():
            trained = build(224, "imagenet")
    except Exception as error:  # Keras wraps every failure to download in a bare Exception
        raise ModelError(
            f"ImageNet weights of MobileNetV2 (alpha {alpha}) cannot be had ({str(error).splitlines()[0]}): "
            "connect to the network once, or put Keras' weight file into ~/.keras/models."
        ) from error
    base = build(size, None)
    base.set_weights(trained.get_weights())
    wide = tf.keras.Model(base.input, tf.keras.layers.Dense(classes, name="logits")(base.output), name="mobilenet_v2")

    def quicker(layer):
        config = layer.get_config()
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            config["momentum"] = 0.99
        return type(layer).from_config(config)

    model = tf.keras.models.clone_model(wide, clone_function=quicker)
    model.set_weights(wide.get_weights())
    return model


def network_input(images, size, boxes=None):
    """Images as the network takes them: uint8 (n, height, width[, 3]) -> float32 tensor (n, size, size, 3) in [-1, 1].

    Grey images get three equal channels. boxes: float32 (n, 4), the part of each image to take (top, left, bottom,
    right, as shares); the whole by default.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank == 3:
        images = images[..., None]
    number = tf.shape(images)[0]
    if boxes is None:
        boxes = tf.tile([[0.0, 0.0, 1.0, 1.0]], [number, 1])
    resized = tf.image.crop_and_resize(images, boxes, tf.range(number), (size, size)) / 127.5 - 1
    return tf.image.grayscale_to_rgb(resized) if images.shape[-1] == 1 else resized


def compile_classifier(model, learning_rate=1e-3):
    """Compile a model that outputs logits: Adam, cross-entropy from logits, no metrics. Returns the model.

    A training step that creates no variable is traced once instead of twice, so the optimizer's are made here.
    """
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def inference(model):
    """A Keras model with one input as a concrete function, batch size left open, in inference mode.

    Traced once for each model: its weights stay variables, so that it follows them in training.
    """
    if model not in _traces:
        itself = weakref.proxy(model)  # else the trace would keep its own key alive
        signature = tf.TensorSpec((None, *model.input_shape[1:]), model.inputs[0].dtype, name="input")
        _traces[model] = tf.function(lambda x: itself(x, training=False)).get_concrete_function(signature)
    return _traces[model]


def copy(model):
    """A model of its own with the same layers and weights, not compiled."""
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def correct(model, x, y, batch=1000):
    """Which samples a Keras classifier gets right (top-1): bool (n,). x: float32 (n, ...), y: int (n,)."""
    parts = [
        model(x[start : start + batch], training=False).numpy().argmax(axis=-1) for start in range(0, len(x), batch)
    ]
    return np.concatenate(parts) == np.asarray(y)
