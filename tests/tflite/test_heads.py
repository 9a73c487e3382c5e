"""What a model's own answers say of its tasks: which labels belong to which output, and answers that have nothing to do with them."""

import re

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.tflite import heads
from helpers.tflite.heads import Purpose

N = 60
RANDOM = np.random.default_rng(0)
KIND, AGE = RANDOM.integers(0, 4, N), RANDOM.normal(40, 10, N)
ANSWERS = {
    "kind": (3 * np.eye(4)[KIND] + RANDOM.normal(size=(N, 4))).astype("float32"),
    "age": (AGE + RANDOM.normal(size=N))[:, None].astype("float32"),
}


def test_each_output_has_its_task_and_its_labels():
    kind, age = heads.heads(ANSWERS, {"kind": KIND, "age": AGE})
    assert [str(kind), str(age)] == ["kind: classification, judged by labels", "age: regression, judged by labels"]
    assert kind.scores.mean() > 0.8 and age.scores.mean() > 0.9
    assert list(kind.of(ANSWERS)) == ["kind"]


def test_what_has_no_labels_is_judged_by_its_own_answers():
    kind, age = heads.heads(ANSWERS, {"kind": KIND})
    assert kind.labelled and not age.labelled
    assert str(age) == "age: regression, judged by the baseline's own answers" and age.scores.mean() == 1


def test_tasks_may_be_named_for_some_outputs():
    [vector, age] = heads.heads(ANSWERS, None, Purpose({"kind": "embedding"}))
    assert (vector.task.name, age.task.name) == ("embedding", "regression")


def test_labels_must_say_which_output_they_are_of():
    with pytest.raises(InputError, match=r"y does not say which of the outputs kind, age it labels: save it as y_kind"):
        heads.heads(ANSWERS, KIND)
    assert heads.heads(ANSWERS, {"kind": KIND})[0].labelled
    with pytest.raises(InputError, match="there is no output 'size': the baseline has kind, age"):
        heads.heads(ANSWERS, {"size": AGE})
    with pytest.raises(InputError, match="there is no output 'size'"):
        heads.heads(ANSWERS, None, Purpose({"size": "regression"}))


def test_a_metric_of_the_users_sees_all_outputs(tmp_path):
    (tmp_path / "mine.py").write_text("def right(outputs, y):\n    return outputs['kind'].argmax(1) == y\n")
    [head] = heads.heads(ANSWERS, KIND, Purpose(metric=f"{tmp_path}/mine.py:right"))
    assert head.task.name == "own" and head.scores.mean() > 0.8


def test_a_metric_of_the_users_sees_the_labels_of_all_outputs(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def right(outputs, y):\n    return (outputs['kind'].argmax(1) == y['kind']) & (abs(outputs['age'][:, 0] - y['age']) < 5)\n"
    )
    purpose = Purpose(metric=f"{tmp_path}/mine.py:right")
    [head] = heads.heads(ANSWERS, {"kind": KIND, "age": AGE}, purpose)
    assert head.scores.shape == (N,) and head.scores.mean() > 0.8
    with pytest.raises(InputError, match="y_age has 59 entries for 60 samples"):
        heads.heads(ANSWERS, {"kind": KIND, "age": AGE[1:]}, purpose)
    with pytest.raises(InputError, match="two answers to one question: give one of them"):
        heads.heads(ANSWERS, {"kind": KIND, "age": AGE}, Purpose("nosuch", purpose.metric))


@pytest.mark.parametrize("n", [100, 101, 102, 103])
def test_labels_that_follow_a_rule_do_not_make_a_good_baseline_look_uninformed(n):
    y = np.arange(n) % 2
    answers = np.where(np.arange(n) < 5, 1 - y, y)[:, None].astype("float32")
    [head] = heads.heads({"out": answers}, y)
    assert head.scores.mean() == 1 - 5 / n


@pytest.mark.parametrize("n", [100, 102])
def test_nor_do_pairs_in_order(n):
    persons = np.repeat(np.arange(n // 2), 2)
    vectors = np.eye(n // 2)[persons] + 0.01 * RANDOM.normal(size=(n, n // 2))
    vectors[:2] = np.eye(n // 2)[[7, 9]]
    [head] = heads.heads({"out": vectors.astype("float32")}, persons, Purpose("embedding"))
    assert head.scores.mean() > 0.9


@pytest.mark.parametrize(
    "answers, y",
    [
        (ANSWERS["kind"], np.random.default_rng(1).permutation(KIND)),
        (ANSWERS["age"], np.random.default_rng(1).permutation(AGE)),
        (ANSWERS["age"] / 100, AGE),  # in other units
        (ANSWERS["kind"], np.random.default_rng(1).random((N, 4)) < 0.5),
        (ANSWERS["kind"][:, :1], (KIND > 1)[np.random.default_rng(1).permutation(N)]),
        (np.eye(4)[KIND][:, None, None, :].repeat(3, 1), np.random.default_rng(1).integers(0, 4, (N, 3, 1))),
    ],
    ids=["classes", "numbers", "units", "labels", "yes or no", "places"],
)
def test_answers_that_have_nothing_to_do_with_the_labels_are_refused(answers, y):
    with pytest.raises(InputError, match=r"which cannot be told from the .* of a model that does not look"):
        heads.heads({"out": np.asarray(answers, "float32")}, y)


def test_few_samples_need_not_show_again_what_many_have_shown():
    y = np.arange(20) % 2
    answers = {"out": np.where(np.arange(20) < 8, 1 - y, y)[:, None].astype("float32")}
    with pytest.raises(InputError, match="which cannot be told from"):
        heads.heads(answers, y)
    [head] = heads.heads(answers, y, Purpose(informed=True))
    assert head.labelled and head.scores.mean() == 0.6


def test_boxes_that_are_read_in_the_wrong_form_are_refused_with_the_right_one():
    low = RANDOM.uniform(0, 40, (N, 1, 2))
    corners = np.concatenate([low, low + RANDOM.uniform(8, 12, (N, 1, 2))], axis=-1)
    y = np.concatenate([np.zeros((N, 1, 1)), corners], axis=-1)
    middle = np.concatenate([low + (corners[..., 2:] - low) / 2, corners[..., 2:] - low], axis=-1)
    boxes = np.concatenate([middle, np.zeros((N, 7, 4))], axis=1)
    answers = {"boxes": boxes, "sure": np.eye(8)[0][None, :, None].repeat(N, 0)}
    with pytest.raises(InputError, match=r"with boxes read as cxcywh it has 1\.000: say --task detection:cxcywh"):
        heads.heads(answers, y, Purpose("detection"))
    [head] = heads.heads(answers, y, Purpose("detection:cxcywh"))
    assert head.scores.of(np.ones((1, N)))[0] == 1


@pytest.mark.parametrize("side", [64, 1 / 64])
def test_boxes_in_other_units_than_the_labels_are_refused_with_where_both_end(side):
    low = RANDOM.uniform(0, 0.6, (N, 1, 2))
    corners = np.concatenate([low, low + RANDOM.uniform(0.2, 0.3, (N, 1, 2))], axis=-1)
    y = np.concatenate([np.zeros((N, 1, 1)), corners], axis=-1)
    answers = {"boxes": np.pad(corners, ((0, 0), (0, 7), (0, 0))), "sure": np.eye(8)[0][None, :, None].repeat(N, 0)}
    end = np.median(corners.max(axis=-1))
    told = f"its boxes end near {end:.3g}, those of y near {side * end:.3g}: give y in the units of the outputs"
    with pytest.raises(InputError, match=re.escape(told)):
        heads.heads(answers, y * [1, side, side, side, side], Purpose("detection"))
    [head] = heads.heads(answers, y, Purpose("detection"))
    assert head.scores.of(np.ones((1, N)))[0] == 1


def test_without_labels_the_answers_say_where_their_classes_are():
    random = np.random.default_rng(0)
    wanted = random.integers(0, 3, (60, 8, 9))
    logits = 4 * np.eye(3, dtype="float32")[wanted]
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    purpose = heads.Purpose("segmentation")
    for answers in (logits, shares, np.moveaxis(shares, -1, 1)):
        [head] = heads.heads({"out": answers}, None, purpose)
        np.testing.assert_array_equal(head.truth, wanted)
    first = np.moveaxis(logits, -1, 1)
    with pytest.raises(
        InputError, match=r"\(3, 8, 9\), whose classes may be on the first axis or on the last: add labels"
    ):
        heads.heads({"out": first}, None, purpose)
    [head] = heads.heads({"out": first}, wanted, purpose)
    assert head.task.axis == 1 and head.scores.mean() == 1
    [head] = heads.heads({"out": first[:, :1]}, None, purpose)
    assert head.truth.shape == wanted.shape


@pytest.mark.parametrize("height, width, classes", [(12, 9, 20), (9, 9, 20), (8, 8, 8), (9, 8, 5)])
def test_many_classes_are_found_in_a_square_or_asked_for(height, width, classes):
    wanted = np.random.default_rng(0).integers(0, classes, (30, height, width))
    last = 4 * np.eye(classes, dtype="float32")[wanted]
    purpose = heads.Purpose("segmentation")
    for answers in (last, np.moveaxis(last, -1, 1)):
        if height == width != classes:
            [head] = heads.heads({"out": answers}, None, purpose)
            np.testing.assert_array_equal(head.truth, wanted)
        else:
            with pytest.raises(InputError, match="may be on the first axis or on the last: add labels"):
                heads.heads({"out": answers}, None, purpose)
        [head] = heads.heads({"out": answers}, wanted, purpose)
        assert head.scores.mean() == 1


def test_labels_of_several_outputs_for_a_model_of_one():
    a = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    labels = {"kind": a.argmax(1), "age": a[:, 0]}
    with pytest.raises(InputError, match=r"y labels 2 outputs \(kind, age\), .* give the labels of scores alone, as y"):
        heads.heads({"scores": a}, labels)
    [head] = heads.heads({"scores": a}, labels["kind"])
    assert head.scores.all()


def test_a_metric_that_writes_into_what_it_is_given_changes_nothing(tmp_path):
    (tmp_path / "mine.py").write_text("def right(out, y):\n    y -= 1\n    out *= 0\n    return y == 0\n")
    answers, y = {"out": np.ones((4, 2), "float32")}, np.array([1, 1, 2, 1])
    [head] = heads.heads(answers, y, heads.Purpose(metric=f"{tmp_path}/mine.py:right"))
    for _ in range(2):
        assert head.task.scores(answers, head.truth).tolist() == [True, True, False, True]
    assert y.tolist() == [1, 1, 2, 1] and (answers["out"] == 1).all()
