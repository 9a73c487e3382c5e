"""A detector without anchors: targets that its heads read back, heads that compute the same, and what eight bits make of them."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.networks import checkpoints, data, detector, scenes


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k")


@pytest.fixture(scope="module")
def trained():
    return checkpoints.load("detector_digits_64", size=64, classes=10)


def perfect(wanted):
    """A model that puts out what is wanted, whatever it sees: offsets and certain logits, by the number of the scene."""
    offsets, logits = wanted[0][..., :4], 20.0 * wanted[1] - 10
    inputs = tf.keras.layers.Input((64, 64, 1))
    place = tf.cast(tf.round(inputs[:, 0, 0, 0]), tf.int32)
    return tf.keras.Model(inputs, [tf.gather(tf.constant(each, tf.float32), place) for each in (offsets, logits)])


def test_what_is_wanted_is_read_back_as_the_labels(digits):
    """From boxes to cells and back: a model that answers with its targets finds everything, in every form."""
    _, y = scenes.scenes(digits.x_test, digits.y_test, 100, seed=0)
    numbers = np.zeros((100, 64, 64, 1), np.float32) + np.arange(100, dtype=np.float32)[:, None, None, None]
    model = perfect(detector.targets(y, 8, 10))
    unit, pixels = (detector.with_head(model, head)(numbers).numpy() for head in ("unit", "pixels"))
    centres = (y[..., 1:3] + y[..., 3:]) / 2
    cells = np.where(y[..., :1] >= 0, np.floor(centres * 8), -np.arange(4)[None, :, None] - 1)
    alone = np.array([len(np.unique(row, axis=0)) == len(row) for row in cells])  # two in one cell cannot both be told
    assert alone.sum() > 90
    assert stats.score(detector.precision(unit[alone], y[alone])).value == 1
    assert stats.score(detector.precision(pixels[alone], detector.labels(y)[alone])).value == 1
    boxes, scores = (each.numpy() for each in detector.with_head(model, "apart")(numbers))
    np.testing.assert_array_equal(np.concatenate([boxes, scores], axis=-1), unit)
    np.testing.assert_allclose(pixels[..., :4], 640 * unit[..., :4], rtol=1e-6)


def test_targets_by_hand():
    y = np.array([[[2, 0.25, 0.5, 0.5, 1.0], [-1] * 5]], np.float32)
    corners, seen = detector.targets(y, 4, 3)
    assert corners[0, 3, 1].tolist() == [-0.5, -1.5, 0.5, 0.5, 1] and corners[..., 4].sum() == 1
    assert seen[0, 3, 1].tolist() == [0, 0, 1] and seen.sum() == 1


def test_labels_in_pixels_leave_what_fills_up():
    y = np.array([[[2, 0.25, 0.5, 0.5, 1.0], [-1] * 5]], np.float32)
    assert detector.labels(y).tolist() == [[[2, 160, 320, 320, 640], [-1] * 5]]
    assert detector.labels(y, 64)[0, 0].tolist() == [2, 16, 32, 32, 64]


def test_training_on_one_scene_learns_it():
    y = np.array([[[2, 0.25, 0.5, 0.5, 1.0], [-1] * 5]], np.float32)
    corners, seen = detector.targets(y, 4, 3)
    runtime_env.seed_everything(0)
    model = detector.network(32, 3)
    assert [each.shape[1:] for each in model.outputs] == [(4, 4, 4), (4, 4, 3)]
    model.compile(tf.keras.optimizers.Adam(0.01), loss=detector.LOSSES)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 1)).astype("float32")
    before = model.evaluate(x, [corners, seen], verbose=0)[0]
    model.fit(x, [corners, seen], epochs=150, verbose=0)
    logits = model(x, training=True)[1].numpy()[0]
    assert (
        before > 2
        and model.evaluate(x, [corners, seen], verbose=0)[0] < before / 2
        and np.unravel_index(logits.argmax(), logits.shape) == (3, 1, 2)
    )
    assert model(x, training=True)[0].numpy()[0, 3, 1] == pytest.approx([-0.5, -1.5, 0.5, 0.5], abs=0.4)


def test_training_learns_and_repeats():
    lines, recipe = [], detector.Recipe("mnist5k", epochs=2, scenes=192, batch_size=32, test_scenes=20)
    model, about = recipe.train(lines.append)
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert len(lines) == 2 and losses[1] < losses[0] and about["ap50_test"]["scenes"] == 20
    again, _ = recipe.train(lambda line: None)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_checkpoint_finds_what_its_card_says(digits, trained):
    x, y = scenes.scenes(digits.x_test, digits.y_test, 150, seed=5)
    found = stats.score(detector.precision(detector.with_head(trained, "unit").predict(x, verbose=0), y))
    told = checkpoints.card("detector_digits_64")["ap50_test"]
    assert found.value == pytest.approx(told["value"], abs=0.03) and told["value"] > 0.9


def test_another_size_or_head_is_refused():
    for size, classes in ((60, 3), (8, 3), (64, 0)):
        with pytest.raises(
            InputError, match=f"size={size} must be a multiple of 8, two or more, and classes={classes}"
        ):
            detector.network(size, classes)
    with pytest.raises(InputError, match="head='yolo' is unknown: choose one of pixels, unit, apart"):
        detector.with_head(detector.network(16, 1), "yolo")
