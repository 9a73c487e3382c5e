"""The gate: what it accepts and rejects, what it says when the data is too small, and files that attack it."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.__main__ import main
from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, OutputError
from helpers.compress import quantize
from helpers.deploy import gate, gate_report, policy
from helpers.deploy.policy import FAIL, PASS, UNDECIDED, Policy
from helpers.evidence import stats
from helpers.networks import checkpoints, data, models
from helpers.tflite import interpreting, runner
from tests.deploy import fuzz_gate

with runtime_env.quiet():
    import tensorflow as tf

INPUTS, CLASSES = 24, 5
X = np.random.default_rng(0).normal(size=(600, INPUTS)).astype("float32")
LOOSE = Policy(max_drop=1)


@pytest.fixture(scope="module")
def mlp():
    runtime_env.seed_everything(0)
    return models.mlp((64, 32), INPUTS, CLASSES)


@pytest.fixture(scope="module")
def baseline(mlp):
    return quantize.convert(mlp)


@pytest.fixture(scope="module")
def int8(mlp):
    return quantize.convert(mlp, "full_int8", X)


@pytest.fixture(scope="module")
def labels(mlp):
    return mlp(X).numpy().argmax(axis=-1)


def converted(function, inputs=INPUTS):
    """A `.tflite` of any function of one sample."""
    traced = tf.function(function, input_signature=[tf.TensorSpec((1, inputs), tf.float32)])
    with runtime_env.quiet():
        return tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module()).convert()


def judged(candidate, baseline, y, policy=LOOSE, **settings):
    return gate.judge(candidate, baseline, X, y, policy, **{"speed": False, **settings})


def outcomes(decision):
    return {check.name: check.outcome for check in decision.checks}


def only_failure(decision):
    assert decision.outcome == gate.REJECTED
    [check] = [check for check in decision.checks if check.outcome == FAIL]
    return check


# --- decisions


def test_a_good_candidate_is_accepted_with_all_that_was_measured(baseline, int8, labels):
    policy = Policy(0.05, 0.01, 100_000, 10**8, 0.9, 0.2, 0.2)
    decision = gate.judge(int8, baseline, X, labels, policy, np.where(X[:, 0] > 0, "up", "down"), rounds=6)
    assert outcomes(decision) == dict.fromkeys(
        [
            "loads and runs",
            "inputs and outputs",
            "finite outputs",
            "accuracy drop",
            "agreement",
            "worst class drop",
            "worst slice drop",
            "size",
            "speedup",
            "peak memory",
        ],
        PASS,
    )
    assert (decision.outcome, decision.exit_code) == (gate.ACCEPTED, 0)
    assert decision.measured["size.candidate"].value == len(int8) == decision.candidate["bytes"]
    assert decision.measured["top1.baseline"].value == 1
    assert decision.candidate["inputs"][0]["dtype"] == "int8" and decision.baseline["inputs"][0]["dtype"] == "float32"
    assert decision.machine["cores"]


def test_a_model_is_as_good_as_itself_whatever_is_asked(baseline, labels):
    policy = Policy(0.02, max_size=len(baseline), min_agreement=0.99, max_slice_drop=0.05)
    assert judged(baseline, baseline, labels, policy, slices=np.arange(600) % 3).outcome == gate.ACCEPTED


def test_a_baseline_is_asked_once_for_many_candidates(baseline, int8, labels, monkeypatch):
    asked, run = [], gate.runner.run

    def counted(job, folder=None):
        if job["task"] == "predict":
            asked.append(job["model"])
        return run(job, folder)

    monkeypatch.setattr(gate.runner, "run", counted)
    monkeypatch.setattr(gate, "_answered", {})
    first = gate.judge(int8, baseline, X, labels, speed=False)
    again = gate.judge(int8, baseline, X, labels, speed=False)
    assert first == again and len(asked) == 3
    gate.judge(int8, baseline, X[::-1].copy(), labels[::-1], speed=False)
    gate.judge(int8, int8, X, labels, speed=False)
    assert len(asked) == 7


def test_each_limit_that_is_missed_is_named(baseline, int8, labels):
    policy = Policy(1.0, min_speedup=1000.0, max_size=1000, max_peak_memory=1000)
    decision = judged(int8, baseline, labels, policy, rounds=6)
    assert (decision.outcome, decision.exit_code) == (gate.REJECTED, 1)
    assert [check.name for check in decision.checks if check.outcome == FAIL] == ["size", "speedup", "peak memory"]
    assert gate_report.summary(decision).startswith(f"rejected: size: {len(int8):,} bytes, the baseline ")


def test_other_weights_are_rejected_for_their_answers(baseline, labels):
    runtime_env.seed_everything(1)
    other = quantize.convert(models.mlp((64, 32), INPUTS, CLASSES))
    decision = judged(other, baseline, labels, Policy(min_agreement=0.9, max_class_drop=0.2))
    assert {"accuracy drop", "agreement", "worst class drop"} == {
        name for name, outcome in outcomes(decision).items() if outcome == FAIL
    }


def test_a_slice_that_collapsed_is_found_behind_a_good_average(mlp, baseline, labels):
    """The candidate answers wrongly wherever the first input is above 2: 2% of the samples."""
    weights = converted(lambda x: tf.where(x[:, :1] > 2, tf.roll(mlp(x), 1, 1), mlp(x)))
    slices = np.where(X[:, 0] > 2, "bright", "normal")
    assert judged(weights, baseline, labels, Policy(0.06), slices=slices).outcome == gate.ACCEPTED
    check = only_failure(judged(weights, baseline, labels, Policy(0.06, max_slice_drop=0.1), slices=slices))
    assert check.name == "worst slice drop" and check.because.startswith("slice bright: -100.0 points")


def test_too_few_samples_leave_it_undecided(baseline, int8, labels):
    decision = gate.judge(int8, baseline, X[:40], labels[:40], speed=False)
    assert (decision.outcome, decision.exit_code) == (gate.UNSURE, 2)
    assert "more examples would decide" in gate_report.summary(decision)


# --- outcomes of a check


@pytest.mark.parametrize(
    "n, lost, outcome", [(2000, 10, PASS), (2000, 40, UNDECIDED), (2000, 100, FAIL), (50, 0, UNDECIDED), (50, 25, FAIL)]
)
def test_accuracy_has_three_outcomes(n, lost, outcome):
    check = policy.drop(np.ones(n, bool), np.arange(n) >= lost, 0.02)
    assert check.outcome == outcome
    assert ("would decide" in check.because or "too close" in check.because) == (outcome == UNDECIDED)


@settings(deadline=None, max_examples=60)
@given(st.integers(5, 400), st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.005, 0.02, 0.1]))
def test_the_number_of_examples_that_it_asks_for_would_decide(n, lost, gained, limit):
    lost, gained = min(lost, n // 2), min(gained, n // 2)
    before, after = np.ones(n, bool), np.ones(n, bool)
    after[:lost], before[n - gained :] = False, False
    check = policy.drop(before, after, limit)
    if check.outcome == UNDECIDED and "about" in check.because:
        more = int(check.because.split("about ")[1].split()[0].replace(",", ""))
        times = (n + more) / n
        first, second = np.ones(n + more, bool), np.ones(n + more, bool)
        second[: round(lost * times)], first[n + more - round(gained * times) :] = False, False
        change = stats.paired_difference(first, second)
        slack = 2 / (n + more)  # counts are whole
        assert change.low >= -limit - slack or change.high < -limit + slack


def test_noise_in_many_classes_fails_none_of_them():
    """100 classes that truly lose nothing, judged 40 times."""
    random = np.random.default_rng(0)
    failed = 0
    for _ in range(40):
        before, after = random.random((2, 3000)) < 0.8
        check = policy.worst_group("class", before, after, np.arange(3000) % 100, 0.02)
        failed += check.outcome == FAIL
    assert failed <= 4


def test_one_collapsed_class_of_a_hundred_fails():
    groups = np.arange(10_000) % 100
    check = policy.worst_group("class", np.ones(10_000, bool), groups != 37, groups, 0.1)
    assert check.outcome == FAIL and check.because.startswith("class 37: -100.0 points")


def test_a_class_that_is_too_small_says_how_many_more_of_it_it_needs():
    groups = np.array([0] * 500 + [1] * 6)
    check = policy.worst_group("class", np.ones(506, bool), np.ones(506, bool), groups, 0.1)
    assert check.outcome == UNDECIDED
    assert "6 examples; about 20 more examples of class 1 would decide" in check.because


def test_a_forecast_for_a_class_knows_that_failing_takes_more():
    """Its own interval lies beyond the limit, that for all classes together does not yet."""
    right = np.ones(1000, bool)
    less = right & (np.arange(1000) >= 19)
    check = policy.worst_group("class", right, less, np.repeat(np.arange(10), 100), 0.1)
    assert check.outcome == UNDECIDED and check.measured.high < -0.1
    more = int(re.search(r"about (\d+) more", check.because)[1])
    for number, outcome in ((more // 2, UNDECIDED), (more + 5, FAIL)):
        n = 100 + number
        lost = np.concatenate([np.arange(n) >= round(0.19 * n), np.ones(900, bool)])
        groups = np.concatenate([np.zeros(n, int), np.repeat(np.arange(1, 10), 100)])
        assert policy.worst_group("class", np.ones(n + 900, bool), lost, groups, 0.1).outcome == outcome


@pytest.mark.parametrize("n, lost, limit", [(40, 1, 0.1), (40, 2, 0.03), (30, 1, 0.06), (50, 3, 0.1)])
def test_a_forecast_for_few_examples_does_not_round_them(n, lost, limit):
    def decides(times):
        """Whether so many repetitions of the same examples are enough."""
        change = stats.paired_difference(np.tile(right, times), np.tile(still_right, times))
        return change.low >= -limit or change.high < -limit

    right, still_right = np.ones(n, bool), np.arange(n) >= lost
    check = policy.drop(right, still_right, limit)
    more = int(re.search(r"about ([0-9,]+) more examples? would decide", check.because).group(1).replace(",", ""))
    times = next(times for times in range(2, 1000) if decides(times))
    assert n * (times - 1) * 0.95 <= n + more <= n * times * 1.1


@pytest.mark.parametrize(
    "low, high, outcome", [(1.2, 1.4, PASS), (0.8, 1.3, UNDECIDED), (0.5, 0.9, FAIL), (None, None, PASS)]
)
def test_an_interval_must_lie_on_one_side_of_the_limit(low, high, outcome):
    found = stats.Estimate(1.1, low, high)
    assert policy.at_least("it", found, 1.0, "why").outcome == outcome
    turned = stats.Estimate(-1.1, high and -high, low and -low)
    check = policy.at_most("it", turned, -1.0, "why")
    assert (check.outcome, check.measured, check.limit) == (outcome, turned, -1.0)


# --- policy


def test_a_policy_is_read_from_a_file(tmp_path):
    (tmp_path / "policy.yaml").write_text("max_drop: 0.01\nmin_speedup: 2\nmax_class_drop: null\n")
    assert Policy.read(tmp_path / "policy.yaml") == Policy(max_drop=0.01, min_speedup=2)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "max_loss: 0.01",
            r"has an unknown key 'max_loss': use max_drop, min_speedup, .*max_slice_drop, min_sqnr, max_damage\.$",
        ),
        ("max_drop: two", r"max_drop='two' must be a number in \[0, 1\]; 0.02 is 2 points\.$"),
        ("max_drop: 2", r"max_drop=2 must be a number in \[0, 1\]"),
        ("min_agreement: 2", r"min_agreement=2 must be a number in \[0, 1\]\.$"),
        ("max_drop: 0.01\nmax_size: 9\nmax_drop: 0.5", r"has the key 'max_drop' more than once: say which value holds"),
        ("min_speedup: .inf", r"min_speedup=inf must be a finite number of 0 or more\.$"),
        ("max_drop: true", r"max_drop=True must be a number"),
        ("max_drop: .nan", r"max_drop=nan must be a number"),
        ("min_speedup: -1", r"min_speedup=-1 must be a finite number of 0 or more"),
        ("max_size: 1.5", r"max_size=1.5 must be a whole number of 0 or more"),
        ("- max_drop", r"must hold lines such as `max_drop: 0.02`"),
        ("", r"must hold lines such as"),
        ("a: [", r"cannot be read \(.*\): give a YAML file"),
    ],
)
def test_a_bad_policy_is_refused_by_its_key(tmp_path, text, message):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        Policy.read(tmp_path / "policy.yaml")
    assert "\n" not in str(error.value)


def test_limits_as_typed_lie_over_the_policy(tmp_path):
    (tmp_path / "policy.yaml").write_text("max_drop: 0.01\nmin_speedup: 2\nmax_size: 9\n")
    read = Policy.read(tmp_path / "policy.yaml")
    found = read.limited([" max_drop = 0.05", "max_size=90000", "min_speedup="])
    assert found == Policy(max_drop=0.05, max_size=90_000, min_speedup=None)
    assert isinstance(found.max_size, int) and read == Policy(max_drop=0.01, min_speedup=2, max_size=9)
    assert Policy().limited(["max_drop="]) == Policy(max_drop=None)
    assert Policy().limited(["min_speedup=1e2"]).min_speedup == 100
    assert read.limited([]) == read


@pytest.mark.parametrize(
    "texts, message",
    [
        (
            ["max_loss=0.01"],
            r"limit='max_loss=0.01' is no limit: write NAME=VALUE, .* of max_drop, .*max_slice_drop, min_sqnr, max_damage\.$",
        ),
        (["=0.01"], r"limit='=0.01' is no limit"),
        (["MAX_DROP=0.01"], r"limit='MAX_DROP=0.01' is no limit"),
        (["max_drop"], r"limit='max_drop' has no value: write NAME=VALUE"),
        ([""], r"limit='' has no value"),
        (["max_drop=0.01", "max_size=9", "max_drop=0.5"], r"limit='max_drop=0.5' comes twice: .* each name once"),
        (["max_drop=", "max_drop=0.5"], r"limit='max_drop=0.5' comes twice"),
        (["max_drop=much"], r"limit='max_drop=much' is no number: write it as in max_drop=0.02\.$"),
        (["max_drop=0,02"], r"limit='max_drop=0,02' is no number"),
        (["max_size=\u00b2"], r"limit='max_size=\u00b2' is no number"),
        (["max_drop=-1"], r"max_drop=-1 must be a number in \[0, 1\]; 0.02 is 2 points"),
        (["max_drop=nan"], r"max_drop=nan must be a number"),
        (["min_speedup=inf"], r"min_speedup=inf must be a finite number of 0 or more"),
        (["max_size=1.5"], r"max_size=1.5 must be a whole number of 0 or more"),
    ],
)
def test_a_bad_limit_is_refused_by_name(texts, message):
    with pytest.raises(InputError, match=message) as error:
        Policy().limited(texts)
    assert "\n" not in str(error.value)


# --- bad input is no verdict


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x": X[:0]}, r"x is float32 of shape \(0, 24\)"),
        ({"x": np.full_like(X, np.nan)}, r"x is NaN or infinity in 14,400 of 14,400 values"),
        ({"x": X.astype(str)}, r"x is <U32 of shape"),
        ({"x": X.astype("uint8")}, r"its input is float32, the samples are uint8: give them as float32, scaled as"),
        (
            {"x": X[:, 1:]},
            r"baseline cannot be judged against: its input has shape \(1, 24\), one sample has \(1, 23\)",
        ),
        ({"y": np.zeros(3, int)}, r"y has 3 labels for 600 samples: give one a sample\.$"),
        ({"y": np.zeros((600, 5))}, r"baseline has F1 0\.000 .*, which cannot be told from the 0\.000 of a model that"),
        (
            {"y": np.zeros(600, int)},
            r"baseline has accuracy 0\.\d+ \[.*\], which cannot be told from the 0\.\d+ of a model that",
        ),
        ({"y": np.full(600, 5)}, r"y has labels from 5 to 5: the model answers 0 to 4"),
        (
            {"baseline": b"PK\3\4" * 50},
            r"baseline cannot be judged against: it is no \.tflite file .*; a Keras model must be",
        ),
        ({"baseline": "nosuch.tflite"}, r"baseline='nosuch.tflite' cannot be read"),
        ({"candidate": "nosuch.tflite"}, r"candidate='nosuch.tflite' cannot be read"),
        ({"slices": np.zeros(3, int)}, r"slice has 3 words for 600 samples: give one for each"),
        ({"policy": Policy(max_slice_drop=0.1)}, r"max_slice_drop is asked, but the data has no slice"),
        ({"rounds": 2}, r"rounds=2 must be at least 6"),
    ],
)
def test_bad_input_is_refused_by_name(baseline, int8, labels, changes, message):
    given = {"candidate": int8, "baseline": baseline, "x": X, "y": labels, "speed": False, **changes}
    with pytest.raises(InputError, match=message):
        gate.judge(**given)


@pytest.mark.parametrize("seconds, size", [(0, 10**9), (float("nan"), 10**9), (10, 1)])
def test_impossible_limits_are_refused(seconds, size):
    with pytest.raises(InputError, match=r"seconds=.* must be 1 or more, and bytes="):
        gate.Limits(seconds, size)


@pytest.mark.parametrize("seed", range(3))
def test_labels_in_another_order_than_the_samples_are_refused(baseline, int8, labels, seed):
    mixed_up = np.random.default_rng(seed).permutation(labels)
    with pytest.raises(
        InputError, match=r"are the labels in the order of the samples and of the outputs, and not all the same"
    ):
        judged(int8, baseline, mixed_up)


def test_a_rare_class_and_a_handful_of_samples_are_judged(baseline, int8, labels):
    """A model may be worth more than its top-1: here one that always names the frequent class is right more often."""
    common = np.argmax(np.bincount(labels))
    kept = np.flatnonzero((labels == common) | (np.arange(600) % 15 == 0))
    y = np.where(np.arange(600) % 8 == 0, common, labels)
    y[(labels == common) & (np.arange(600) % 3 == 0)] = (common + 1) % CLASSES
    top1 = (labels[kept] == y[kept]).mean()
    assert gate.judge(int8, baseline, X[kept], y[kept], LOOSE, speed=False).measured["top1.baseline"].value == top1
    two = [np.flatnonzero(labels == common)[0], np.flatnonzero(labels != common)[0]]
    decision = gate.judge(int8, baseline, X[two], labels[two], LOOSE, speed=False)
    assert decision.checks[0].because == "answered 2 samples"
    one = gate.judge(int8, baseline, X[:1], labels[:1], LOOSE, speed=False)
    assert one.checks[0].because == "answered 1 sample"


def test_samples_without_an_axis_of_channels_are_told_how_to_get_one(int8):
    runtime_env.seed_everything(0)
    net = tf.keras.Sequential([tf.keras.layers.Input((6, 4, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(5)])
    with pytest.raises(InputError, match=r"one sample has \(1, 6, 4\)\. Give x\[\.\.\., None\], which adds"):
        gate.judge(int8, quantize.convert(net), X.reshape(600, 6, 4), np.zeros(600, int), LOOSE, speed=False)


# --- candidates of another form, damaged and hostile ones


def mixed(mlp):
    """The converter saw one sample and says so in the SLICE operators: in a batch, all rows would be the first one's."""
    return converted(lambda x: tf.where(x[:, :1] > 0, tf.roll(mlp(x), 1, 1), mlp(x)))


def test_a_file_that_admits_no_batches_is_judged_sample_by_sample(mlp, baseline, labels):
    assert interpreting.admits_batches(baseline, 64)
    assert not interpreting.admits_batches(mixed(mlp), 64)
    rolled = (labels + (X[:, 0] > 0)) % CLASSES
    assert judged(mixed(mlp), baseline, rolled).measured["top1.candidate"].value == 1


@pytest.mark.parametrize("recipe", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_what_the_recipes_make_admits_batches(mlp, recipe):
    assert interpreting.admits_batches(quantize.convert(mlp, recipe, X), 64)


@pytest.mark.parametrize(
    "function, told",
    [
        (lambda x: x[:, :4], r"the baseline's output is float32 \(1, 5\)"),
        (lambda x: x[:, :5, None], r"output float32 \(1, 5, 1\): the baseline's output is float32 \(1, 5\)"),
        (lambda x: (x[:, :5], x), r"the baseline has 1 output: float32 \(1, 5\)"),
        (lambda x: tf.cast(x[:, :5], tf.int32), r"its output is int32 without a scale, the baseline's float32"),
    ],
)
def test_another_interface_is_rejected(baseline, labels, function, told):
    check = only_failure(judged(converted(function), baseline, labels))
    assert check.name == "inputs and outputs"
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(check.because)


def test_answers_that_are_no_numbers_are_rejected(baseline, labels):
    check = only_failure(judged(converted(lambda x: tf.math.log(x[:, :5])), baseline, labels))
    assert check.name == "finite outputs" and check.because.startswith("NaN or infinity for ")


@pytest.mark.parametrize(
    "spoil", [lambda b: b"", lambda b: b[:4], lambda b: b[: len(b) // 2], lambda b: b"<html>" * 99]
)
def test_what_is_no_model_is_rejected(baseline, labels, spoil):
    assert only_failure(judged(spoil(baseline), baseline, labels)).name == "loads and runs"


def test_a_candidate_that_was_not_converted_is_told_so(baseline, labels):
    decision = judged(b"PK\3\4" + bytes(99), baseline, labels)
    assert only_failure(decision).because.startswith("it is no .tflite file")
    assert gate_report.summary(decision).endswith("a Keras model must be converted to one first.")


@pytest.mark.timing
def test_a_model_that_never_ends_is_stopped(baseline, labels):
    forever = converted(
        lambda x: tf.while_loop(lambda i: tf.reduce_sum(i) < 1e30, lambda i: [tf.sin(i)], [x[:, :5]])[0]
    )
    start = time.monotonic()
    check = only_failure(judged(forever, baseline, labels, limits=gate.Limits(seconds=2)))
    assert check.because in ("it was stopped after 2 s", "it used up its 2 s of processor time")
    assert time.monotonic() - start < 20


def test_a_model_that_wants_all_memory_is_rejected(baseline, labels):
    greedy = converted(lambda x: tf.reduce_sum(tf.tile(x[:, :5, None], (1, 1, 2**29)) * x[0, 0], axis=2))
    limits = gate.Limits(bytes=500_000_000)
    assert only_failure(judged(greedy, baseline, labels, limits=limits)).name == "loads and runs"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """An interpreter that does what the model file says, for what no file is known to do to the real one."""
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "class Interpreter:\n    def __init__(self, model_path, num_threads):\n        exec(open(model_path).read())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(code, **limits):
        (tmp_path / "model").write_text(code)
        job = {"task": "memory", "model": "model", "threads": 1, "limits": {"seconds": 30, "bytes": 10**8, **limits}}
        return runner.run(job, tmp_path)

    return run


@pytest.mark.parametrize(
    "code, kind, told",
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed", "it crashed the interpreter (SIGSEGV)"),
        ("import os; os.abort()", "crashed", "it crashed the interpreter (SIGABRT)"),
        ("import os; os._exit(7)", "crashed", "it ended with exit code 7"),
        ("import os; os._exit(0)", "garbled", "it answered '' instead of a line of JSON"),
        ("import time; time.sleep(60)", "out of time", "it was stopped after 2 s"),
        ("while True: pass", "out of time", "2 s"),
        ("bytearray(10**9)", "out of memory", "MemoryError: "),
        ("raise ValueError('no\\nsuch\\x1b[31m op')", "refused", "ValueError: no"),
        ("raise ValueError('such\\x1b[31m\\0 op')", "refused", "ValueError: such?[31m? op"),
        ("raise ValueError('No subgraph in the model.')", "refused", "ValueError: No subgraph in the model"),
        ("open('big', 'wb').truncate(10**8 + 1)", "refused", "OSError: "),
        (
            "import resource; assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); assert 0, 'no core'",
            "refused",
            "no core",
        ),
    ],
)
def test_whatever_befalls_the_child_is_told(hostile, code, kind, told):
    answer = hostile(code, **({"seconds": 2} if kind == "out of time" else {}))
    assert answer["kind"] == kind and kind in runner.KINDS
    assert told in answer["error"] and "\n" not in answer["error"] and not answer["error"].endswith(".")


def test_what_native_code_prints_does_not_mix_with_the_answer(hostile):
    assert "such" in hostile("import os; os.write(1, b'noise'); raise ValueError('such')")["error"]


@pytest.mark.parametrize(
    "said", ["[" * 10**5, "[1]", '{"error": ["x"]}', '{"error": null}', '{"a": ' + "9" * 10**4 + "}"]
)
def test_an_answer_that_is_no_answer_is_garbled(hostile, said):
    code = f"import os, sys; out = {said!r}\nfor d in range(3, 9):\n try: os.write(d, out.encode())\n except OSError: pass\nos._exit(0)"
    answer = hostile(code)
    assert answer["kind"] == "garbled" and answer["error"].startswith("it answered ")


def test_a_child_that_answers_nonsense_is_rejected(monkeypatch, baseline, int8, labels):
    real = runner.run
    monkeypatch.setattr(runner, "run", lambda job, folder: {} if job["model"].startswith("1") else real(job, folder))
    assert only_failure(judged(int8, baseline, labels)).because == "its process answered nonsense"


@pytest.fixture(scope="module")
def cases():
    with fuzz_gate.Cases() as found:
        yield found


def test_the_files_that_are_fuzzed_pass_when_they_are_whole(cases):
    for number, valid in enumerate(cases.models):
        assert cases.judged(valid.model, number) == ("accepted", ""), valid.name


KINDS = len(fuzz_gate.MUTATIONS)


# Each mutation, of each file; the last two crashed LiteRT 2.3.0.
@pytest.mark.parametrize("seed", [*[KINDS * number + number % KINDS for number in range(9)], 98, 251])
def test_damaged_files_neither_crash_nor_hang_the_gate(cases, seed):
    case = cases.run(seed)
    assert case["outcome"].split(":")[0] in ("accepted", "rejected", "undecided"), case
    assert case["seconds"] < fuzz_gate.LONGEST


def test_a_seed_always_gives_the_same_file(cases):
    for seed in range(0, 81, 8):
        name, number, blob = fuzz_gate.mutated(seed, cases.models)
        assert fuzz_gate.mutated(seed, cases.models) == (name, number, blob)
        assert blob != cases.models[number].model


# --- the command


@pytest.fixture
def folder(tmp_path, monkeypatch, baseline, int8, labels):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "baseline.tflite").write_bytes(baseline)
    (tmp_path / "int8.tflite").write_bytes(int8)
    (tmp_path / "broken.tflite").write_bytes(int8[:2000])
    np.savez(tmp_path / "test.npz", x=X, y=labels, slice=np.arange(600) % 2)
    np.savez(tmp_path / "few.npz", x=X[:9], y=labels[:9])
    np.savez(tmp_path / "pixels.npz", x=X.astype("uint8"), y=labels)
    np.savez(tmp_path / "permuted.npz", x=X, y=np.random.default_rng(0).permutation(labels))
    np.savez(tmp_path / "objects.npz", x=X, y=np.array([None, 1], object))
    (tmp_path / "policy.yaml").write_text("max_drop: 0.5\nmax_slice_drop: 0.5\n")
    (tmp_path / "limits.json").write_text('{"max_drop": 0.5}')
    return tmp_path


def command(*words, candidate="int8.tflite", data="test.npz"):
    return CliRunner().invoke(
        main, ["gate", candidate, "--baseline", "baseline.tflite", "--data", data, "--no-speed", *words]
    )


def test_accepted_is_exit_code_0_with_reports_for_machines(folder):
    result = command(
        "--speed",
        "--rounds",
        "6",
        "--policy",
        "policy.yaml",
        "--limit",
        "max_size=90000",
        "--report",
        "out/o.json",
        "--report",
        "out/o.xml",
    )
    assert result.exit_code == 0, result.output
    assert "accepted: all 6 checks passed." in result.output
    report = json.loads((folder / "out/o.json").read_text())
    assert report["outcome"] == "accepted" and report["policy"]["max_size"] == 90000
    assert report["policy"]["max_drop"] == 0.5 and report["measured"]["latency_ratio"]["low"] > 0
    suite = ElementTree.parse(folder / "out/o.xml").getroot()
    assert suite.attrib == {"tests": "6", "failures": "0", "errors": "0"}
    assert len(suite.findall("testsuite/testcase")) == 6


def test_rejected_is_exit_code_1(folder):
    result = command("--limit", "max_size=100", "--report", "o.xml")
    assert result.exit_code == 1 and "FAIL" in result.output
    [failure] = ElementTree.parse(folder / "o.xml").getroot().iter("failure")
    assert "bytes, the baseline" in failure.get("message")
    broken = command("--report", "o.json", "--report", "o.xml", candidate="broken.tflite")
    assert broken.exit_code == 1 and "rejected: loads and runs: ValueError" in broken.output
    assert json.loads((folder / "o.json").read_text())["candidate"]["inputs"] is None


def test_undecided_is_exit_code_2(folder):
    result = command("--report", "o.xml", data="few.npz")
    assert result.exit_code == 2 and "more examples would decide" in " ".join(result.output.split())
    [error] = ElementTree.parse(folder / "o.xml").getroot().iter("error")
    assert error.get("type") == "undecided"


@pytest.mark.parametrize(
    "words, where, told",
    [
        ([], {"candidate": "nosuch.tflite"}, "candidate='nosuch.tflite' cannot be read (No such file or directory)"),
        ([], {"data": "nosuch.npz"}, "data='nosuch.npz' cannot be read (No such file or directory)"),
        ([], {"data": "int8.tflite"}, "data='int8.tflite' cannot be read (it is no .npz file of plain arrays)"),
        ([], {"data": "objects.npz"}, "data='objects.npz' holds an array of Python objects"),
        ([], {"data": "pixels.npz"}, "the samples are uint8: give them as float32, scaled as"),
        ([], {"data": "permuted.npz"}, "which cannot be told from"),
        (["--limit", "min_speedup=1"], {}, "--no-speed contradicts a limit of speedup or peak memory"),
        (["--limit", "max_peak_memory=9"], {}, "--no-speed contradicts a limit of speedup or peak memory"),
        (["--baseline", "broken.tflite"], {}, "baseline cannot be judged against: ValueError"),
        (["--limit", "max_drop=-1"], {}, "max_drop=-1 must be a number in [0, 1]"),
        (["--limit", "max_drop=much"], {}, "limit='max_drop=much' is no number: write it as in max_drop=0.02"),
        (
            ["--limit", "max_loss=1"],
            {},
            "limit='max_loss=1' is no limit: write NAME=VALUE, each name once, of max_drop",
        ),
        (["--limit", "max_drop=0.1", "--limit", "max_drop=0.2"], {}, "limit='max_drop=0.2' comes twice"),
        (["--policy", "nosuch.yaml"], {}, "policy='nosuch.yaml' cannot be read (No such file or directory)"),
        (["--nosuch"], {}, "No such option"),
        (["--seconds", "0"], {}, "seconds=0.0 must be 1 or more"),
        (["--target", "pi"], {}, "target='pi' is unknown: name ssh://"),
        (["--report", "test.npz"], {}, "--report='test.npz' is to be read as well: name another file"),
        (["--policy", "limits.json", "--report", "limits.json"], {}, "--report='limits.json' is to be read as well"),
        (
            ["--policy", "limits.json", "--report", "./limits.json"],
            {},
            "--report='./limits.json' is to be read as well",
        ),
        (["--report", "report.txt"], {}, "--report='report.txt' must end in .json or .xml"),
    ],
)
def test_bad_input_is_exit_code_3_and_one_sentence(folder, words, where, told):
    result = command(*words, **where)
    assert result.exit_code == 3
    assert told in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("suffix", [".json", ".xml"])
@pytest.mark.parametrize("name", ["/dev/null/report", "folder"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(folder, monkeypatch, suffix, name):
    monkeypatch.setattr(gate, "judge", None)
    (folder / f"folder{suffix}").mkdir()
    result = command("--report", f"{name}{suffix}")
    assert result.exit_code == 3 and f"--report='{name}{suffix}' cannot be written (" in result.output
    assert repository.OUTPUT_VARIABLE not in result.output


def test_no_former_report_outlives_a_run_that_decides_nothing(folder):
    reports = ["--report", "o.json", "--report", "o.xml"]
    assert command("--limit", "max_drop=0.5", *reports).exit_code == 0
    assert (folder / "o.json").is_file() and (folder / "o.xml").is_file()
    assert command(*reports, data="permuted.npz").exit_code == 3
    assert not (folder / "o.json").exists() and not (folder / "o.xml").exists()


@pytest.mark.parametrize("words", [["--rounds", "many"], ["--nosuch"], ["--report", "o.txt"]])
def test_nor_does_it_outlive_a_misspelt_call(folder, words):
    assert command("--limit", "max_drop=0.5", "--report", "o.json", "--report=o.xml").exit_code == 0
    assert command(*words, "--report", "o.json", "--report=o.xml").exit_code == 3
    assert not (folder / "o.json").exists() and not (folder / "o.xml").exists()


@pytest.mark.parametrize("policy", [["--policy", "limits.json"], ["--policy=limits.json"]])
def test_a_misspelt_call_removes_nothing_that_is_to_be_read(folder, policy):
    (folder / "limits.json").write_text("max_drop: 0.5")
    assert command(*policy, "--report", "limits.json", "--nosuch").exit_code == 3
    assert (folder / "limits.json").read_text() == "max_drop: 0.5"


def test_one_point_is_no_points(folder):
    assert "1 point " in command("--limit", "max_drop=0.01").output


@pytest.mark.parametrize("error, told", [(RuntimeError("a bug"), "a bug"), (KeyboardInterrupt(), "interrupted")])
def test_a_failure_of_the_gate_itself_is_no_verdict(folder, monkeypatch, error, told):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gate, "judge", fail)
    result = command()
    assert result.exit_code == 3 and told in result.output


def test_neither_help_nor_the_gate_loads_tensorflow(folder):
    direct = "import helpers.deploy.gate, helpers.deploy.gate_report, helpers.deploy.package, helpers.targets.remote"
    by_the_front_door = "from helpers import gate, gate_report, inputs, measure, package; gate.judge, package.write"
    code = f"import sys; {direct}; {by_the_front_door}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository.REPOSITORY).returncode == 0
    code = (
        "import sys; from helpers.__main__ import main; main(['gate', '--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'scipy', 'pandas', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository.REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["o.txt", "o", "o.json.bak", "json", "o.JSON", ""])
def test_a_report_of_another_suffix_is_refused_and_left_alone(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"--report='.*' must end in \.json or \.xml\."):
        gate_report.clear(name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"] * bool(name)


def test_a_former_report_is_cleared_and_a_folder_made_for_a_new_one(tmp_path):
    for suffix in gate_report.WRITERS:
        path = tmp_path / "new" / f"o{suffix}"
        gate_report.clear(path)
        assert path.parent.is_dir() and not path.exists()
        path.write_text("former")
        gate_report.clear(str(path))
        assert not path.exists()
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError, match=r"--report='.*folder\.json' cannot be written \(it is no file\)"):
        gate_report.clear(tmp_path / "folder.json")


def test_changes_are_told_in_the_words_of_the_task(baseline, int8, labels):
    decision = gate.judge(int8, baseline, X[:40], labels[:40], speed=False)
    assert re.fullmatch(r"top-1 [-+]\d.* points \[.*\]", gate_report.changes(decision))
    some = {"delta_iou.masks": stats.Estimate(-0.05, -0.1, 0.02), "iou.masks.baseline": stats.Estimate(0.8)}
    told = gate_report.changes(dataclasses.replace(decision, measured=some))
    assert told == "IoU of masks -5.0 points [-10.0, +2.0]"


def test_a_report_is_written_as_its_suffix_says(baseline, int8, labels, tmp_path):
    decision = judged(int8, baseline, labels, Policy(1.0, max_size=1000))
    gate_report.write(decision, tmp_path / "o.json")
    gate_report.write(decision, str(tmp_path / "o.xml"))
    assert (tmp_path / "o.json").read_text() == gate_report.as_json(decision)
    assert (tmp_path / "o.xml").read_bytes() == gate_report.as_junit(decision)
    assert json.loads(gate_report.as_json(decision))["checks"][-1]["name"] == "size"
    [failure] = ElementTree.fromstring(gate_report.as_junit(decision)).iter("failure")
    assert failure.get("message") == decision.checks[-1].because


def test_numbers_are_told_in_their_own_units():
    share, memory = stats.Estimate(0.941, 0.9, 0.97), stats.Estimate(12_345_678, 12_000_000, 13_000_000)
    assert gate_report.told("top1.candidate", share) == "94.1% [90.0%, 97.0%]"
    assert gate_report.told("agreement", share) == "94.1% [90.0%, 97.0%]"
    assert gate_report.told("delta_top1", stats.Estimate(-0.012, -0.02, 0.001)) == "-1.2 points [-2.0, +0.1]"
    assert gate_report.told("peak_memory.candidate", memory) == "12.3 MB [12.0, 13.0]"
    assert gate_report.told("size.candidate", stats.Estimate(1234.0)) == "1,234 bytes"
    assert gate_report.told("milliseconds.candidate", stats.Estimate(0.12345)) == "0.123 ms"
    assert gate_report.told("latency_ratio", stats.Estimate(1.5, 1.25, 2)) == "1.50 [1.25, 2.00]"


def test_a_report_holds_only_numbers_that_json_knows():
    assert gate_report.finite({"a": [1.0, float("nan")], "b": (float("inf"), "x")}) == {
        "a": [1.0, None],
        "b": [None, "x"],
    }


def test_this_labs_own_model_passes_the_gate(tmp_path):
    """What stands in this repository's continuous integration (claim C19)."""
    fashion, model = data.load("fashion8k"), checkpoints.load("resnet8_fashion_32")
    x = models.network_input(fashion.x_test, 32).numpy()
    calibration = models.network_input(fashion.x_train[:100], 32).numpy()
    (tmp_path / "float32.tflite").write_bytes(quantize.convert(model))
    (tmp_path / "int8.tflite").write_bytes(quantize.convert(model, "int8", calibration))
    np.savez(tmp_path / "test.npz", x=x, y=fashion.y_test)
    options = ["--baseline", "float32.tflite", "--data", "test.npz", "--rounds", "6"]
    limits = ["max_drop=0.02", "max_class_drop=0.1", "max_size=110000", "max_peak_memory=50000000"]
    words = [word for limit in limits for word in ("--limit", limit)]
    command = [sys.executable, "-m", "helpers", "gate", "int8.tflite", *options, *words]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(repository.REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def outlier(mlp):
    """(float file, its int8) of a network that computes what `mlp` does, one channel 64 times as large and read by less."""
    large = tf.keras.models.clone_model(mlp)
    weights = mlp.get_weights()
    weights[0][:, 17], weights[1][17], weights[2][17] = (
        weights[0][:, 17] * 256,
        weights[1][17] * 256,
        weights[2][17] / 256,
    )
    large.set_weights(weights)
    return quantize.convert(large), quantize.convert(large, "full_int8", X)


def test_a_rejection_names_its_cause(outlier, labels, tmp_path):
    file, int8 = outlier
    decision = gate.judge(int8, file, X, labels, speed=False)
    [cause] = decision.causes
    assert decision.outcome == gate.REJECTED and "channel 17 of" in cause and "median channel" in cause
    assert f"Likely cause: {cause}." in gate_report.summary(decision)
    assert json.loads(gate_report.as_json(decision))["causes"] == [cause]
    assert ElementTree.fromstring(gate_report.as_junit(decision)).find("testsuite/system-out").text == cause
    assert cause in [cell for column in gate_report.table(decision).columns for cell in column.cells]
    accepted = gate.judge(file, file, X, labels, speed=False)
    assert accepted.outcome == gate.ACCEPTED and accepted.causes == ()


def test_a_rejection_without_such_a_cause_names_none(mlp, baseline, labels):
    noisy = tf.keras.models.clone_model(mlp)
    random = np.random.default_rng(0)
    noisy.set_weights([each + random.normal(0, 0.3, each.shape) for each in mlp.get_weights()])
    decision = gate.judge(quantize.convert(noisy, "full_int8", X), baseline, X, labels, speed=False)
    assert decision.outcome == gate.REJECTED and decision.causes == ()


@pytest.mark.parametrize("answer", [{"error": "no"}, {"causes": "x"}, {"causes": [1, "a\x1b[31m", *"bcdefgh"]}, {}])
def test_causes_are_not_believed_blindly(outlier, labels, answer, monkeypatch):
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda job, folder: answer if job["task"] == "call" else run(job, folder))
    found = gate.judge(outlier[1], outlier[0], X, labels, speed=False).causes
    assert len(found) <= gate.MOST_CAUSES and all(each.isprintable() for each in found)
    assert found[:1] == (("a?[31m",) if len(answer.get("causes", "")) > 1 else ())


@pytest.mark.parametrize("ends", ["sys.exit(0)", "sys.exit('done')", "raise SystemExit"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_metric_that_ends_the_process_is_no_verdict(folder, ends, inside):
    (folder / "mine.py").write_text(
        f"import sys\ndef right(out, y):\n    {ends if inside else 'return out.argmax(1) == y'}\n{'' if inside else ends}\n"
    )
    done = command("--metric", "mine.py:right")
    assert done.exit_code == 3 and "SystemExit" in done.output


@pytest.mark.parametrize("name", ["--policy", "--target", "--metric", "--task"])
def test_an_empty_word_is_no_default(folder, name):
    done = command(name, "")
    assert done.exit_code == 3 and "is empty: leave it out" in done.output
    assert command().exit_code != 3


def test_few_samples_that_all_lose_a_little_accept_nothing():
    """Of whose kind one in twenty loses nearly all: three points on average, where two are allowed."""
    random, accepted = np.random.default_rng(0), []
    for n in (1, 2, 8, 30, 60):
        for _ in range(100):
            baseline = random.uniform(0.7, 0.9, n)
            candidate = baseline - np.where(random.random(n) < 0.05, 0.6, 0.001)
            accepted.append(policy.drop(baseline, candidate, 0.02).outcome == "pass")
    assert not any(accepted)
    same = random.uniform(0.7, 0.9, 600)
    assert policy.drop(same, same - 0.001, 0.02).outcome == "pass"
    assert policy.drop(same, same - 0.1, 0.02).outcome == "fail"
    labels = np.array(["a"] * 500 + ["b"])
    assert policy.worst_group("slice", same[:501], same[:501] - 0.001, labels, 0.02).outcome == "undecided"
    decibels = -1e-3 * same  # a scale of the user's own
    assert policy.drop(decibels, decibels - 1e-6, 1e-4).outcome == "pass"


def test_a_terminal_without_a_sign_costs_no_verdict(folder):
    words = [
        "gate",
        "baseline.tflite",
        "--baseline",
        "baseline.tflite",
        "--data",
        "test.npz",
        "--task",
        "regression",
        "--no-speed",
    ]
    np.savez(folder / "test.npz", x=X)
    done = subprocess.run(
        [sys.executable, "-m", "helpers", *words, "--report", "r.json"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(repository.REPOSITORY)},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode in (0, 2) and "R?" in done.stdout, done.stderr
    assert json.loads((folder / "r.json").read_text())["outcome"] in ("accepted", "undecided")


@pytest.mark.parametrize("labelled", [True, False])
def test_classes_that_a_file_names_itself_are_no_regression(folder, labelled):
    """A file that ends in ArgMax, and one that names the class beside it: nearly every answer is wrong, by one."""
    weights = np.random.default_rng(0).normal(size=(6, 100)).astype("float32")
    samples = np.random.default_rng(1).normal(size=(600, 6)).astype("float32")

    def named(more):
        function = tf.function(lambda x: tf.minimum(tf.argmax(x @ weights, -1, tf.int32) + more, 99))
        return quantize.convert(function.get_concrete_function(tf.TensorSpec((1, 6), tf.float32)))

    (folder / "right.tflite").write_bytes(named(0))
    (folder / "wrong.tflite").write_bytes(named(1))
    given = {"y": (samples @ weights).argmax(axis=1)} if labelled else {}
    np.savez(folder / "data.npz", x=samples, **given)
    words = ["--baseline", "right.tflite", "--data", "data.npz", "--no-speed"]
    done = CliRunner().invoke(main, ["gate", "wrong.tflite", *words])
    assert done.exit_code == 3 and "may be classes, as of a file that ends in ArgMax" in done.output
    if labelled:
        (folder / "mine.py").write_text("def right(outputs, y):\n    return outputs.reshape(len(y)) == y\n")
        for name, code in (("wrong", 1), ("right", 0)):
            assert (
                CliRunner().invoke(main, ["gate", f"{name}.tflite", *words, "--metric", "mine.py:right"]).exit_code
                == code
            )
    counts = CliRunner().invoke(main, ["gate", "right.tflite", *words, "--task", "regression"])
    assert counts.exit_code in (0, 2) and "regression" in counts.output


def test_a_few_labels_far_from_all_others_do_not_leave_it_open():
    random = np.random.default_rng(0)
    labels = random.standard_t(2, 2000)
    explained = [1 - (random.normal(0, 0.1, 2000)) ** 2 * (1 + np.abs(labels)) for _ in range(2)]
    assert policy.drop(*explained, 0.02).outcome == "pass"
    for n in (1, 2, 5):
        assert policy.drop(explained[0][:n], explained[0][:n] - 0.001, 0.02).outcome == "undecided"
