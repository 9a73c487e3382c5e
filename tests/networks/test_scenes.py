"""Scenes: the same for the same seed, boxes tight, hardly any overlap, every picture used in turn, and what is refused."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.networks import data, scenes


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k")


def squares(n=10, side=28, value=255):
    images = np.zeros((n, side, side), np.uint8)
    images[:, 4:-4, 8:-8] = value
    return images, np.arange(n) % 3


def test_the_same_seed_gives_the_same_scenes(digits):
    one, again, other = (scenes.scenes(digits.x_train, digits.y_train, 30, seed) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, again, strict=True)) and (one[0] != other[0]).any()
    assert one[0].shape == (30, 64, 64, 1) and one[0].dtype == np.float32
    assert one[0].min() == -1 and 0.9 < one[0].max() <= 1


def test_labels_are_classes_and_boxes_with_the_rest_filled_up(digits):
    _, y = scenes.scenes(digits.x_train, digits.y_train, 200, seed=0, most=3)
    there = y[..., 0] >= 0
    assert y.shape == (200, 3, 5) and (y[~there] == -1).all()
    assert (there[:, :-1] | ~there[:, 1:]).all()  # what is there comes first
    assert set(there.sum(axis=1)) == {1, 2, 3} and set(y[there][:, 0]) == set(range(10))
    assert y[there][:, 1:].min() >= 0 and y[there][:, 1:].max() <= 1
    longer = 64 * (y[there][:, 3:] - y[there][:, 1:3]).max(axis=1)
    assert longer.min() > 12 and longer.max() <= 32


def test_a_box_is_tight_around_what_is_visible(digits):
    x, y = scenes.scenes(digits.x_train, digits.y_train, 50, seed=0, most=1)
    for picture, [row] in zip(x[..., 0], y, strict=True):
        bright = (picture + 1) * 127.5 >= scenes.VISIBLE - 0.5
        rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
        assert (row[1:] * 64).tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_boxes_hardly_overlap(digits):
    _, y = scenes.scenes(digits.x_train, digits.y_train, 200, seed=0, most=6)
    for row in y:
        boxes = row[row[:, 0] >= 0, 1:]
        for place, one in enumerate(boxes):
            for other in boxes[:place]:
                sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
                assert sides.prod() <= 0.1001 * min(np.prod(each[2:] - each[:2]) for each in (one, other))


def test_every_picture_is_shown_before_one_is_shown_again():
    images, _ = squares(40)
    _, y = scenes.scenes(images, np.arange(40), 80, seed=0, most=1)
    shown = y[:, 0, 0]
    assert set(shown[:40]) == set(shown[40:]) == set(range(40)) and (shown[:40] != shown[40:]).any()


def test_a_thing_keeps_its_shape_and_brightness():
    x, y = scenes.scenes(*squares(value=200), 30, seed=0, most=1)
    sides = 64 * (y[:, 0, 3:] - y[:, 0, 1:3])
    assert sides[:, 0] / sides[:, 1] == pytest.approx(0.6, abs=0.05)  # 12 by 20 pixels
    assert x.max() == pytest.approx(200 / 127.5 - 1)


def test_what_makes_no_scenes_is_refused():
    images, labels = squares()
    for wrong, message in (
        ((images.astype(float), labels, 1, 0), "images is float64"),
        ((np.zeros((2, 8, 8, 3), np.uint8), labels[:2], 1, 0), r"\(2, 8, 8, 3\): give grey ones"),
        ((np.concatenate([images, images[:1] * 0]), np.zeros(11, int), 1, 0), "1 without a pixel of 128 or more"),
        ((images, labels[:3], 1, 0), "labels has 3"),
        ((images, labels, 0, 0), "number=0"),
    ):
        with pytest.raises(InputError, match=message):
            scenes.scenes(*wrong)
    bright = images.reshape(10, -1).max(axis=1) >= 128
    assert len(scenes.scenes(images[bright], labels[bright], 2, 0)[0]) == 2
