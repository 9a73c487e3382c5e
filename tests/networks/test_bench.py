"""The bench: disjoint parts, the same draws as written out by hand, and defaults."""

import numpy as np
import pytest
from PIL import Image

from helpers.base.errors import InputError
from helpers.networks import bench, data, models, training

ASKED = {
    "dataset": "fashion8k",
    "checkpoint": "cnn_fashion_28",
    "selection_share": 0.15,
    "seed": 5,
    "latency_rounds": 30,
}


@pytest.fixture(scope="module")
def work():
    return bench.prepare({**ASKED, "test_images": 50, "calibration_samples": 20})


def test_parts_are_disjoint_and_whole(work):
    parts = np.concatenate(list(work.parts.values()))
    assert sorted(parts) == list(range(len(work.images.x_train)))
    expected = training.split(work.images, selection=0.15, seed=5)
    assert all(np.array_equal(work.parts[name], expected[name]) for name in expected)


def test_what_the_model_takes(work):
    assert work.size == 28 and work.classes == work.images.classes and work.batch_size == 32
    assert work.x_test.shape == (50, 28, 28, 3) and work.calibration.shape == (20, 28, 28, 3)
    np.testing.assert_array_equal(work.x_test, models.network_input(work.images.x_test[:50], 28))
    np.testing.assert_array_equal(work.y_test, work.images.y_test[:50])
    np.testing.assert_array_equal(
        work.input(work.images.x_test[:2], size=32), models.network_input(work.images.x_test[:2], 32)
    )


def test_draws_are_those_of_the_seed(work):
    pool = models.network_input(work.images.x_train[work.parts["calibration"]], 28).numpy()
    np.testing.assert_array_equal(work.calibration, training.draw_calibration(pool, 20, 5))
    chosen = np.random.default_rng(5).permutation(work.parts["selection"])[:30]
    pictures, labels = work.selection(30)
    np.testing.assert_array_equal(pictures, work.images.x_train[chosen])
    np.testing.assert_array_equal(labels, work.images.y_train[chosen])


def test_batches_come_from_the_part_to_fit_on(work):
    expected = training.fine_tuning_batches(work.images, work.parts["fit"], 28, 3, 32, 7)
    for (ours, labels), (theirs, answers) in zip(work.batches(3, seed=7), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(labels, answers)


def test_all_test_images_by_default():
    whole = bench.prepare(ASKED)
    assert len(whole.x_test) == len(data.load("fashion8k").x_test) and len(whole.calibration) == 100


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"dataset": "nosuch"}, "dataset='nosuch' is unknown"),
        ({"checkpoint": "nosuch"}, "checkpoint='nosuch' does not exist"),
        ({"calibration_samples": 10**6}, "calibration_samples=1000000 must lie in"),
    ],
)
def test_what_cannot_be_had_is_named(changes, told):
    with pytest.raises(InputError, match=told):
        bench.prepare({**ASKED, **changes})


def test_the_first_test_images_of_a_folder_are_of_all_classes(tmp_path, monkeypatch):
    for name, colour in (("blue", "blue"), ("red", "red")):
        (tmp_path / name).mkdir()
        for number in range(50):
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{number}.png")
    images = data.load(tmp_path)
    order = bench._mixed(images.y_test)
    assert (np.diff(images.y_test) >= 0).all() and sorted(order) == list(range(20))
    assert 2 <= images.y_test[order][:10].sum() <= 8
    monkeypatch.setattr(bench, "_check_input", lambda *_: None)
    parts = dict.fromkeys(("fit", "selection", "calibration"), np.arange(80))
    monkeypatch.setattr(training, "split", lambda *_, **__: parts)
    layers = models.tf.keras.layers
    model = models.tf.keras.Sequential([layers.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    asked = {"dataset": str(tmp_path), "checkpoint": str(tmp_path / "model.keras"), "calibration_samples": 20}
    found = bench.prepare({**ASKED, **asked, "test_images": 10})
    np.testing.assert_array_equal(found.y_test, images.y_test[order][:10])
    assert ((found.x_test[:, 0, 0, 0] > 0) == (found.y_test == 1)).all()  # the red ones
    np.testing.assert_array_equal(bench._mixed(np.array([1, 0, 1])), [0, 1, 2])
    apart = np.repeat([2, 0, 1], 50)  # folders in another order than their classes
    assert set(apart[bench._mixed(apart)][:20]) == {0, 1, 2}


def test_a_model_that_takes_other_pictures_is_refused_and_the_cure_works(tmp_path, work):
    layers = models.tf.keras.layers
    model = work.model
    of_bytes = models.tf.keras.Sequential([layers.Input(model.input_shape[1:]), layers.Rescaling(1 / 127.5, -1), model])
    of_bytes.save(tmp_path / "bytes.keras")
    with pytest.raises(
        InputError, match=r"which is chance: the lab shows pictures from -1 to 1.*Rescaling\(127\.5, 127\.5\)"
    ):
        bench.prepare({**ASKED, "checkpoint": str(tmp_path / "bytes.keras")})
    cured = [layers.Input(model.input_shape[1:]), layers.Rescaling(127.5, 127.5), *of_bytes.layers]
    models.tf.keras.Sequential(cured).save(tmp_path / "cured.keras")
    bench.prepare({**ASKED, "checkpoint": str(tmp_path / "cured.keras")})
