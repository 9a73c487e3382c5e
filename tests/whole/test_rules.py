"""The error rates of the rules, as `benchmarks/rules.py` simulates them: recorded for the rules of today, and as promised."""

import runpy

import numpy as np
import pytest

from helpers.base import repository
from helpers.evidence import results, verdicts
from helpers.evidence.stats import Estimate
from helpers.tflite import tasks

RULES = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "rules.py"))
JUDGED = [name for name, claim in verdicts.catalogue().items() if claim.conditions]
MOST_WRONG, MOST_ON_THE_MARGIN, LEAST_COVERED = 0.05, 0.10, 0.93


@pytest.fixture(scope="module")
def recorded():
    return results.read("rules", "rules")


def test_every_rule_was_simulated_as_it_is_today(recorded):
    assert recorded["provenance"]["rule"] == {name: verdicts.catalogue()[name].hash for name in JUDGED}


@pytest.mark.parametrize("name", JUDGED)
def test_a_rule_is_seldom_wrong(name, recorded):
    for world in RULES["WORLDS"]:
        share = recorded["numbers"].get(f"rule_error.{name}.{world}")
        if share is not None:
            assert share.value <= (MOST_ON_THE_MARGIN if world == RULES["MARGIN"] else MOST_WRONG), world
        power = recorded["numbers"].get(f"rule_power.{name}.{world}")
        if world in (RULES["TRUE"], RULES["FALSE"]):
            assert power.value >= 0.3, "it hardly ever decides"  # least: C14, of layers that are hard to tell apart


def test_every_method_covers(recorded):
    covered = {name: of for name, of in recorded["numbers"].items() if name.startswith("coverage.")}
    assert len(covered) == len(RULES["methods"](np.random.default_rng(0)))
    for name, share in covered.items():
        assert share.value >= LEAST_COVERED, name


@pytest.mark.parametrize("name", ["C06", "C10", "C20"])
def test_the_simulation_itself(name):
    """A few draws of it: what is exact is exact, what has chance in it is decided where it is plain."""
    found = RULES["errors"](name, 20)
    assert all(of.value <= 0.2 for key, of in found.items() if key.startswith("rule_error"))
    assert found[f"rule_power.{name}.true"].value > 0.8


def test_a_simulation_finds_a_rule_that_is_wrong(monkeypatch):
    """Planted: a claim that takes any interval above its margin by value alone is decided at random on the margin."""
    monkeypatch.setattr(
        verdicts.Bound,
        "outcome",
        lambda bound, numbers, language: (numbers[bound.number].value >= bound.margin, "by value"),
    )
    assert RULES["errors"]("C10", 40)["rule_error.C10.margin"].value > 0.9


def test_numbers_are_drawn_around_the_truth():
    """What a world says is true is what the drawn numbers have on average."""
    random = np.random.default_rng(0)
    for name in ("C01", "C06", "C12", "C19", "C13"):
        bound = next(iter(verdicts.catalogue()[name].conditions.values()))[0]
        truth = RULES["apart"](bound, True)
        drawn = [RULES["drawn"](random, bound, truth) for _ in range(60)]
        assert isinstance(drawn[0], Estimate)
        values = np.array([each.value for each in drawn])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(60) + 1e-9, name


@pytest.mark.parametrize("name", [*tasks.TASKS, "pairs"])
def test_every_task_is_judged_as_honestly_as_classes(name):
    """As recorded; a share of 5% may come out some tenths higher by chance."""
    content = results.read("tasks", "rules")
    numbers = content["numbers"]
    assert numbers[f"coverage.{name}"].value >= LEAST_COVERED
    for world in ("margin_accepted", "margin_rejected"):
        assert numbers[f"gate_error.{name}.{world}"].low <= MOST_WRONG, world
    for world in ("worse", "harmless"):
        assert numbers[f"gate_error.{name}.{world}"].value <= 0.01, world
