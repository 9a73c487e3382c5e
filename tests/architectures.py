"""36 architectures that people bring, small and with random weights, in either Keras: name -> builder(kit).

`kit` is `tf.keras` (Keras 2) or `keras` (Keras 3). Classifiers end in softmax, as most are published.
"""

import numpy as np
import pytest
import tensorflow as tf

CLASSES = 5
BUILDERS = {}


def architecture(name):
    def add(build):
        BUILDERS[name] = build
        return build

    return add


def build(name, kit, seed=0):
    """The model, its weights drawn from a seed; norms are given statistics that are not those of a fresh model."""
    kit.utils.set_random_seed(seed)
    model = BUILDERS[name](kit)
    random = np.random.default_rng(seed)
    for weight in model.weights:
        name = getattr(weight, "path", weight.name)
        if "moving_mean" in name or "gamma" in name or "moving_variance" in name:
            around, low, high = (0, -0.2, 0.2) if "mean" in name else (1, -0.3, 0.3)
            weight.assign((around + random.uniform(low, high, weight.shape)).astype("float32"))
    return model


def skip_without_half(name):
    """Skip a test of "mixed precision" where TensorFlow's convolutions of float16 fail, as flatten's refusal has it."""
    try:
        if name == "mixed precision":
            tf.nn.conv2d(np.zeros((1, 4, 4, 3), "float16"), np.zeros((3, 3, 3, 4), "float16"), 1, "SAME")
    except tf.errors.AbortedError:
        pytest.skip("this processor needs ONEDNN_MAX_CPU_ISA=DEFAULT for float16")


def samples(model, number, seed=0):
    """Inputs for a model, a list with an array for each."""
    random, found = np.random.default_rng(seed), []
    for tensor in model.inputs:
        shape = [number, *(side or 32 for side in tensor.shape[1:])]
        dtype = getattr(tensor.dtype, "name", tensor.dtype)
        if dtype == "uint8":
            found.append(random.integers(0, 256, shape).astype(dtype))
        elif dtype.startswith("int"):
            found.append(random.integers(0, 20, shape).astype(dtype))
        else:
            found.append(random.uniform(-1, 1, shape).astype("float32"))
    return found


def _head(kit, x, units=CLASSES, activation="softmax", name="answer"):
    return kit.layers.Dense(units, activation=activation, name=name)(x)


def _application(name, **settings):
    def make(kit):
        found = getattr(kit.applications, name)
        return found(
            **{"weights": None, "input_shape": (64, 64, 3), "classes": CLASSES, **settings},
        )

    return make


architecture("ResNet-50")(_application("ResNet50"))
architecture("MobileNet 1")(_application("MobileNet", alpha=0.25))
architecture("MobileNet 2")(_application("MobileNetV2", alpha=0.35))
architecture("MobileNet 3")(_application("MobileNetV3Small", include_preprocessing=False))
architecture("EfficientNet 1")(_application("EfficientNetB0"))
architecture("EfficientNet 2")(_application("EfficientNetV2B0"))
architecture("DenseNet")(_application("DenseNet121"))
architecture("Xception")(_application("Xception", input_shape=(71, 71, 3)))
architecture("NASNet")(_application("NASNetMobile"))
architecture("Inception")(_application("InceptionV3", input_shape=(75, 75, 3)))
architecture("ConvNeXt")(_application("ConvNeXtTiny", include_preprocessing=False))


@architecture("MLP")
def _mlp(kit):
    return kit.Sequential(
        [
            kit.layers.Input((20,)),
            kit.layers.Dense(32, "relu"),
            kit.layers.Dense(16, "swish"),
            kit.layers.Dense(CLASSES, "softmax"),
        ]
    )


def _small_cnn(kit, size=24, channels=3, activation="softmax", units=CLASSES, name="cnn"):
    layers = kit.layers
    return kit.Sequential(
        [
            layers.Input((size, size, channels)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(units, activation),
        ],
        name=name,
    )


architecture("small CNN")(_small_cnn)


@architecture("ViT")
def _vit(kit):
    layers = kit.layers
    inputs = layers.Input((32, 32, 3))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8, name="patches")(inputs))
    for number in range(2):
        y = layers.LayerNormalization(name=f"norm_{number}a")(x)
        y = layers.MultiHeadAttention(2, 16, name=f"attention_{number}")(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization(name=f"norm_{number}b")(x)
        y = layers.Dense(32, name=f"down_{number}")(layers.Dense(64, activation="gelu", name=f"up_{number}")(y))
        x = layers.Add()([x, y])
    return kit.Model(inputs, _head(kit, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))))


@architecture("Mixer")
def _mixer(kit):
    layers = kit.layers
    inputs = layers.Input((32, 32, 3))
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8, name="patches")(inputs))
    y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
    y = layers.Dense(16, name="tokens_down")(layers.Dense(24, activation="gelu", name="tokens_up")(y))
    x = layers.Add()([x, layers.Permute((2, 1))(y)])
    y = layers.Dense(48, activation="gelu", name="channels_up")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(32, name="channels_down")(y)])
    return kit.Model(inputs, _head(kit, layers.GlobalAveragePooling1D()(x)))


@architecture("1-D CNN")
def _one_dimension(kit):
    layers = kit.layers
    inputs = layers.Input((64, 3))
    x = layers.Conv1D(16, 5, activation="relu", name="first")(inputs)
    x = layers.MaxPooling1D()(layers.BatchNormalization()(x))
    x = layers.ReLU()(layers.Conv1D(24, 3, name="second")(x))
    return kit.Model(inputs, _head(kit, layers.GlobalAveragePooling1D()(x)))


@architecture("LSTM")
def _lstm(kit):
    inputs = kit.layers.Input((16, 6))
    return kit.Model(inputs, _head(kit, kit.layers.LSTM(12, name="memory")(inputs)))


@architecture("GRU")
def _gru(kit):
    inputs = kit.layers.Input((16, 6))
    return kit.Model(inputs, _head(kit, kit.layers.GRU(12, name="memory")(inputs)))


@architecture("bidirectional text")
def _bidirectional(kit):
    inputs = kit.layers.Input((16,), dtype="int32")
    x = kit.layers.Bidirectional(kit.layers.LSTM(8))(kit.layers.Embedding(30, 12)(inputs))
    return kit.Model(inputs, _head(kit, x))


@architecture("embedding of tokens")
def _embedding(kit):
    inputs = kit.layers.Input((16,), dtype="int32")
    x = kit.layers.GlobalAveragePooling1D()(kit.layers.Embedding(30, 12)(inputs))
    return kit.Model(inputs, _head(kit, kit.layers.Dense(16, "relu")(x)))


@architecture("U-Net")
def _unet(kit):
    layers = kit.layers
    inputs = layers.Input((32, 32, 3))
    wide = layers.Conv2D(8, 3, padding="same", activation="relu", name="down_1")(inputs)
    deep = layers.Conv2D(16, 3, padding="same", activation="relu", name="down_2")(layers.MaxPooling2D()(wide))
    x = layers.Conv2DTranspose(8, 2, 2, activation="relu", name="up")(deep)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="join")(layers.Concatenate()([wide, x]))
    return kit.Model(inputs, layers.Conv2D(2, 1, activation="softmax", name="answer")(x))


@architecture("regression")
def _regression(kit):
    return kit.Sequential([kit.layers.Input((8,)), kit.layers.Dense(16, "relu"), kit.layers.Dense(1)])


@architecture("one sigmoid")
def _sigmoid(kit):
    return _small_cnn(kit, activation="sigmoid", units=1)


@architecture("two heads")
def _two_heads(kit):
    layers = kit.layers
    inputs = layers.Input((24, 24, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(inputs))
    return kit.Model(inputs, [_head(kit, x, name="kind"), _head(kit, x, 1, "sigmoid", name="there")])


@architecture("two inputs")
def _two_inputs(kit):
    layers = kit.layers
    picture, numbers = layers.Input((24, 24, 3), name="picture"), layers.Input((6,), name="numbers")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(picture))
    x = layers.Concatenate()([x, layers.Dense(8, "relu")(numbers)])
    return kit.Model([picture, numbers], _head(kit, x))


@architecture("detector")
def _detector(kit):
    layers = kit.layers
    inputs = layers.Input((64, 64, 3))
    x = inputs
    for number, width in enumerate((8, 16, 24)):
        x = layers.Conv2D(width, 3, 2, "same", use_bias=False, name=f"down_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    boxes = layers.Conv2D(4, 1, name="boxes")(x)
    scores = layers.Conv2D(3, 1, activation="sigmoid", name="scores")(x)
    return kit.Model(inputs, layers.Reshape((64, 7))(layers.Concatenate()([boxes, scores])))


@architecture("Rescaling")
def _rescaling(kit):
    inputs = kit.layers.Input((24, 24, 3))
    return kit.Model(inputs, _small_cnn(kit)(kit.layers.Rescaling(1 / 127.5, -1)(inputs)))


@architecture("augmentation inside")
def _augmented(kit):
    layers = kit.layers
    inputs = layers.Input((24, 24, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    return kit.Model(inputs, _head(kit, layers.Dropout(0.2)(x)))


def _backbone(kit):
    return kit.applications.MobileNetV2((64, 64, 3), 0.35, include_top=False, weights=None)


@architecture("tutorial transfer learning")
def _transfer(kit):
    """As the tutorial has it: augmentation, preprocess_input and a backbone, inside a functional model."""
    layers = kit.layers
    inputs = layers.Input((64, 64, 3))
    x = kit.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(inputs)
    x = kit.applications.mobilenet_v2.preprocess_input(x)
    x = layers.GlobalAveragePooling2D()(_backbone(kit)(x, training=False))
    return kit.Model(inputs, _head(kit, layers.Dropout(0.2)(x)))


@architecture("Sequential in Sequential")
def _nested(kit):
    return kit.Sequential(
        [
            kit.layers.Input((24, 24, 3)),
            _small_cnn(kit, activation="relu", units=12),
            kit.layers.Dense(CLASSES, "softmax"),
        ]
    )


@architecture("flat transfer learning")
def _flat_transfer(kit):
    backbone = _backbone(kit)
    return kit.Model(backbone.inputs, _head(kit, kit.layers.GlobalAveragePooling2D()(backbone.outputs[0])))


@architecture("open size")
def _open_size(kit):
    inputs = kit.layers.Input((None, None, 3))
    x = kit.layers.GlobalAveragePooling2D()(kit.layers.Conv2D(16, 3, activation="relu")(inputs))
    return kit.Model(inputs, _head(kit, x))


@architecture("subclassed")
def _subclassed(kit):
    class Subclassed(kit.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.answer = kit.layers.Dense(16, "relu"), kit.layers.Dense(CLASSES, "softmax")

        def call(self, x):
            return self.answer(self.hidden(x))

    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    return model


CUSTOM_CODE = '''import tensorflow as tf


class Scaled(tf.keras.layers.Layer):
    """Multiplies by one trained number."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(), initializer="ones")

    def call(self, x):
        return x * self.factor
'''


@architecture("custom layer")
def _custom(kit):
    class Scaled(kit.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(), initializer="ones")

        def call(self, x):
            return x * self.factor

    inputs = kit.layers.Input((8,))
    return kit.Model(inputs, _head(kit, Scaled(name="scaled")(kit.layers.Dense(16, "relu")(inputs))))


@architecture("mixed precision")
def _mixed(kit):
    policies = kit.mixed_precision
    former = policies.global_policy() if hasattr(policies, "global_policy") else policies.dtype_policy()
    policies.set_global_policy("mixed_float16")
    try:
        return _small_cnn(kit)
    finally:
        policies.set_global_policy(former)


@architecture("uint8 input")
def _bytes(kit):
    inputs = kit.layers.Input((24, 24, 3), dtype="uint8")
    return kit.Model(inputs, _small_cnn(kit)(kit.layers.Rescaling(1 / 127.5, -1)(inputs)))
