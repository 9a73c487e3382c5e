"""The models that the lab compresses."""

import weakref

import numpy as np

from helpers.base import ground_truth, runtime_env
from helpers.base.errors import InputError

with runtime_env.quiet():
    import tensorflow as tf

_traces = weakref.WeakKeyDictionary()


def mlp(hidden_units=(256, 128), inputs=784, classes=10, batch_norms=False):
    """The article's multilayer perceptron: Dense-ReLU layers, then logits. Keras Sequential, not compiled.

    batch_norms: put one between each hidden layer and its ReLU. Raises InputError if a layer has less than one unit.
    """
    if not hidden_units or min(hidden_units) < 1:
        raise InputError(f"hidden_units={list(hidden_units)} must name at least one layer, each with 1 unit or more.")
    layers = [tf.keras.layers.Input((inputs,))]
    for number, units in enumerate(hidden_units, 1):
        activation = None if batch_norms else "relu"
        layers.append(tf.keras.layers.Dense(units, activation=activation, name=f"hidden_{number}"))
        if batch_norms:
            layers += [tf.keras.layers.BatchNormalization(name=f"norm_{number}"), tf.keras.layers.ReLU()]
    return tf.keras.Sequential([*layers, tf.keras.layers.Dense(classes, name="logits")], name="mlp")


def cnn(size, classes, channels=3):
    """Three strided convolutions with batch norms, then two dense layers: one flat functional model with random weights,
    logits out. size: input pixels. Raises InputError for a size below 8 or fewer than two classes."""
    if size < 8 or classes < 2:
        raise InputError(f"size={size} must be at least 8 and classes={classes} at least 2.")
    layers = tf.keras.layers
    x = inputs = layers.Input((size, size, channels), name="image")
    for number, width in enumerate((16, 32, 64), 1):
        x = layers.Conv2D(width, 3, 2, padding="same", name=f"conv_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(x))
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten(name="flat")(x))
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="cnn")


def mobilenet_v2(size, classes, alpha=0.35):
    """MobileNetV2 (Sandler et al. 2018) with Keras' ImageNet weights of 224 px: one flat functional model, logits out.

    size: input pixels, a multiple of 32. Keras' batch norms average over 1,000 steps (momentum 0.999), longer than a
    fine-tuning lasts; here they average over 100.
    Raises InputError when the weights can be neither found nor downloaded.
    """
    if size % 32 or size < 32 or classes < 2:
        raise InputError(f"size={size} must be a multiple of 32 and classes={classes} at least 2.")

    def build(side, weights):
        return tf.keras.applications.MobileNetV2(
            (side, side, 3), alpha, include_top=False, weights=weights, pooling="avg"
        )

    try:
        with runtime_env.quiet():
            trained = build(224, "imagenet")
    except Exception as error:  # Keras wraps every failure to download in a bare Exception
        raise InputError(
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


def resnet8(size, classes, channels=3):
    """ResNet-8 of MLPerf Tiny (Banbury et al. 2021): three stacks of 16, 32 and 64 channels, each two convolutions beside
    a shortcut. One flat functional model with random weights, logits out.

    size: input pixels, 32 in the original. Raises InputError for a size below 8 or fewer than two classes.
    """
    if size < 8 or classes < 2:
        raise InputError(f"size={size} must be at least 8 and classes={classes} at least 2.")
    layers = tf.keras.layers

    def convolution(x, width, side, stride, name):
        return layers.Conv2D(width, side, stride, padding="same", kernel_initializer="he_normal", name=f"{name}_conv")(
            x
        )

    def normed(x, width, stride, name):
        return layers.BatchNormalization(name=f"{name}_bn")(convolution(x, width, 3, stride, name))

    inputs = layers.Input((size, size, channels), name="image")
    x = layers.ReLU(name="stem_relu")(normed(inputs, 16, 1, "stem"))
    for number, width in enumerate((16, 32, 64), 1):
        stride, name = 1 if number == 1 else 2, f"stack_{number}"
        y = layers.ReLU(name=f"{name}_1_relu")(normed(x, width, stride, f"{name}_1"))
        y = normed(y, width, 1, f"{name}_2")
        shortcut = x if number == 1 else convolution(x, width, 1, stride, f"{name}_shortcut")
        x = layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="resnet8")


def pointwise_cnn(size, classes, widths=(64, 128, 128, 256, 256)):
    """A small MobileNet (Howard et al. 2017), most of whose weights are in 1x1 convolutions: a 3x3 stem of stride 2, then
    depthwise 3x3 and 1x1 in turn, of stride 2 where the width grows. It is built as XNNPACK's sparse kernels, and tfmot's
    policy for them, want it. One flat functional model with random weights, logits out. size: input pixels.

    Raises InputError for a size below 16 or fewer than two classes.
    """
    if size < 16 or classes < 2:
        raise InputError(f"size={size} must be at least 16 and classes={classes} at least 2.")
    layers = tf.keras.layers

    def normed(convolution, x, name):
        x = convolution(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_bn")(x))

    def halving(x, name):  # what Keras pads by itself at stride 2 is not the same on all sides
        return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), {"strides": 2, "padding": "valid", "use_bias": False}

    inputs, width = layers.Input((size, size, 3), name="image"), widths[0]
    x, options = halving(inputs, "stem")
    x = normed(layers.Conv2D(width // 2, 3, **options, name="stem_conv"), x, "stem")
    for number, wider in enumerate(widths, 1):
        name, options = f"block_{number}", {"padding": "same", "use_bias": False}
        if wider > width:
            x, options = halving(x, name)
        x = normed(layers.DepthwiseConv2D(3, **options, name=f"{name}_depthwise"), x, f"{name}_depthwise")
        x = normed(layers.Conv2D(wider, 1, use_bias=False, name=f"{name}_pointwise"), x, f"{name}_pointwise")
        width = wider
    x = layers.Flatten(name="flat")(layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x))
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="pointwise_cnn")


def vit(size, classes, width=64, depth=3, heads=4):
    """A small Vision Transformer (Dosovitskiy et al. 2021) behind a stem of convolutions (Xiao et al. 2021), whose padding and a
    depthwise convolution say where a token stands (Chu et al. 2021): one flat functional model with random weights, logits out.

    size: input pixels; a token is 4 x 4 of them. width: numbers of a token. depth: blocks, each normalized first: attention of so
    many heads, then two dense layers. The scores of attention are not divided by the root of a head's width, but the first
    weights of their queries are, so that no operator is needed for it. Epsilon is so small that Keras writes a normalization out
    instead of calling a batch norm for it.
    Raises InputError for a size that is no multiple of 4, fewer than two classes, or a width that the heads cannot share.
    """
    if size % 4 or size < 8 or classes < 2:
        raise InputError(f"size={size} must be a multiple of 4, at least 8, and classes={classes} at least 2.")
    if width % heads or depth < 1:
        raise InputError(f"width={width} must be a multiple of heads={heads}, and depth={depth} at least 1.")
    layers, tokens = tf.keras.layers, (size // 4) ** 2

    def apart(x, name):
        """(tokens, width) -> (heads, tokens, width of a head)"""
        x = layers.Reshape((tokens, heads, width // heads), name=f"{name}_heads")(x)
        return layers.Permute((2, 1, 3), name=f"{name}_apart")(x)

    def attention(x, name):
        smaller = tf.keras.initializers.VarianceScaling(heads / width, "fan_avg", "uniform")
        query = layers.Dense(width, kernel_initializer=smaller, name=f"{name}_query")(x)
        key, value = (layers.Dense(width, name=f"{name}_{part}")(x) for part in ("key", "value"))
        parts = [apart(query, f"{name}_query"), apart(value, f"{name}_value"), apart(key, f"{name}_key")]
        y = layers.Permute((2, 1, 3), name=f"{name}_together")(layers.Attention(name=f"{name}_attention")(parts))
        return layers.Dense(width, name=f"{name}_output")(layers.Reshape((tokens, width), name=f"{name}_tokens")(y))

    def normed(x, name):
        return layers.LayerNormalization(epsilon=1e-6, name=name)(x)

    x = inputs = layers.Input((size, size, 3), name="image")
    for number, (channels, stride) in enumerate(((width // 4, 1), (width // 2, 2), (width, 2)), 1):
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False, name=f"stem_{number}")(x)
        x = layers.ReLU(name=f"stem_{number}_relu")(layers.BatchNormalization(name=f"stem_{number}_bn")(x))
    x = layers.Add(name="placed")([x, layers.DepthwiseConv2D(3, padding="same", name="places")(x)])
    x = layers.Reshape((tokens, width), name="tokens")(x)
    for number in range(1, depth + 1):
        name = f"block_{number}"
        y = attention(normed(x, f"{name}_norm_1"), name)
        x = layers.Add(name=f"{name}_add_1")([x, y])
        y = layers.Dense(2 * width, activation="gelu", name=f"{name}_up")(normed(x, f"{name}_norm_2"))
        x = layers.Add(name=f"{name}_add_2")([x, layers.Dense(width, name=f"{name}_down")(y)])
    x = layers.GlobalAveragePooling1D(name="mean")(normed(x, "norm"))
    return tf.keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="vit")


def resnet50(size=224, classes=1000, weights=None, seed=0):
    """ResNet-50 (He et al. 2016) as Keras has it: one flat functional model, logits out.

    weights: None for random ones drawn from `seed` (He et al. 2015), or "imagenet", which Keras downloads; size and speed
    are the same. Raises InputError when those can be neither found nor downloaded, or have other classes than 1,000.
    """
    if size < 32 or classes < 2:
        raise InputError(f"size={size} must be at least 32 and classes={classes} at least 2.")
    if weights not in (None, "imagenet") or (weights and classes != 1000):
        raise InputError(f"weights={weights!r} must be None, or 'imagenet' with classes=1000, not {classes}.")
    try:
        with runtime_env.quiet():
            model = tf.keras.applications.ResNet50(
                weights=weights, input_shape=(size, size, 3), classes=classes, classifier_activation=None
            )
    except Exception as error:  # Keras wraps every failure to download in a bare Exception
        raise InputError(
            f"ImageNet weights of ResNet-50 cannot be had ({str(error).splitlines()[0]}): "
            "connect to the network once, or put Keras' weight file into ~/.keras/models."
        ) from error
    if weights is None:
        random = np.random.default_rng(seed)
        for variable in model.trainable_variables:
            if "kernel" in variable.name:
                deviation = np.sqrt(2 / np.prod(variable.shape[:-1]))
                variable.assign(deviation * random.standard_normal(variable.shape, np.float32))
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


def of_any_size(model):
    """A convolutional model with its weights once more (a copy), that takes images of any height and width."""
    copied = tf.keras.models.clone_model(model, tf.keras.Input((None, None, model.input_shape[-1])))
    copied.set_weights(model.get_weights())
    return copied


def compile_classifier(model, learning_rate=1e-3, smoothing=0.0):
    """Compile a model that outputs logits: Adam, cross-entropy from logits, no metrics. Returns the model.

    smoothing: share of the wanted answer that is spread evenly over all classes, in [0, 1).
    A training step that creates no variable is traced once instead of twice, so the optimizer's are made here.
    """
    model.compile(
        optimizer=tf.keras.optimizers.Adam(learning_rate),
        loss=_smoothed(smoothing) if smoothing else tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _smoothed(smoothing):
    def loss(labels, logits):
        wanted = tf.one_hot(tf.reshape(tf.cast(labels, tf.int32), [-1]), logits.shape[-1])
        return tf.keras.losses.categorical_crossentropy(wanted, logits, from_logits=True, label_smoothing=smoothing)

    return loss


def inference(model, batch=None):
    """A Keras model as a concrete function, batch size left open unless one is given, in inference mode; its inputs are named "input",
    or as the model names them where there are several.

    Traced once for each model and batch size: its weights stay variables, so that it follows them in training.
    """
    traces = _traces.setdefault(model, {})
    if batch not in traces:
        itself, alone = weakref.proxy(model), len(model.inputs) == 1  # else the trace would keep its own key alive
        signature = [
            tf.TensorSpec((batch, *each.shape[1:]), each.dtype, "input" if alone else each.name.split(":")[0])
            for each in model.inputs
        ]
        called = tf.function(lambda *x: itself(x[0] if alone else list(x), training=False))
        traces[batch] = called.get_concrete_function(*signature)
    return traces[batch]


def copy(model):
    """A model of its own with the same layers and weights, not compiled."""
    twin = tf.keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def correct(model, x, y, batch=200):
    """Which samples a Keras classifier gets right (top-1): bool (n,).

    x: float32 (n, ...) as the model takes them, or images, uint8 (n, height, width[, 3]), which become a network's input
    first. y: labels, as `ground_truth.labels` takes them, with what it raises.
    """
    y = ground_truth.labels(y, len(x), model.output_shape[-1])
    answers, infer = [], inference(model)
    for start in range(0, len(x), batch):
        part = x[start : start + batch]
        part = network_input(part, model.input_shape[1]) if part.dtype == np.uint8 else tf.convert_to_tensor(part)
        answers.append(infer(part).numpy().argmax(axis=-1))
    return np.concatenate(answers) == y
