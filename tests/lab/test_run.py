"""A run: parameters checked, numbers collected and returned as they are, claims judged, everything recorded."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import lab
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import results, stats
from helpers.evidence.stats import Estimate
from helpers.evidence.verdicts import catalogue

SETTINGS = {
    "tolerances": {"top1": 0.02, "sweep": None},
    "table": [["top1.b", "b, top-1"], ["top1.a", "a, top-1"]],
    "key_numbers": ["top1.a"],
}
RIGHT = np.array([True, True, False, True] * 25)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begins a run of a small notebook; parameters may be given."""
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path / "runs"))
    cell = new_code_cell("share = 0.5  # in (0, 1)\nseed = 3  # in [0, )", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell], metadata={"lab": SETTINGS}), tmp_path / "09_probe.ipynb")
    return lambda **given: lab.begin("09_probe", {"share": 0.5, "seed": 3, "other": object(), **given})


def test_parameters_are_checked_before_anything_runs(begin):
    assert begin().parameters == {"share": 0.5, "seed": 3}
    with pytest.raises(InputError, match=r"share=1.5 must lie in \(0, 1\)"):
        begin(share=1.5)


def test_random_numbers_start_from_the_seed(begin):
    begin()
    first = np.random.rand(3)
    begin()
    np.testing.assert_array_equal(np.random.rand(3), first)
    begin(seed=4)
    assert not np.array_equal(np.random.rand(3), first)


def test_what_is_noted_comes_back_as_it_is(begin):
    run = begin()
    frame = pd.DataFrame({"ratio": [2.0], "low": [1.9], "high": [2.1], "milliseconds": [3.0]}, index=["a"])
    sizes = {"a": 10, "b": np.int64(20)}
    assert run.note("latency_ratio", frame) is frame and run.note("size", sizes) is sizes
    assert run.note("sweep.seconds", 1.5) == 1.5
    spread = pd.Series({"x": Estimate(0.1, 0.0, 0.2)})
    assert run.note("spread", spread) is spread
    assert run.numbers == {
        "latency_ratio.a": Estimate(2.0, 1.9, 2.1, "ratio"),
        "size.a": 10.0,
        "size.b": 20.0,
        "sweep.seconds": 1.5,
        "spread.x": Estimate(0.1, 0.0, 0.2),
    }


def test_nested_mappings_and_frames_of_estimates(begin):
    run = begin()
    run.note("levels", {"min": {"a": 3, "b": 5}})
    run.note("top1", pd.DataFrame({"value": [0.9], "low": [0.8], "high": [1.0], "unit": ["share"]}, index=["c"]))
    assert run.numbers == {"levels.min.a": 3.0, "levels.min.b": 5.0, "top1.c": Estimate(0.9, 0.8, 1.0, "share")}


@pytest.mark.parametrize("value", ["0.9", None, [1, 2], pd.DataFrame({"value": [1.0]})])
def test_what_is_no_number_is_refused(begin, value):
    with pytest.raises(InputError, match="x is noted as"):
        begin().note("x", value)


def test_a_name_stands_for_one_number(begin):
    run = begin()
    run.note("x", 1.0)
    assert run.note("x", 1) == 1
    with pytest.raises(InputError, match=r"number 'x' was noted before, as 1\.0"):
        run.note("x", 2.0)


def test_accuracy_is_paired_and_kept(begin):
    run, worse = begin(), RIGHT & (np.arange(100) > 9)
    table = run.accuracy({"a": RIGHT, "b": worse, "few": worse[:20]}, "a", kernels=["x", "y", "z"])
    assert run.numbers["top1.a"] == stats.proportion(RIGHT)
    assert run.numbers["delta_top1.b"] == stats.paired_difference(RIGHT, worse)
    assert run.numbers["delta_top1.few"] == stats.paired_difference(RIGHT[:20], worse[:20])
    assert list(table.columns) == ["top-1", "minus a", "kernels"]
    assert table.loc["b", "minus a"] == f"{run.numbers['delta_top1.b']:.3f}"


def test_accuracy_of_several_seeds_against_one_answer_or_none(begin):
    run, seeds = begin(), np.stack([RIGHT, ~RIGHT])
    run.accuracy({"seeds": seeds}, RIGHT)
    assert run.numbers["delta_top1.seeds"] == stats.paired_difference(np.stack([RIGHT, RIGHT]), seeds)
    assert list(run.accuracy({"alone": RIGHT}).columns) == ["top-1"] and "delta_top1.alone" not in run.numbers


def test_scores_of_any_measure_are_paired_and_kept(begin):
    run, random = begin(), np.random.default_rng(0)
    exact = random.normal(1, 1, 400)
    models = {"float32": exact, "a": exact - 0.25, "b": exact + random.normal(0, 0.1, 400)}
    table = run.scores("r2", models, "float32")
    assert list(table.columns) == ["r2", "r2 minus float32"] and table.loc["float32", "r2 minus float32"] == ""
    assert run.numbers["r2.a"].value == pytest.approx(exact.mean() - 0.25)
    assert run.numbers["delta_r2.a"].value == pytest.approx(-0.25) and "delta_r2.float32" not in run.numbers
    assert run.numbers["delta_r2.b"] == stats.score_difference(exact, models["b"])
    whole = stats.OfSet(400, lambda weights: weights @ exact / weights.sum(axis=1))
    assert list(run.scores("tar", {"x": whole}, digits=1).columns) == ["tar"]
    assert run.numbers["tar.x"] == stats.score(whole)


def test_a_gain_is_paired_and_kept(begin):
    run, seeds = begin(), np.stack([RIGHT, ~RIGHT])
    assert run.gain("x", RIGHT, seeds) == stats.paired_difference(np.stack([RIGHT, RIGHT]), seeds)
    assert run.numbers["gain.x"].unit == "share"


def test_costs_of_a_report_are_kept(begin):
    run = begin()
    memory = [Estimate(30.0, 29.0, 31.0, "bytes"), Estimate(10.0, 9.0, 11.0, "bytes")]
    frame = pd.DataFrame(
        {"ratio": [1.0, 2.0], "low": [1.0, 1.9], "high": [1.0, 2.1], "size": [100, 25], "memory": memory},
        index=["a", "b"],
    )
    assert run.costs(frame, "a") is frame
    assert run.numbers["latency_ratio.b"] == Estimate(2.0, 1.9, 2.1, "ratio")
    assert (run.numbers["size.b"], run.numbers["size_ratio.b"], run.numbers["peak_memory.b"]) == (25, 0.25, memory[1])
    other = begin()
    other.costs(frame)
    assert "size_ratio.b" not in other.numbers


def test_the_end_records_with_tolerances_labels_and_verdicts(begin, tmp_path):
    run = begin()
    run.note("top1.a", Estimate(0.9, 0.8, 1.0))
    run.note("latency_ratio.a", 2.0)
    run.note("sweep.seconds", 9.0)
    run.note("raises.printed_cast", 1.0)
    verdicts = run.conclude("C22a")
    assert verdicts.verdict.to_dict() == {"C22a": "refuted"}
    found = results.read("09_probe", root=tmp_path / "runs")
    assert found["tolerances"] == {
        "top1.a": 0.02,
        "latency_ratio.a": None,
        "sweep.seconds": None,
        "raises.printed_cast": 0.0,
    }
    assert list(found["labels"].items()) == [("top1.b", "b, top-1"), ("top1.a", "a, top-1")] and found["verdicts"] == {
        "C22a": "refuted"
    }
    assert found["provenance"]["rule"] == {"C22a": catalogue()["C22a"].hash}
    assert found["parameters"] == run.parameters and found["profile"] == "quick"


def test_a_missing_number_is_named_and_nothing_is_recorded(begin, tmp_path):
    with pytest.raises(InputError, match=r"claim C01 needs the numbers delta_top1\.pruned"):
        begin().conclude("C01")
    assert not (tmp_path / "runs" / "results").exists()
