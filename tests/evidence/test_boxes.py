"""Boxes: read in every form, matched, and their average precision beside COCO's own."""

import numpy as np
import pytest

from helpers.evidence import boxes, stats

COCO = 0.3508417007758895


def scenes(n=60):
    """True boxes (n, 4, 5) of three classes, and what a poor detector finds."""
    random = np.random.default_rng(0)
    true, found = np.full((n, 4, 5), -1.0), []
    for place in range(n):
        number = random.integers(1, 4)
        low = random.uniform(0, 50, (number, 2))
        true[place, :number, 0] = random.integers(0, 3, number)
        true[place, :number, 1:] = np.hstack([low, low + random.uniform(10, 20, (number, 2))])
        seen = random.integers(0, number, random.integers(0, 6))
        seen_at = true[place, seen, 1:] + random.normal(0, 2.0, (len(seen), 4))
        classes = np.where(random.random(len(seen)) < 0.8, true[place, seen, 0], random.integers(0, 3, len(seen)))
        found.append(boxes.Found(seen_at, classes.astype(int), np.sort(random.random(len(seen)))[::-1]))
    return true, found


def test_average_precision_is_cocos():
    """The same scenes through pycocotools 2.0.11 (COCOeval, bbox, overlap of 0.5, all areas, 100 boxes)."""
    true, found = scenes()
    assert boxes.average_precision(found, true).of(np.ones((1, 60)))[0] == pytest.approx(COCO, abs=1e-9)


def test_a_repeated_image_counts_twice():
    true, found = scenes(20)
    weights = np.ones((1, 20))
    weights[0, :5] = 2
    twice = boxes.average_precision([*found, *found[:5]], np.concatenate([true, true[:5]]))
    once = boxes.average_precision(found, true)
    assert once.of(weights)[0] == pytest.approx(twice.of(np.ones((1, 25)))[0], abs=0.01)  # ties lie in another order
    assert len(once[np.arange(20) < 7]) == 7


def test_what_is_right_everywhere_has_a_precision_of_one():
    true, _ = scenes()
    found = [
        boxes.Found(row[row[:, 0] >= 0, 1:], row[row[:, 0] >= 0, 0].astype(int), np.ones((row[:, 0] >= 0).sum()))
        for row in true
    ]
    assert stats.score(boxes.average_precision(found, true)).value == 1


def test_a_box_is_the_same_in_every_form():
    corners = np.array([[10.0, 20.0, 30.0, 60.0]])
    forms = {"xyxy": corners, "yxyx": [[20, 10, 60, 30]], "xywh": [[10, 20, 20, 40]], "cxcywh": [[20, 40, 20, 40]]}
    assert set(forms) == set(boxes.FORMS)
    for form, told in forms.items():
        assert boxes.corners(told, form) == pytest.approx(corners)


def test_boxes_of_one_class_that_overlap_are_one():
    corners = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], float)
    found = boxes.best(corners, np.array([[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]]))
    assert found.scores[:3].tolist() == [0.9, 0.7, 0.3]  # 0.8 is the first box again, 0.7 of another class


def test_what_several_classes_share_is_suppressed_class_by_class():
    """Beside the plain way, which compares every candidate with every other one."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 50, (40, 2))
    corners, scores = np.hstack([low, low + random.uniform(5, 30, (40, 2))]), random.random((40, 5)).round(1)
    expected = []
    for place in np.argsort(-scores, axis=None, kind="stable"):
        anchor, kind = divmod(int(place), 5)
        same = [corners[other] for other, of in expected if of == kind]
        if len(expected) < boxes.MOST and (not same or (boxes.overlap(corners[[anchor]], np.array(same)) <= 0.5).all()):
            expected.append((anchor, kind))
    found = boxes.best(corners, scores)
    assert (found.boxes == corners[[anchor for anchor, _ in expected]]).all()
    assert found.classes.tolist() == [kind for _, kind in expected]
