"""Outliers planted in a file and taken away again: the same function, another answer of int8, and a file without any is left alone."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, outliers, own_model, quantize, requantize, tflite_scales
from helpers.compress.tflite_plan import Plan
from helpers.networks import checkpoints, data, models
from helpers.tflite import inside, litert
from tests import architectures

layers = tf.keras.layers
INT8 = {requantize.EVERYTHING: requantize.Format()}


@pytest.fixture(scope="module")
def clothes():
    dataset = data.load("fashion8k")
    return tuple(models.network_input(part, 28).numpy() for part in (dataset.x_train[::80], dataset.x_test[::40]))


@pytest.fixture(scope="module")
def vit():
    return quantize.convert(checkpoints.load("vit_fashion_28"))


def constants(file):
    """What its operators read, in order."""
    plan = Plan(file)
    return [plan.constants[index] for node in plan.nodes for index in node.inputs if index in plan.constants]


def noise(file, samples, reference, x):
    """SQNR, in dB, of int8 against the float reference."""
    quantized = requantize.apply(file, INT8, requantize.calibrate(file, samples))
    return affine.sqnr(litert.predict(reference, x), litert.predict(quantized, x))


@pytest.fixture(scope="module")
def healthy(vit, clothes):
    """The SQNR of the file as it is."""
    return noise(vit, clothes[0], vit, clothes[1])


def exported(name, library, folder):
    """The float file of an architecture as the lab makes it, or as Keras 3 exports it by itself."""
    import keras

    model = architectures.build(name, tf.keras if library == "2" else keras)
    if library == "3, by itself":
        model.export(folder / "saved", verbose=False)
        file = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert()
    else:
        model.save(folder / "model.keras")
        file = own_model.load(folder / "model.keras").file
    return file, architectures.samples(model, 12)[0]


# --- planted


@pytest.mark.parametrize("name", ["ViT", "Mixer"])
@pytest.mark.parametrize("library", ["2", "3", "3, by itself"])
def test_the_function_stays(name, library, tmp_path):
    file, x = exported(name, library, tmp_path)
    planted, table = outliers.plant(file, 64)
    np.testing.assert_array_equal(litert.predict(planted, x), litert.predict(file, x))
    before, after = (inside.channel_maxima(each, x) for each in (file, planted))
    assert len(table) >= 2
    for tensor, rows in table.groupby("tensor"):
        factors = np.ones_like(before[tensor])
        factors[rows.channel] = 64
        np.testing.assert_allclose(after[tensor], factors * before[tensor], rtol=1e-6)
    back, _ = outliers.migrate(planted, x)
    np.testing.assert_array_equal(litert.predict(back, x), litert.predict(file, x))


def test_every_normalization_of_the_vit(vit, clothes):
    planted, table = outliers.plant(vit, 64)
    np.testing.assert_array_equal(litert.predict(planted, clothes[1]), litert.predict(vit, clothes[1]))
    assert table.groupby("tensor").size().to_dict() == dict.fromkeys(table.tensor.unique(), 2)
    blocks = [f"block_{number}_norm_{part}" for number in (1, 2, 3) for part in (1, 2)]
    assert [name.split("/")[1] for name in table.tensor.unique()] == [*blocks, "norm"]
    assert set(table.kind) == {"normalization"} and set(table.factor) == {64.0}


def test_channels_may_be_named(vit):
    _, table = outliers.plant(vit, 4, channels=[5, 40, 41])
    assert set(table.groupby("tensor").channel.apply(tuple)) == {(5, 40, 41)}


def test_outliers_break_int8_and_migration_mends_it(vit, clothes, healthy):
    samples, x = clothes
    planted, _ = outliers.plant(vit, 64)
    mended, table = outliers.migrate(planted, samples)
    broken, cured = (noise(file, samples, vit, x) for file in (planted, mended))
    assert broken < healthy - 10
    assert cured > healthy - 1
    np.testing.assert_array_equal(litert.predict(mended, x), litert.predict(vit, x))
    assert set(table.columns) == {"tensor", "kind", "channel", "factor"} and table.factor.min() <= 1 / 32


def test_what_was_planted_makes_no_difference_to_what_migration_leaves(vit, clothes):
    wanted = constants(outliers.migrate(vit, clothes[0])[0])
    for factor in (4, 256):
        found = constants(outliers.migrate(outliers.plant(vit, factor)[0], clothes[0])[0])
        assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


def test_a_file_without_outliers_is_nearly_left_alone(vit, clothes, healthy):
    samples, x = clothes
    moved, table = outliers.migrate(vit, samples)
    assert table.factor.between(1 / 8, 8).all()
    assert noise(moved, samples, vit, x) > healthy - 1


def test_layers_of_weights_are_balanced_too():
    """Channels that a network's training left 100 times apart, between convolutions and a ReLU."""
    tf.keras.utils.set_random_seed(0)
    x = inputs = layers.Input((10, 10, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="first")(x)
    x = layers.Conv2D(16, 3, activation="relu", name="second")(layers.DepthwiseConv2D(3, activation="relu")(x))
    model = tf.keras.Model(inputs, layers.Dense(5, name="answer")(layers.GlobalAveragePooling2D()(x)))
    apart = 2.0 ** np.linspace(-4, 4, 16).round()
    first, spread = model.get_layer("first"), model.layers[2]
    first.set_weights([each * apart for each in first.get_weights()])
    kernel, bias = spread.get_weights()
    spread.set_weights([kernel / apart[:, None], bias])
    file, x = quantize.convert(model), np.random.default_rng(0).normal(size=(60, 10, 10, 3)).astype("float32")
    mended, table = outliers.migrate(file, x)
    np.testing.assert_array_equal(litert.predict(mended, x), litert.predict(file, x))
    assert set(table.kind) == {"weights"} and any("first" in tensor for tensor in table.tensor)
    assert noise(mended, x, file, x) > noise(file, x, file, x) + 3


@pytest.mark.parametrize("strength, moves", [(0.0, "weights"), (1.0, "activations")])
def test_strength_says_which_side_decides(vit, clothes, strength, moves):
    mended, _ = outliers.migrate(outliers.plant(vit, 64)[0], clothes[0], strength)
    maxima = inside.channel_maxima(mended, clothes[0])
    plan = Plan(mended)
    for passage in tflite_scales.passages(plan):
        even = maxima[plan.names[passage.tensor]] if moves == "activations" else passage.largest_weights(plan, {})
        assert passage.kind != "normalization" or even.max() <= 2.01 * even.min()


# --- refused


def test_what_is_refused(vit, clothes):
    for factor in (0, -4, np.nan, np.inf):
        with pytest.raises(InputError, match="must be a finite number above 0, such as 64"):
            outliers.plant(vit, factor)
    assert len(outliers.plant(vit, 64)[1])
    for channels in (0, 65, [], [64], [-1]):
        with pytest.raises(InputError, match="channels="):
            outliers.plant(vit, 64, channels)
    with pytest.raises(InputError, match=r"strength=1.5 must lie in \[0, 1\]: 0.5 is usual"):
        outliers.migrate(vit, clothes[0], 1.5)
    with pytest.raises(InputError, match="samples do not fit"):
        outliers.migrate(vit, clothes[0][:, :20])
    quantized = requantize.apply(vit, INT8, requantize.calibrate(vit, clothes[0]))
    for refuse in (lambda: outliers.plant(quantized, 64), lambda: outliers.migrate(quantized, clothes[0])):
        with pytest.raises(InputError, match="quantized already: give the float32"):
            refuse()


def test_a_file_without_anything_to_move(clothes):
    inputs = layers.Input((28, 28, 3))
    x = layers.Conv2D(4, 3, activation="swish", name="only")(inputs)
    file = quantize.convert(tf.keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    with pytest.raises(StructureError, match="no normalization that only dense layers and convolutions read"):
        outliers.plant(file, 64)
    with pytest.raises(StructureError, match="keep its sensitive layers in float instead"):
        outliers.migrate(file, clothes[0])
    instead = {**INT8, litert.weight_layers(file)["name"][0]: None}  # the cure
    assert len(litert.kernels_in(requantize.apply(file, instead, requantize.calibrate(file, clothes[0])))) == 1
