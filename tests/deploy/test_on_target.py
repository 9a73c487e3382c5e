"""Whether a target answers as this machine does: a question of the task, not of the largest number."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.compress import quantize
from helpers.deploy import gate
from helpers.deploy.policy import Policy
from helpers.tflite import measure, runner
from helpers.tflite.heads import Purpose

with runtime_env.quiet():
    import tensorflow as tf

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 8)).astype("float32")
W = RANDOM.normal(size=(8, 3)).astype("float32")
BOXES = RANDOM.normal(size=(8, 20 * 4)).astype("float32")
SCORES = RANDOM.normal(size=(8, 20 * 3)).astype("float32")


def boxes_and_scores(x):
    corners = tf.abs(tf.reshape(x @ BOXES, (-1, 20, 2, 2))) * 40
    boxes = tf.reshape(tf.concat([corners[:, :, :1], corners[:, :, :1] + corners[:, :, 1:] + 9], 2), (-1, 20, 4))
    return tf.concat([boxes, tf.sigmoid(tf.reshape(x @ SCORES, (-1, 20, 3)))], -1)


def judged(function, change, x=X, purpose=None, **settings):
    """The decision by a target that answers with change(output) instead of each output."""
    traced = tf.function(function, input_signature=[tf.TensorSpec((1, 8), tf.float32)])
    file = quantize.convert(traced.get_concrete_function())

    def run_all(jobs, folder):
        answers = runner.run_all(jobs, folder)
        for each in answers:
            if "first" in each:
                each["first"] = [change(np.array(of)).tolist() for of in each["first"]]
        return answers

    target = SimpleNamespace(url="ssh://far", measures=measure.HERE, samples=64, run_all=run_all)
    settings = {"speed": False, **settings}
    return gate.judge(file, file, x, policy=Policy(max_drop=None), purpose=purpose, target=target, **settings)


def answer(*asked, **settings):
    """The check of what such a target answers."""
    checks = judged(*asked, **settings).checks
    [check] = [check for check in checks if check.name == "answers on the target"]
    return check


def without_scores(output):
    return np.concatenate([output[..., :4], 0 * output[..., 4:]], -1)


def turned(number):
    def change(output):
        return np.concatenate([-output[:number], output[number:]])

    return change


DETECTION, REGRESSION = Purpose("detection"), Purpose("regression")


@pytest.mark.parametrize(
    "function, purpose, change, outcome",
    [
        (lambda x: x @ W, None, lambda it: it, "pass"),
        (lambda x: x @ W, None, lambda it: it / 2, "pass"),  # whose classes are the same
        (lambda x: x @ W, None, turned(1), "undecided"),  # one of 64
        (lambda x: x @ W, None, turned(20), "fail"),
        (lambda x: x @ W, REGRESSION, lambda it: it + 0.01, "pass"),
        (lambda x: x @ W, REGRESSION, lambda it: it / 2, "fail"),
        (boxes_and_scores, DETECTION, lambda it: it, "pass"),
        (boxes_and_scores, DETECTION, without_scores, "fail"),
        (lambda x: x[:, :1], REGRESSION, lambda it: np.nextafter(it, 9), "pass"),
    ],
)
def test_the_task_says_which_answers_are_the_same(function, purpose, change, outcome):
    assert answer(function, change, purpose=purpose).outcome == outcome


def test_a_single_sample_of_one_number_may_differ_in_its_last_bit():
    assert answer(lambda x: x[:, :1], lambda it: np.nextafter(it, 9), X[:1], REGRESSION).outcome == "pass"


def test_each_of_several_outputs_must_be_the_same():
    def two(x):
        return {"kind": x @ W, "price": x[:, :1]}

    purpose = Purpose({"price": "regression"})
    assert answer(two, lambda it: it, purpose=purpose).outcome == "pass"
    assert answer(two, lambda it: it if it.shape[1] == 3 else -it, purpose=purpose).outcome == "fail"


def test_without_speed_a_target_only_answers():
    plain, timed = (judged(lambda x: x @ W, lambda it: it, speed=speed, rounds=6) for speed in (False, True))
    assert "latency_ratio" not in plain.measured and "latency_ratio" in timed.measured
    assert plain.outcome == timed.outcome == gate.ACCEPTED


def test_where_a_targets_usual_samples_leave_it_open_it_answers_more():
    many = np.concatenate([X] * 5)
    assert answer(lambda x: x @ W, turned(1), many).outcome == "pass"  # one of 256
    check = answer(lambda x: x @ W, turned(4), many)
    assert (check.outcome, check.because.split(" are")[0]) == ("fail", "60 of 64")
    check = answer(lambda x: x @ W, lambda it: np.concatenate([-it[:1], it[1:100], -it[100:103], it[103:]]), many)
    assert check.outcome == "undecided" and check.because.endswith("no more samples are compared")
    assert answer(lambda x: x @ W, turned(1)).because.endswith("more samples would decide")


@pytest.mark.parametrize("number", [1, 2, 64])
def test_vectors_are_compared_by_themselves(number):
    """Among one or two the nearest other says nothing."""
    purpose = Purpose("embedding")
    assert answer(lambda x: x @ W, lambda it: it + 1e-3, X[:number], purpose).outcome == "pass"
    assert answer(lambda x: x @ W, lambda it: it[:, ::-1], X[:number], purpose).outcome == "fail"


def test_what_answers_in_another_shape_answers_nonsense():
    check = answer(lambda x: x @ W, lambda it: it[:, :2])
    assert (check.outcome, check.because) == ("fail", gate.outputs.NONSENSE)


def test_without_tasks_rows_are_compared_by_their_largest_number_and_channels_each():
    tie, first = np.full((1, 5000), 127 / 128), np.full((1, 5000), 127 / 128)
    first[0, 0] -= 1 / 128
    assert measure.like(tie, first).all() and not measure.like(np.eye(3), np.eye(3)[::-1])[0]
    assert measure.like(np.eye(3), np.zeros((3, 3))).tolist() == [True, False, False]  # of one that answers nothing
    assert measure.like(np.array([[3.0]]), np.array([[np.nextafter(np.float32(3), 4)]])).all()
    assert not measure.like(np.array([[3.0]]), np.array([[3.1]])).any()
    both = np.asarray(boxes_and_scores(X), float)
    assert measure.like(both, both + 1e-4).all() and not measure.like(both, without_scores(both)).any()


@pytest.mark.parametrize(
    "job, kind, outcome",
    [
        ("time", "out of time", "undecided"),  # baseline and candidate together
        ("time", "crashed", "fail"),
        ("memory", "out of memory", "fail"),  # of the candidate alone
        ("nothing", "crashed", "undecided"),
    ],
)
def test_a_measurement_that_fails_is_the_candidates_fault_only_if_it_must_be(monkeypatch, job, kind, outcome):
    file = quantize.convert(
        tf.function(lambda x: x @ W, input_signature=[tf.TensorSpec((1, 8), tf.float32)]).get_concrete_function()
    )
    real = runner.run

    def run(asked, folder=None):
        which = asked["task"] if asked.get("model", "") is not None else "nothing"
        candidates = which != "memory" or asked["model"].startswith("1")
        return {"error": "no", "kind": kind} if which == job and candidates else real(asked, folder)

    monkeypatch.setattr(runner, "run", run)
    decision = gate.judge(file, file, X, policy=Policy(max_drop=None), rounds=6)
    assert decision.checks[-1].name == "speed and memory" and decision.checks[-1].outcome == outcome
    assert ("--no-speed does not ask" in decision.checks[-1].because) == (outcome == "undecided")
    asked = gate.judge(file, file, X, policy=Policy(max_drop=None, min_speedup=0.1), rounds=6)
    assert "--no-speed" not in asked.checks[-1].because
    cured = gate.judge(file, file, X, policy=Policy(max_drop=None), speed=False)
    assert cured.outcome == gate.ACCEPTED


@pytest.mark.parametrize("function, purpose", [(lambda x: x @ W + [100.0, 0, 0], None), (lambda x: x @ W, REGRESSION)])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_there_is_not_the_same(function, purpose, number):
    """The first class is also what argmax finds among NaN."""
    assert answer(function, lambda output: output * 0 + number, purpose=purpose).outcome == "fail"
    assert not measure.like(np.array([[3.0, 1, 2]]), np.array([[number] * 3]))


@pytest.mark.parametrize(
    ("kind", "outcome"), [("out of time", "undecided"), ("out of memory", "undecided"), ("crashed", "fail")]
)
def test_a_target_that_is_too_slow_decides_nothing(kind, outcome, monkeypatch):
    asked = []

    def run_all(jobs, folder):
        asked.extend(jobs)
        return [{"error": "it was stopped", "kind": kind}] * len(jobs)

    file = quantize.convert(
        tf.function(lambda x: x @ W, input_signature=[tf.TensorSpec((1, 8), tf.float32)]).get_concrete_function()
    )
    target = SimpleNamespace(url="qemu://far", measures=frozenset(), samples=16, run_all=run_all)
    decision = gate.judge(file, file, X, policy=Policy(max_drop=None), target=target, speed=False)
    [check] = [check for check in decision.checks if check.name == "answers on the target"]
    assert check.outcome == outcome and "it was stopped" in check.because
    assert ("more --seconds or --memory would decide" in check.because) == (outcome == "undecided")
    assert sum(job["task"] == "predict" for job in asked) == 1


def test_samples_that_are_sorted_by_class_are_compared_from_all_classes():
    apart = 20 * np.eye(8, dtype="float32")[0]
    x = np.concatenate([*[X + apart] * 8, *[X - apart] * 8])

    def first(output):  # a target that knows one class alone
        return np.where(np.arange(output.shape[-1]) == 0, 9.0, 0.0) + 0 * output

    check = answer(lambda x: tf.concat([x[:, :1], -x[:, :1]], -1), first, x=x)
    assert check.outcome == "fail"
