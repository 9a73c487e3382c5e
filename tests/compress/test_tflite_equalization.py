"""Channels of a file equalized and cleared: the same function, ranges that suit one scale, and what cannot be done is refused."""

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, quantize, requantize, tflite_equalization, tflite_scales
from helpers.compress.tflite_plan import Plan
from helpers.tflite import litert
from tests import architectures

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
PER_TENSOR = {requantize.EVERYTHING: requantize.Format(per_channel=False)}
X = np.random.default_rng(0).normal(size=(60, 12, 12, 3)).astype("float32")
APART = 2.0 ** np.linspace(-4, 4, 16).round()


def inverted(activation, spread=None):
    """A stem, an inverted residual block and a head; with `spread` the channels of its layers lie apart."""
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(16, 1, name="expand")(x)
    y = layers.Activation(activation)(y)
    y = layers.Activation(activation)(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y))
    x = layers.Add()([x, layers.Conv2D(8, 1, name="project")(y)])
    x = layers.Activation(activation)(layers.Conv2D(24, 1, name="head")(x))
    model = tf.keras.Model(inputs, layers.Dense(5, name="answer")(layers.GlobalAveragePooling2D()(x)))
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, np.random.default_rng(1).normal(0, 0.3, bias.shape)])
    if spread is not None:
        stream = 2.0 ** np.linspace(-3, 3, 8).round()
        for name in ("stem", "project"):
            kernel, bias = model.get_layer(name).get_weights()
            model.get_layer(name).set_weights([kernel * stream, bias * stream])
        for name in ("expand", "head"):
            kernel, bias = model.get_layer(name).get_weights()
            model.get_layer(name).set_weights([kernel / stream[:, None], bias])
        kernel, bias = model.get_layer("expand").get_weights()
        model.get_layer("expand").set_weights([kernel * spread, bias * spread])
        kernel, bias = model.get_layer("depthwise").get_weights()
        model.get_layer("depthwise").set_weights([kernel / spread[:, None], bias])
    return model


def noise(file, x=X):
    """SQNR, in dB, of the file with one scale a kernel, of how its answers differ from sample to sample."""
    quantized = requantize.apply(file, PER_TENSOR, requantize.calibrate(file, x))
    exact, rough = litert.predict(file, x), litert.predict(quantized, x)
    return affine.sqnr(exact - exact.mean(0), rough - exact.mean(0))


# --- equalized


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu"])
@pytest.mark.parametrize("capped", [False, True])
def test_the_function_stays_bit_for_bit(activation, capped):
    file = quantize.convert(inverted(tf.nn.leaky_relu if activation == "leaky_relu" else activation, APART))
    changed, table = tflite_equalization.equalize(file, capped=capped)
    for x in (X, 20 * X):  # the second reaches caps
        np.testing.assert_array_equal(litert.predict(changed, x), litert.predict(file, x))
    assert (
        len(table) and (table.factor <= 1).all() and np.array_equal(table.factor, 2.0 ** np.log2(table.factor).round())
    )
    assert ("MINIMUM" in set(litert.operators(changed).op)) == (activation == "relu6" and capped)


@pytest.mark.parametrize("activation, capped", [("relu", False), ("relu6", True)])
def test_ranges_are_shared_and_one_scale_suffices(activation, capped):
    file = quantize.convert(inverted(activation, APART))
    changed, _ = tflite_equalization.equalize(file, capped=capped)
    plan = Plan(changed)
    for passage in tflite_scales.passages(plan):
        sides = [passage.making(plan, {}), passage.reading(plan, {})]
        before, behind = (np.max([each / each.max() for each in kernels], axis=0) for kernels in sides)
        ratio = before / behind
        assert ratio.max() / ratio.min() < 4.1  # each within a factor of 2 of where it belongs, rounding included
    assert noise(changed) > noise(file) + 5


def test_a_relu6_lets_no_factor_through_but_with_its_cap():
    file = quantize.convert(inverted("relu6", APART))
    plain, capped = (set(tflite_equalization.equalize(file, capped=each)[1].tensor) for each in (False, True))
    assert (
        len(plain) == 1 and len(capped) == 4
    )  # beside the stream, what is expanded, what the depthwise layer makes, and the head


def test_through_swish_with_a_gate():
    file = quantize.convert(inverted("swish", APART))
    found = [tflite_equalization.equalize(file, gated=gated) for gated in (False, True)]
    assert [table.tensor.nunique() for _, table in found] == [1, 4]
    for changed, _ in found:
        for x in (X, 20 * X):
            np.testing.assert_array_equal(litert.predict(changed, x), litert.predict(file, x))
    assert noise(found[1][0]) > noise(file) + 3


@pytest.mark.parametrize("name", ["MobileNet 1", "MobileNet 3", "U-Net"])
def test_architectures(name):
    model = architectures.build(name, tf.keras)
    file, [x] = quantize.convert(model), architectures.samples(model, 4)
    try:
        changed, _ = tflite_equalization.equalize(file, capped=True, gated=True)
    except StructureError as why:
        assert "nothing to equalize" in str(why)
        return
    np.testing.assert_array_equal(litert.predict(changed, x), litert.predict(file, x))


@pytest.mark.parametrize("activation, passing", [("relu", {}), ("relu6", {"capped": True}), ("swish", {"gated": True})])
def test_with_samples_the_noise_counts_and_not_the_ranges(activation, passing):
    file = quantize.convert(inverted(activation, APART))
    alike, _ = tflite_equalization.equalize(file, **passing)
    least, _ = tflite_equalization.equalize(file, X[:30], **passing)
    for x in (X, 20 * X):
        np.testing.assert_array_equal(litert.predict(least, x), litert.predict(file, x))
    assert noise(least) > noise(file) + 5 and noise(least) > noise(alike) - 2


# --- cleared


def with_constant_channels():
    """A network with a channel of its stem that weight decay emptied, one of a later layer that cannot rise above 0, and one that is
    always 2, each read by a large weight that was never trained."""
    model = inverted("relu6")
    kernel, bias = model.get_layer("expand").get_weights()
    kernel[..., 3], bias[3] = 1e-12, -1.0
    kernel[..., 5], bias[5] = 0, 2.0
    model.get_layer("expand").set_weights([kernel, bias])
    kernel, bias = model.get_layer("depthwise").get_weights()
    kernel[:, :, 3] = 100  # reads the first
    kernel[:, :, 5] = 0
    bias[5] = 2.0
    kernel[:, :, 7], bias[7] = -np.abs(kernel[:, :, 7]), -1.0
    model.get_layer("depthwise").set_weights([kernel, bias])
    kernel, bias = model.get_layer("project").get_weights()
    kernel[:, :, 5], kernel[:, :, 7] = 3, 50
    model.get_layer("project").set_weights([kernel, bias])
    return quantize.convert(model)


def test_what_reads_a_constant_channel_is_cleared():
    file = with_constant_channels()
    cleared, table = tflite_equalization.clear_constant(file)
    for x in (X, 20 * X):
        exact = litert.predict(file, x)
        np.testing.assert_allclose(litert.predict(cleared, x), exact, atol=2e-6 * np.abs(exact).max())
    told = sorted((row.channel, round(row.value, 6)) for row in table.itertuples())
    # The first is not read; its depthwise kernel is empty then, and what its bias makes goes on as a constant, as far as it is one.
    assert {(3, 0.0), (5, 2.0), (7, 0.0)} <= set(told)
    assert noise(cleared) > noise(file) + 10


@pytest.mark.parametrize("pooling", ["MaxPooling2D", "AveragePooling2D"])
@pytest.mark.parametrize("cap", [None, 6.0])
def test_an_activation_in_a_pooling_is_part_of_what_a_channel_is(pooling, cap):
    layers = tf.keras.layers
    runtime_env.seed_everything(0)
    source = layers.Input((12, 12, 3))
    x = layers.ReLU(cap)(getattr(layers, pooling)()(layers.Conv2D(8, 3, name="made")(source)))
    model = tf.keras.Model(source, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))))
    kernel, bias = model.get_layer("made").get_weights()
    kernel[..., 2], bias[2], kernel[..., 5], bias[5] = 0, -0.7, 0, 9
    model.get_layer("made").set_weights([kernel, bias])
    file, x = quantize.convert(model), np.random.default_rng(0).normal(size=(9, 12, 12, 3)).astype("float32")
    assert not {"RELU", "RELU6"} & set(litert.operators(file).op)
    cleared, table = tflite_equalization.clear_constant(file)
    assert dict(zip(table.channel, table.value, strict=True)) == {2: 0, 5: 6 if cap else 9}
    np.testing.assert_allclose(litert.predict(cleared, x), litert.predict(file, x), atol=1e-5)


def test_a_border_sees_less_of_a_constant_channel_so_it_stays():
    """A depthwise layer with padding reads a channel that is always 2: nine times inside, four times in a corner."""
    model = inverted("relu6")
    kernel, bias = model.get_layer("expand").get_weights()
    kernel[..., 5], bias[5] = 0, 2.0
    model.get_layer("expand").set_weights([kernel, bias])
    file = quantize.convert(model)
    cleared, table = tflite_equalization.clear_constant(file)
    assert cleared == file and not len(table)


@pytest.mark.parametrize("activation", ["swish", "tanh", "elu", tf.nn.relu6])
def test_a_dead_channel_is_found_behind_any_activation_and_a_gate(activation):
    """As in EfficientNet: swish is a product with a sigmoid, and squeeze-and-excite one with a gate for each channel."""
    runtime_env.seed_everything(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation=activation, name="expand")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(layers.Conv2D(4, 1, activation="swish")(gate))
    x = layers.Conv2D(8, 3, name="project")(layers.Multiply()([x, gate]))
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    kernel, bias = model.get_layer("expand").get_weights()
    kernel[..., 3] = kernel[..., 5] = 0
    bias[5] = 0.7
    model.get_layer("expand").set_weights([kernel, bias])
    kernel, bias = model.get_layer("project").get_weights()
    kernel[:, :, 3] *= 100
    model.get_layer("project").set_weights([kernel, bias])
    file = quantize.convert(model)
    cleared, table = tflite_equalization.clear_constant(file)
    for x in (X, 20 * X):
        exact = litert.predict(file, x)
        np.testing.assert_allclose(litert.predict(cleared, x), exact, atol=2e-6 * np.abs(exact).max())
    # Both channels are read by the gate's first layer; behind the gate one is still 0, the other one changes with it.
    assert sorted(table["channel"]) == [3, 3, 5] and (table["value"][table["channel"] == 5] > 0.4).all()
    assert noise(cleared) > noise(file) + 10


def test_a_channel_that_is_nearly_constant_stays():
    model = inverted("relu")
    kernel, bias = model.get_layer("expand").get_weights()
    kernel[..., 3] *= 1e-3  # small, not nothing
    bias[3] = -1.0
    model.get_layer("expand").set_weights([kernel, bias])
    file = quantize.convert(model)
    cleared, table = tflite_equalization.clear_constant(file)
    assert cleared == file and not len(table)


# --- refused


def test_what_is_refused():
    file = quantize.convert(inverted("relu"))
    quantized = requantize.apply(file, PER_TENSOR, requantize.calibrate(file, X))
    for refuse in (tflite_equalization.equalize, tflite_equalization.clear_constant):
        with pytest.raises(InputError, match="quantized already: give the float32"):
            refuse(quantized)
    inputs = layers.Input((12, 12, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="swish")(inputs))
    with pytest.raises(StructureError, match=r"nothing to equalize\. Quantize it per-channel"):
        tflite_equalization.equalize(quantize.convert(tf.keras.Model(inputs, layers.Dense(3)(x))))
