"""Measured figures: what must hold on every machine, however fast or busy."""

import numpy as np
import pytest

from helpers import litert, measure, models, quantize, runtime_env


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


@pytest.mark.parametrize("y", [np.zeros(4, int), np.zeros((5, 1), int), 3])
def test_labels_that_do_not_match_the_samples_are_refused(small, y):
    with pytest.raises(ValueError, match=r"y has shape \(.*\): give one label for each of the 5 samples"):
        measure.correct(small, np.zeros((5, 784), "float32"), y)


# --- latency


def test_latency_compares_with_the_baseline(small, large):
    x = np.zeros((1, 784), "float32")
    table = measure.latency({"small": small, "the same": small, "large": large}, "small", x, rounds=12)
    assert table.index.tolist() == ["small", "the same", "large"]
    assert table.loc["small", ["ratio", "low", "high"]].tolist() == [1, 1, 1]
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()
    assert (table["milliseconds"] > 0).all()
    assert table.loc["large", "high"] < 0.5
    assert table.loc["large", "milliseconds"] > 2 * table.loc["small", "milliseconds"]
    assert 0.3 < table.loc["the same", "ratio"] < 3


def test_an_unknown_baseline_is_refused(small):
    with pytest.raises(KeyError, match=r"baseline='dense' is not one of pruned, int8"):
        measure.latency({"pruned": small, "int8": small}, "dense", np.zeros((1, 784), "float32"))


# --- memory


def test_a_larger_model_needs_more_memory(small, large):
    little, much = (measure.peak_memory(model, repeats=2) for model in (small, large))
    assert (little.unit, much.unit) == ("bytes", "bytes")
    assert 0 < little.value < much.value
    assert little.low <= little.value <= little.high
    assert much.value > 0.5 * len(large)


def test_a_child_that_fails_is_reported_with_its_last_line(small):
    with pytest.raises(RuntimeError, match=r"the child process that runs the model failed: ValueError: .*"):
        measure.peak_memory(small[:-1000])
