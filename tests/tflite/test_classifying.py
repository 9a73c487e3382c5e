"""Tasks whose answers are classes: right scores, labels in every form, and a cure in every refusal that works."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.tflite import classifying
from helpers.tflite.classifying import Binary, Classification, MultiLabel, Segmentation, divergence


def test_a_class_is_the_largest_output():
    task = Classification({"out": (3,)})
    answers = {"out": np.array([[0, 1, 2], [5, 1, 2], [0, 9, 2]], "float32")}
    assert task.scores(answers, task.truth([[2], [1], [1]], 3)).tolist() == [True, False, True]
    assert task.same(answers, {"out": -answers["out"]}).tolist() == [False, False, False]
    assert (
        task.misfit() is None
        and Classification({"out": (1,)}).misfit()
        and Classification({"a": (3,), "b": (3,)}).misfit()
    )


def test_divergence_is_that_of_the_softmax():
    logits, other = np.array([[0.0, 1.0, 2.0]]), np.array([[1.0, 1.0, 1.0]])
    p = np.exp(logits) / np.exp(logits).sum()
    wanted = float((p * (np.log(p) - np.log(1 / 3))).sum())
    assert divergence(logits, other)[0] == pytest.approx(wanted)
    assert divergence(p, np.full((1, 3), 1 / 3))[0] == pytest.approx(wanted)
    assert divergence(logits, logits)[0] == 0


@pytest.mark.parametrize("answers, threshold", [([[0.2], [0.6], [0.9]], 0.5), ([[-3.0], [0.1], [4.0]], 0.0)])
def test_yes_or_no_is_read_from_probabilities_and_from_logits(answers, threshold):
    task, answers = Binary({"out": (1,)}), {"out": np.array(answers, "float32")}
    truth = task.truth(np.array([0, 1, 0]), 3)
    task = task.settled(answers, truth)
    assert task.threshold == threshold
    assert task.scores(answers, truth).tolist() == [True, True, False]
    assert task.groups(truth).tolist() == [0, 1, 0]


def test_a_candidate_is_judged_by_the_baselines_threshold():
    """All of its logits lie in [0, 1] by chance; they stay logits."""
    baseline, candidate = ({"out": np.array(each, "float32")[:, None]} for each in ([-2, 3, 1], [0.2, 0.4, 0.9]))
    task = Binary({"out": (1,)}).settled(baseline, None)
    assert task.scores(candidate, np.array([False, True, True])).tolist() == [False, True, True]


def test_divergence_of_yes_or_no_is_the_same_for_probabilities_and_logits():
    logits = [np.array([[-1.0], [2.0]]), np.array([[0.5], [1.0]])]
    chances = [1 / (1 + np.exp(-each)) for each in logits]
    p, q = (each[:, 0] for each in chances)
    wanted = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    for exact, found in (logits, chances):
        assert Binary({"out": (1,)}).damage({"out": exact}, {"out": found}) == pytest.approx(wanted)


@pytest.mark.parametrize("y", [[0, 1, 1], [[0.0], [1.0], [1.0]], [False, True, True]])
def test_yes_and_no_in_any_form(y):
    assert Binary({"out": (1,)}).truth(np.array(y), 3).tolist() == [False, True, True]


def test_ones_and_twos_are_refused_with_a_cure():
    task, y = Binary({"out": (1,)}), np.array([1, 2, 2])
    with pytest.raises(InputError, match=r"give y - 1"):
        task.truth(y, 3)
    assert task.truth(y - 1, 3).tolist() == [False, True, True]
    with pytest.raises(InputError, match="other values than 0 and 1, such as 3"):
        task.truth(np.array([3, 0, 1]), 3)
    with pytest.raises(InputError, match=r"has shape \(2,\)"):
        task.truth(np.array([0, 1]), 3)


def test_several_labels_score_their_f1():
    task = MultiLabel({"out": (3,)})
    answers = {"out": np.array([[0.9, 0.8, 0.1], [0.1, 0.1, 0.1], [0.9, 0.1, 0.1]], "float32")}
    truth = task.truth(np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]]), 3)
    assert task.scores(answers, truth) == pytest.approx([2 / 3, 1, 0])
    assert task.groups(truth) is None


def pixels(classes):
    """Logits of which the class is the largest: (n, height, width, 3)."""
    return {"out": np.eye(3, dtype="float32")[np.array(classes)]}


def test_intersection_over_union_is_that_of_the_classes_in_the_sample():
    task = Segmentation({"out": (1, 4, 3)})
    answers = pixels([[[0, 0, 1, 1]], [[2, 2, 2, 2]]])
    truth = task.truth(np.array([[[0, 1, 1, 1]], [[2, 2, 2, 2]]]), 2)
    assert task.scores(answers, truth) == pytest.approx([(1 / 2 + 2 / 3) / 2, 1])
    assert task.same(answers, pixels([[[0, 0, 0, 0]], [[2, 2, 2, 2]]])).tolist() == [0.5, 1]


def test_places_without_a_class_count_for_nothing():
    task = Segmentation({"out": (1, 4, 3)})
    y = np.array([[[0, 255, 1, -1]]])
    assert task.scores(pixels([[[0, 2, 1, 2]]]), task.truth(y, 1)) == pytest.approx([1])


def test_classes_may_come_first():
    """As PyTorch has them."""
    last = pixels([[[0, 0, 1, 1], [2, 2, 2, 2]]])
    first = {"out": np.moveaxis(last["out"], -1, 1)}
    y = np.array([[[0, 1, 1, 1], [2, 2, 2, 2]]])
    scores = []
    for answers in (last, first):
        task = Segmentation({"out": answers["out"].shape[1:]}).oriented(y)
        scores.append(task.scores(answers, task.truth(y, 1)))
        assert task.damage(answers, answers) == pytest.approx([0])
    assert scores[0] == pytest.approx(scores[1]) and task.axis == 1


def test_a_mask_is_yes_or_no_in_each_place():
    task = Segmentation({"out": (1, 4, 1)})
    answers = {"out": np.array([[[[0.9], [0.2], [0.8], [0.1]]]], "float32")}
    assert task.scores(answers, task.truth(np.array([[[1, 0, 0, 0]]]), 1)) == pytest.approx([(1 / 2 + 2 / 3) / 2])


def test_what_is_no_class_of_a_place_is_refused():
    task = Segmentation({"out": (1, 4, 3)})
    for y, message in (
        (np.zeros((1, 4)), r"give the class of each place, \(1, 1, 4\)"),
        (np.full((1, 1, 4), 0.5), r"as in y.astype\(int\)"),
        (np.full((1, 1, 4), 3), "classes from 3 to 3: the model has 0 to 2"),
        (np.full((1, 1, 4), 255), "names no class at all in 1 samples"),
    ):
        with pytest.raises(InputError, match=message):
            task.truth(y, 1)
    for y in (np.zeros((1, 1, 4), int), np.zeros((1, 1, 4)), np.zeros((1, 1, 4, 1))):
        assert task.truth(y, 1).shape == (1, 1, 4) and task.truth(y, 1).dtype.kind == "i"


@pytest.mark.parametrize("classes", [3, 10, 64, 1000, 21_841])
def test_the_divergence_of_probabilities_is_that_of_the_logits_however_many_classes(classes):
    exact, found = (np.full((1, classes), (1 - most) / (classes - 1)) for most in (0.9, 0.1))
    exact[0, 0], found[0, 0] = 0.9, 0.1
    true = (exact * np.log(exact / found)).sum()
    assert classifying.divergence(np.log(exact), np.log(found))[0] == pytest.approx(true)
    assert classifying.divergence(exact, found)[0] == pytest.approx(true, rel=0.12)


def test_masks_of_0_and_255_are_no_classes():
    """As PNG files have them; 255 would count for nothing, and background would be all there is."""
    task = classifying.Segmentation({"out": (2, 2, 1)})
    y = np.array([[[0, 255], [255, 0]]], "uint8")
    with pytest.raises(
        InputError, match=r"holds 0 and 255 alone, .* as in y // 255; or, where it does mean nothing, as -1"
    ):
        task.truth(y, 1)
    assert task.truth(y // 255, 1).tolist() == [[[0, 1], [1, 0]]]
    assert task.truth(np.where(y == 255, -1, y.astype(int)), 1).tolist() == [[[0, -1], [-1, 0]]]
    assert classifying.Segmentation({"out": (2, 2, 3)}).truth(y, 1).tolist() == [[[0, -1], [-1, 0]]]
