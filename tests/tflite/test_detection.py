"""Boxes: read in every form, matched, and their average precision beside COCO's own."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.tflite import detection
from helpers.tflite.detection import Detection

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
        boxes = true[place, seen, 1:] + random.normal(0, 2.0, (len(seen), 4))
        classes = np.where(random.random(len(seen)) < 0.8, true[place, seen, 0], random.integers(0, 3, len(seen)))
        found.append(detection.Found(boxes, classes.astype(int), np.sort(random.random(len(seen)))[::-1]))
    return true, found


def test_average_precision_is_cocos():
    """The same scenes through pycocotools 2.0.11 (COCOeval, bbox, overlap of 0.5, all areas, 100 boxes)."""
    true, found = scenes()
    assert detection.average_precision(found, true).of(np.ones((1, 60)))[0] == pytest.approx(COCO, abs=1e-9)


def test_a_repeated_image_counts_twice():
    true, found = scenes(20)
    weights = np.ones((1, 20))
    weights[0, :5] = 2
    twice = detection.average_precision([*found, *found[:5]], np.concatenate([true, true[:5]]))
    once = detection.average_precision(found, true)
    assert once.of(weights)[0] == pytest.approx(twice.of(np.ones((1, 25)))[0], abs=0.01)  # ties lie in another order
    assert len(once[np.arange(20) < 7]) == 7


def test_what_is_right_everywhere_has_a_precision_of_one():
    true, _ = scenes()
    found = [
        detection.Found(row[row[:, 0] >= 0, 1:], row[row[:, 0] >= 0, 0].astype(int), np.ones((row[:, 0] >= 0).sum()))
        for row in true
    ]
    assert stats.score(detection.average_precision(found, true)).value == 1


def test_a_box_is_the_same_in_every_form():
    corners = np.array([[10.0, 20.0, 30.0, 60.0]])
    forms = {"xyxy": corners, "yxyx": [[20, 10, 60, 30]], "xywh": [[10, 20, 20, 40]], "cxcywh": [[20, 40, 20, 40]]}
    assert set(forms) == set(detection.FORMS)
    for form, boxes in forms.items():
        assert detection.corners(boxes, form) == pytest.approx(corners)


def test_boxes_of_one_class_that_overlap_are_one():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], float)
    found = detection.best(boxes, np.array([[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]]))
    assert found.scores[:3].tolist() == [0.9, 0.7, 0.3]  # 0.8 is the first box again, 0.7 of another class


TRUE = np.array([[[1, 10, 20, 30, 60], [-1] * 5], [[0, 0, 0, 5, 5], [1, 40, 40, 60, 60]]], float)


def layouts():
    """The same boxes as five kinds of models put them out: name -> (task's settings, shapes, answers)."""
    boxes = np.array([[[10, 20, 30, 60], [1, 1, 2, 2]], [[0, 0, 5, 5], [40, 40, 60, 60]]], float)
    scores = np.array([[[0, 0.9, 0], [0.1, 0, 0]], [[0.8, 0, 0], [0, 0.7, 0]]])
    # Eight anchors, so that anchors are more than numbers a box.
    boxes, scores = (np.concatenate([of, np.zeros((2, 8, of.shape[2]))], axis=1) for of in (boxes, scores))
    middle = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], axis=-1)
    sure = np.ones((2, 10, 1))
    apart = {"output_1": scores, "boxes": boxes}
    yield "apart", {}, apart
    yield "apart, unnamed", {}, {"a": boxes, "b": scores}
    yield "together", {}, {"out": np.concatenate([boxes, scores], axis=-1)}
    yield "as YOLO 8", {"form": "cxcywh"}, {"out": np.concatenate([middle, scores], axis=-1).swapaxes(1, 2)}
    yield "as YOLO 5", {"form": "cxcywh", "objectness": True}, {"out": np.concatenate([middle, sure, scores], axis=-1)}


@pytest.mark.parametrize("name, settings, answers", list(layouts()), ids=[each[0] for each in layouts()])
def test_boxes_are_found_in_every_layout(name, settings, answers):
    task = Detection({each: of.shape[1:] for each, of in answers.items()}, **settings)
    assert task.misfit() is None
    truth = task.truth(TRUE, 2)
    assert task.classes == 3
    assert stats.score(task.scores(answers, truth)).value == 1
    assert stats.score(task.scores(answers, task.own(answers))).value == 1
    assert task.damage(answers, answers).tolist() == [0, 0]


def test_what_says_no_boxes_is_refused():
    task = Detection({"out": (10, 7)})
    for y, message in (
        (np.zeros((2, 5)), r"give \(2, boxes, 5\)"),
        (np.full((2, 1, 5), -1.0), "no box at all"),
        (np.array([[[0, 5, 5, 1, 1]]] * 2, float), "end before they begin: give x1, y1, x2, y2"),
        (np.array([[[7, 0, 0, 1, 1]]] * 2, float), "classes up to 7: the model has 3"),
    ):
        with pytest.raises(InputError, match=message):
            task.truth(y, 2)
    assert Detection({"out": (10,)}).misfit() and Detection({"a": (10, 4), "b": (9, 3)}).misfit()


def test_without_labels_what_the_model_is_sure_of_is_true():
    answers = dict(next(layouts())[2])
    truth = Detection({each: of.shape[1:] for each, of in answers.items()}).own(answers)
    assert truth[0, 0].tolist() == [1, 10, 20, 30, 60] and truth[0, 1, 0] == -1
