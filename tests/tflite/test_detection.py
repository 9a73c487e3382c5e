"""The task of detectors: boxes and scores in every layout, and labels that are refused."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.tflite.detection import Detection

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
