"""Where a factor can move in a file: through what lets it through, nowhere else, and the function stays the same bit for bit."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.compress import quantize, tflite_scales
from helpers.compress.tflite_plan import Plan
from helpers.tflite import litert, rewrite
from tests import architectures

layers = tf.keras.layers


def written(function, *shape):
    """The file of a TensorFlow function of one input (None, ...)."""
    runtime_env.seed_everything(0)
    frozen = tf.function(function).get_concrete_function(tf.TensorSpec((None, *shape)))
    with runtime_env.quiet():
        return rewrite.with_signature(tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert())


def constant(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def scaled(file, x):
    """The passages of a file, after trying that random powers of two in all of them change nothing but constants."""
    plan, operands, random = Plan(file), {}, np.random.default_rng(0)
    found = tflite_scales.passages(plan)
    for passage in found:
        before = passage.largest_weights(plan, operands)
        factors = 2.0 ** random.integers(-4, 5, passage.channels)
        operands = passage.moved(plan, operands, factors)
        np.testing.assert_allclose(passage.largest_weights(plan, operands), before / factors, rtol=1e-6)
    changed = rewrite.with_operands(file, operands)
    if found:
        before, after = Plan(file), Plan(changed)
        assert any(
            not np.array_equal(before.constants[i], after.constants[j])
            for one, other in zip(before.nodes, after.nodes, strict=True)
            for i, j in zip(one.inputs, other.inputs, strict=True)
            if i in before.constants
        )
    np.testing.assert_array_equal(litert.predict(changed, x), litert.predict(file, x))
    return found


# --- normalizations, as converters write them


def keras_2(x, gamma, beta, axes=-1):
    mean, variance = tf.nn.moments(x, axes, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-6)


def keras_3(x, gamma, beta):
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    inverse = tf.math.rsqrt(variance + 1e-6) * gamma
    return x * inverse + (beta - mean * inverse)


def pytorch(x, gamma, beta):
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    return centred * tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + 1e-6) * gamma + beta


def by_division(x, gamma, beta):
    centred = x - tf.reduce_mean(x, -1, keepdims=True)
    return centred / tf.sqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + 1e-6) * gamma + beta


@pytest.mark.parametrize("norm", [keras_2, keras_3, pytorch, by_division])
def test_normalizations(norm):
    gamma, beta, kernels = constant(8), constant(8, seed=2), [constant(8, 6, seed=3), constant(8, 8, seed=4)]

    def function(x):
        y = norm(x, gamma, beta)
        return tf.nn.softmax(y @ kernels[0]) @ constant(6, 8, seed=5) + x + tf.nn.gelu(y @ kernels[1])

    [passage] = scaled(written(function, 5, 8), constant(20, 5, 8))
    assert passage.kind == tflite_scales.NORMALIZATION and passage.channels == 8 and len(passage.read) == 2


@pytest.mark.parametrize("norm", [keras_2, pytorch])
def test_a_normalization_that_a_residual_reads_stays(norm):
    """Post-norm: what is normalized goes on beside the layer."""

    def function(x):
        y = norm(x, constant(8), constant(8, seed=2))
        return norm(y + tf.nn.gelu(y @ constant(8, 8, seed=3)), constant(8, seed=4), constant(8, seed=5))

    assert scaled(written(function, 5, 8), constant(20, 5, 8)) == []


def test_a_normalization_over_tokens_stays():
    """A layer that mixes tokens reads another axis."""

    def function(x):
        return tf.transpose(keras_2(x, constant(8), constant(8, seed=2)), (0, 2, 1)) @ constant(5, 4, seed=3)

    assert scaled(written(function, 5, 8), constant(20, 5, 8)) == []


@pytest.mark.parametrize(
    "between",
    [
        lambda y: tf.reduce_mean(y, 1),
        lambda y: tf.reshape(y, (-1, 80)),
        lambda y: tf.reshape(tf.transpose(tf.reshape(y, (-1, 5, 2, 8)), (0, 2, 1, 3)), (-1, 8)),
        lambda y: tf.nn.relu(tf.reduce_max(y, 1)),
        lambda y: y[:, 0],
        lambda y: y[:, 2:9:3, :],
        lambda y: tf.gather(y, [1, 4], axis=1),
        lambda y: tf.minimum(tf.maximum(y, constant(8, seed=7) - 1), constant(8, seed=8) + 1),
        lambda y: y * tf.sigmoid(y * constant(8, seed=7)),
    ],
    ids=["mean", "laid flat", "transposed", "largest", "first", "some", "gathered", "between limits", "gated"],
)
def test_what_lets_a_factor_through(between):
    def function(x):
        y = between(keras_2(x, constant(8), constant(8, seed=2)))
        return y @ constant(y.shape[-1], 3, seed=3)

    assert len(scaled(written(function, 10, 8), constant(20, 10, 8))) == 1


@pytest.mark.parametrize(
    "between",
    [
        lambda y: tf.nn.gelu(y),
        lambda y: tf.nn.relu6(y),
        lambda y: tf.reduce_sum(y, -1, keepdims=True) + y,
        lambda y: tf.transpose(tf.reshape(y, (-1, 5, 2, 4)), (0, 2, 1, 3)),
        lambda y: tf.reshape(tf.reshape(y, (-1, 8, 1)) * tf.reshape(tf.nn.softmax(y), (-1, 1, 8)), (-1, 8)),
        lambda y: y * y,
        lambda y: y[..., 1:],
        lambda y: y[..., ::-1],
        lambda y: tf.gather(y, [1, 4, 4, 2], axis=2),
        lambda y: y + tf.sigmoid(y),
    ],
    ids=["gelu", "capped", "summed", "cut", "multiplied out", "squared", "all but one", "backwards", "some", "moved"],
)
def test_what_does_not(between):
    def function(x):
        y = between(keras_2(x, constant(8), constant(8, seed=2)))
        return y @ constant(y.shape[-1], 3, seed=3)

    assert scaled(written(function, 5, 8), constant(20, 5, 8)) == []


# --- layers of weights


def test_convolutions_of_every_kind():
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="spread")(x)
    x = layers.MaxPooling2D(2)(layers.Conv2D(12, 1, activation="relu", name="mix")(layers.ReLU()(x)))
    x = layers.Conv2D(6, 3, groups=3, name="grouped")(x)
    x = layers.Conv2DTranspose(4, 3, 2, activation="relu", name="wider")(x)
    x = layers.Flatten()(layers.ZeroPadding2D(1)(x))
    model = tf.keras.Model(
        inputs, layers.Dense(5, name="answer")(layers.Dense(7, activation="relu6", name="hidden")(x))
    )
    found = scaled(quantize.convert(model), constant(10, 12, 12, 3))
    # A ReLU6 lets no factor through.
    assert len(found) == 5 and {passage.kind for passage in found} == {tflite_scales.WEIGHTS}


def test_a_residual_stream_is_scaled_as_a_whole():
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    for number in range(2):
        y = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"in_{number}")(x)
        x = layers.ReLU()(layers.Add()([x, layers.Conv2D(6, 3, padding="same", name=f"out_{number}")(y)]))
    model = tf.keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    found = scaled(quantize.convert(model), constant(10, 8, 8, 3))
    assert sorted(passage.channels for passage in found) == [4, 4, 6]
    [stream] = [passage for passage in found if passage.channels == 6]
    assert len(stream.read) == 3 and len(stream.made) == 6  # three kernels and their biases


def test_gates_and_norms_that_no_layer_took_up():
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(x)
    gate = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 6))(gate)])
    norm = layers.BatchNormalization()
    x = layers.ReLU()(norm(layers.Concatenate()([x, x])))
    model = tf.keras.Model(inputs, layers.Conv2D(5, 1)(x))
    norm.set_weights([1 + np.abs(constant(12, seed=each)) for each in range(4)])
    kinds = [passage.kind for passage in scaled(quantize.convert(model), constant(10, 8, 8, 3))]
    assert kinds == [tflite_scales.SCALE]


def test_a_shared_layer_stays_and_shared_constants_get_twins():
    shared = constant(8, 4, seed=3)

    def function(x):  # one beta for both; the kernel is one tensor in the file
        y = keras_2(x, constant(8), constant(8, seed=2))
        z = keras_2(2 * x, constant(8, seed=5), constant(8, seed=2))
        return y @ shared + x @ shared + z @ constant(8, 4, seed=6)

    file = written(function, 5, 8)
    [passage] = scaled(file, constant(20, 5, 8))
    operands = passage.moved(Plan(file), {}, np.full(8, 2.0))
    assert len(litert.tensors(rewrite.with_operands(file, operands))) == len(litert.tensors(file)) + 1


@pytest.mark.parametrize("name", ["MobileNet 3", "EfficientNet 2", "ConvNeXt", "U-Net"])
def test_architectures(name):
    model = architectures.build(name, tf.keras)
    [x] = architectures.samples(model, 2)
    scaled(quantize.convert(model), x)
