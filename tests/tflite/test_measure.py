"""Measured figures: what must hold on every machine, however fast or busy."""

import json
import subprocess
import sys

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError, RunError
from helpers.compress import quantize
from helpers.networks import models
from helpers.tflite import litert, measure, runner


@pytest.fixture(scope="module")
def small():
    runtime_env.seed_everything(0)
    return quantize.convert(models.mlp((256,), inputs=784))


@pytest.fixture(scope="module")
def large():
    """40 MB, and as many times the multiplications."""
    return quantize.convert(models.mlp((5000, 1200), inputs=784))


# --- accuracy


def test_correct_says_which_samples_are_right(small):
    x = np.random.default_rng(0).random((70, 784)).astype("float32")
    answers = litert.predict(small, x).argmax(axis=1)
    labels = np.where(np.arange(70) % 7 == 0, (answers + 1) % 10, answers)
    found = measure.correct(small, x, labels)
    assert found.dtype == bool
    assert found.tolist() == [number % 7 != 0 for number in range(70)]


def test_labels_in_a_column_are_no_table(small):
    x = np.random.default_rng(0).random((70, 784)).astype("float32")
    answers = litert.predict(small, x).argmax(axis=1)
    assert measure.correct(small, x, answers[:, None]).shape == (70,)


@pytest.mark.parametrize("y", [np.zeros(4, int), 3])
def test_labels_that_do_not_match_the_samples_are_refused(small, y):
    with pytest.raises(InputError, match=r"y has . labels for 5 samples: give one a sample"):
        measure.correct(small, np.zeros((5, 784), "float32"), y)


# --- the same answers


@pytest.mark.parametrize(
    "one, other, wanted",
    [
        ([[0, 2, 1], [3, 0, 0]], [[0, 1, 9], [1, 0, 0]], [False, True]),
        ([[0.0], [100.0], [50.0]], [[0.9], [102.0], [50.0]], [True, False, True]),  # to a hundredth of the range
        ([[5.0], [5.0]], [[5.0], [5.1]], [True, False]),
    ],
)
def test_answers_are_alike_by_their_largest_number_or_by_their_only_one(one, other, wanted):
    assert measure.like(np.array(one), np.array(other)).tolist() == wanted


# --- latency


@pytest.mark.timing
def test_latency_compares_with_the_baseline(small, large):
    x = np.zeros((1, 784), "float32")
    table = measure.latency({"small": small, "the same": small, "large": large}, "small", x, rounds=30)
    assert table.index.tolist() == ["small", "the same", "large"]
    assert table.loc["small", ["ratio", "low", "high"]].tolist() == [1, 1, 1]
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()
    assert (table["milliseconds"] > 0).all()
    assert table.loc["large", "high"] < 0.5
    assert table.loc["large", "milliseconds"] > 2 * table.loc["small", "milliseconds"]
    assert 0.3 < table.loc["the same", "ratio"] < 3


def test_an_unknown_baseline_is_refused(small):
    with pytest.raises(InputError, match=r"baseline='dense' is not one of pruned, int8"):
        measure.latency({"pruned": small, "int8": small}, "dense", np.zeros((1, 784), "float32"))


# --- memory


def test_a_larger_model_needs_more_memory(small, large):
    little, much = (measure.peak_memory(model, repeats=2) for model in (small, large))
    assert (little.unit, much.unit) == ("bytes", "bytes")
    assert 0 < little.value < much.value
    assert little.low <= little.value <= little.high
    assert much.value > 0.5 * len(large)


def test_a_child_that_fails_is_reported_with_its_last_line(small):
    with pytest.raises(RunError, match=r"the child process that runs the model failed: ValueError: .*"):
        measure.peak_memory(small[:-1000])


def test_a_report_has_size_latency_and_memory_of_each_model(small, large, tmp_path):
    (tmp_path / "large.tflite").write_bytes(large)
    frame, machine = measure.report({"small": small, "large": tmp_path / "large.tflite"}, "small", rounds=6)
    assert frame["size"].tolist() == [len(small), len(large)]
    assert (frame["gzip"] <= frame["size"]).all()
    assert frame.loc["small", ["ratio", "low", "high"]].tolist() == [1, 1, 1]
    assert frame.loc["large", "high"] < 0.5
    assert 0 < frame.loc["small", "memory"].value < frame.loc["large", "memory"].value
    assert machine["system"] and machine["cores"] > 0 and "same" not in frame


@pytest.mark.parametrize("failed, told", [(0, "times the models failed: no"), (3, "runs the empty failed: no")])
def test_a_job_that_failed_leaves_no_table(failed, told):
    answers = [{"blocks": [[{"a": 1.0, "b": 2.0}]] * 2}, *[{"bytes": 1}] * 3]
    answers[failed] = {"error": "no", "kind": "refused"}
    with pytest.raises(RunError, match=told):
        measure.table({"a": "0.tflite", "b": "1.tflite"}, "a", answers)


def test_a_job_may_be_read_from_standard_input(small, tmp_path):
    (tmp_path / "model").write_bytes(small)
    job = {"task": "memory", "model": "model", "threads": 1}
    done = subprocess.run(
        [sys.executable, "-P", runner.__file__], input=json.dumps(job), cwd=tmp_path, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["bytes"] > len(small)
