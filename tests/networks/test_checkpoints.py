"""Checkpoints and their cards: written and read back, refused where they do not fit, and those of the repository."""

import json

import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import InputError
from helpers.networks import checkpoints, data, models


@pytest.fixture(scope="module")
def network():
    layers = tf.keras.layers
    x = inputs = layers.Input((32, 32, 3))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    return tf.keras.Model(inputs, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))


def test_checkpoint_round_trip(network, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    model = models.compile_classifier(models.copy(network))
    checkpoints.save(model, "small", {"top1_test": 0.1})
    loaded = checkpoints.load("small", size=32, classes=10)
    x = np.random.default_rng(0).normal(size=(20, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    assert checkpoints.card("small") == {"top1_test": 0.1}


def test_equal_weights_give_equal_bytes(network):
    assert checkpoints.packed(network) == checkpoints.packed(models.compile_classifier(models.copy(network)))


def test_a_recipe_names_its_network(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    recipe = checkpoints.Recipe("fashion8k", size=8, epochs=1, batch_size=128, model="resnet8")
    monkeypatch.setattr(checkpoints, "RECIPES", {"tiny": recipe})
    lines = []
    card = checkpoints.train("tiny", lines.append)
    assert (
        card["model"] == "ResNet-8 of MLPerf Tiny, 8 px, 10 classes, logits"
        and "scratch" in card["licence"]
        and card["seeds"] == 1
    )
    assert len(lines) == 1 and checkpoints.load("tiny", size=8, classes=10).name == "resnet8"


def test_checkpoints_that_do_not_fit(network, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    checkpoints.save(network, "small", {})
    with pytest.raises(InputError, match="size=32, not 96"):
        checkpoints.load("small", size=96)
    with pytest.raises(InputError, match="classes=10, not 5"):
        checkpoints.load("small", classes=5)
    with pytest.raises(InputError, match="'large' does not exist: there are small"):
        checkpoints.load("large")
    (tmp_path / "small.keras").write_bytes((tmp_path / "small.keras").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"small\.keras cannot be loaded"):
        checkpoints.load("small")
    with pytest.raises(InputError, match="has no recipe"):
        checkpoints.train("small")


@pytest.mark.parametrize("path", sorted(checkpoints.CHECKPOINTS.glob("*.keras")), ids=lambda path: path.stem)
def test_committed_checkpoints_have_cards_that_hold(path):
    card = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size < 2e6 and card["licence"]
    if card["data"]["name"] == "fashion_mnist":
        fashion = data.load("fashion8k")
        hits = models.correct(checkpoints.load(path.stem), fashion.x_test[::8], fashion.y_test[::8])
        assert card["top1_test"]["value"] >= 0.9 and abs(hits.mean() - card["top1_test"]["value"]) < 0.04


def test_a_recipe_of_two_sizes_with_colours_smoothing_and_a_last_stage(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    recipe = checkpoints.Recipe(
        "fashion8k",
        16,
        2,
        batch_size=512,
        model="resnet8",
        calibration=0,
        colour=0.2,
        smoothing=0.1,
        smaller=(8, 1),
        finish=(1, 1e-4, 2),
    )
    assert recipe.stages() == [(8, 1), (16, 1)]
    monkeypatch.setattr(checkpoints, "RECIPES", {"tiny": recipe})
    lines = []
    card = checkpoints.train("tiny", lines.append)
    assert [line.split(",")[0] for line in lines] == [f"tiny: epoch {each} of 3" for each in (1, 2, 3, 3)]
    assert card["data"]["trained_on"] == 3600 and checkpoints.load("tiny", size=16, classes=10)


def test_the_weights_of_several_last_stages_are_averaged():
    recipe = checkpoints.Recipe("fashion8k", 8, 1, batch_size=128, model="resnet8", finish=(1, 1e-3, 2))
    images, labels = data.load("fashion8k").x_train[:256], data.load("fashion8k").y_train[:256]
    model = checkpoints.NETWORKS["resnet8"][0](8, 10)
    start, found = model.get_weights(), []
    checkpoints.finish(model, recipe, images, labels, lambda epoch, logs: found.append(model.get_weights()))
    assert len(found) == 2 and any((one != other).any() for one, other in zip(*found, strict=True))
    for before, one, other, mean in zip(start, *found, model.get_weights(), strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, rtol=1e-6)
        assert before.shape == mean.shape


def test_a_file_of_keras_3_becomes_a_model_of_keras_2(tmp_path):
    import keras

    source = keras.Input((12, 12, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(source))
    model = keras.Model(source, keras.layers.Dense(5)(pooled))
    model.save(tmp_path / "own.keras")
    found = checkpoints.load(tmp_path / "own.keras", size=12, classes=5)
    assert isinstance(found, tf.keras.Model)
    x = np.random.default_rng(0).normal(size=(6, 12, 12, 3)).astype("float32")
    np.testing.assert_allclose(found(x), keras.ops.convert_to_numpy(model(x)), atol=1e-5)
