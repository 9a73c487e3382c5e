"""What channels reach inside a file: as NumPy finds it, in batches or one by one, and not for samples that do not fit."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.tflite import inside, litert

layers = tf.keras.layers
X = np.random.default_rng(0).normal(size=(30, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def network():
    runtime_env.seed_everything(0)
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="first")(inputs)
    return tf.keras.Model(inputs, layers.Dense(4, name="answer")(layers.GlobalAveragePooling2D(name="mean")(x)))


def made(network, name, x):
    return tf.keras.Model(network.input, network.get_layer(name).output)(x).numpy()


def test_every_channel_of_every_tensor(network):
    found = inside.channel_maxima(quantize.convert(network), X)
    assert len(found) == 4  # the input, and what three operators make
    for maxima, wanted in zip(
        found.values(), (X, *(made(network, name, X) for name in ("first", "mean", "answer"))), strict=True
    ):
        np.testing.assert_allclose(maxima, np.abs(wanted).reshape(-1, wanted.shape[-1]).max(0), rtol=1e-5)


def test_the_power_of_every_channel(network, monkeypatch):
    file, wanted = quantize.convert(network), made(network, "first", X)
    monkeypatch.setattr(litert, "KEPT_BYTES", 10_000)
    found = list(inside.channel_powers(file, X).values())
    np.testing.assert_allclose(found[1], (wanted.astype(float) ** 2).mean((0, 1, 2)), rtol=1e-4)


def test_parts_are_put_together_and_indices_name_the_same(network, monkeypatch):
    file = quantize.convert(network)
    whole = inside.channel_maxima(file, X)
    monkeypatch.setattr(litert, "KEPT_BYTES", 10_000)
    assert litert.at_once(file, {"x": X}) < 10
    for name, maxima in inside.channel_maxima(file, {"input": X}).items():
        np.testing.assert_allclose(maxima, whole[name], rtol=1e-6)
    for maxima, wanted in zip(inside.maxima_by_index(file, X).values(), whole.values(), strict=True):
        np.testing.assert_allclose(maxima, wanted, rtol=1e-6)


def test_a_file_for_one_sample_sees_all():
    function = tf.function(lambda x: tf.reshape(x, (1, 12)) * 2.0)
    frozen = function.get_concrete_function(tf.TensorSpec((1, 3, 4)))
    file = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()
    x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype("float32")
    *_, last = inside.channel_maxima(file, x).values()
    np.testing.assert_allclose(last, np.abs(2 * x.reshape(7, 12)).max(0), rtol=1e-6)


def test_products_of_channels_go_where_dense_layers_read():
    inputs = layers.Input((5, 12))
    model = tf.keras.Model(inputs, layers.Dense(3)(layers.Dense(6, activation="relu")(layers.Reshape((10, 6))(inputs))))
    x = np.random.default_rng(0).normal(size=(20, 5, 12)).astype("float32")
    first = x.reshape(-1, 6).astype(float)
    second = model.layers[2](x.reshape(20, 10, 6)).numpy().reshape(-1, 6).astype(float)
    file = quantize.convert(model)
    found = inside.channel_products(file, x)
    for rows in (first, second):
        assert any(np.allclose(each, rows.T @ rows / len(rows), rtol=1e-4, atol=1e-5) for each in found.values())
    # What is only moved on its way to a dense layer has that layer's.
    *_, asked = (name for name in inside.channel_maxima(file, x) if name in found)
    assert len(found) > 2 and found[asked].shape == (6, 6)


def test_a_file_for_one_sample_says_every_size():
    inputs = layers.Input((7, 8))
    file = quantize.convert(tf.keras.Model(inputs, layers.Dense(3)(layers.Dense(4)(inputs))))
    x = np.random.default_rng(0).normal(size=(9, 7, 8)).astype("float32")
    single = inside.for_one_sample(file, x)
    assert (litert.predict(single, x) == litert.predict(file, x)).all()
    made = litert.tensors(single).query("not constant and dtype == 'float32'")["shape"].map(np.prod)
    assert (
        set(made) <= {7 * 8, 7 * 4, 7 * 3}
        and not (litert.interpreter(single).get_input_details()[0]["shape_signature"] < 0).any()
    )


def test_several_inputs_and_whole_numbers():
    left, right = layers.Input((4,), name="left"), layers.Input((6,), name="right", dtype="int32")
    table = layers.Embedding(10, 4)
    model = tf.keras.Model([left, right], layers.Add(name="sum")([left, layers.GlobalAveragePooling1D()(table(right))]))
    random = np.random.default_rng(0)
    x = {"left": random.normal(size=(9, 4)).astype("float32"), "right": random.integers(0, 10, (9, 6)).astype("int32")}
    found = inside.channel_maxima(quantize.convert(model), x)
    assert not any("right" in name for name in found)  # tokens are no real numbers
    *_, last = found.values()
    np.testing.assert_allclose(last, np.abs(model([x["left"], x["right"]]).numpy()).max(0), rtol=1e-5)


def test_integers_with_a_scale_are_real_numbers(network):
    found = inside.channel_maxima(quantize.convert(network, "int8", X), X)
    whole = inside.channel_maxima(quantize.convert(network), X)
    *_, answers = found.values()
    *_, wanted = whole.values()
    np.testing.assert_allclose(answers, wanted, atol=0.05 * wanted.max())


def test_samples_that_do_not_fit_are_refused(network):
    file = quantize.convert(network)
    with pytest.raises(InputError, match="samples do not fit the model"):
        inside.channel_maxima(file, X[:, :5])
    with pytest.raises(InputError, match="hold NaN or infinity: give clean samples"):
        inside.channel_maxima(file, np.full_like(X, np.nan))
    with pytest.raises(InputError, match="are empty"):
        inside.channel_maxima(file, X[:0])
    assert inside.channel_maxima(file, X[:1])
