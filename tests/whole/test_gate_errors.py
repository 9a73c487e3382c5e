"""The count of the gate's errors: what is planted for the checks of accuracy and conversion, and how errors become numbers."""

import runpy
import subprocess
import sys

import numpy as np
import pytest

from helpers.base import repository
from helpers.deploy import gate
from helpers.evidence import verdicts

BENCHMARK = repository.REPOSITORY / "benchmarks" / "gate_errors.py"
ERRORS = runpy.run_path(str(BENCHMARK))


@pytest.fixture(scope="module")
def shop():
    return ERRORS["Workshop"](speed=False)


@pytest.mark.parametrize("kind, outcome", [("regression", gate.REJECTED), ("harmless", gate.ACCEPTED)])
def test_the_gate_is_right_about_a_case_of_each_kind(shop, kind, outcome):
    case = ERRORS["run"](shop, "conversion", kind, 2)
    assert case["outcome"] == outcome, case


def test_noise_costs_what_it_should(shop):
    planted, (low, high) = (
        ERRORS["accuracy"](shop, "regression", np.random.default_rng(2)),
        ERRORS["LOSS"]["regression"],
    )
    assert low <= planted.by <= high and planted.by == shop.lost(planted.file)[0]


def test_errors_become_the_numbers_that_the_claim_reads():
    outcomes = {
        "regression": [gate.ACCEPTED, gate.REJECTED, gate.UNSURE, gate.REJECTED],
        "harmless": [gate.ACCEPTED] * 4,
    }
    cases = [
        {"check": check, "kind": kind, "outcome": outcome, "by": 2.0 if kind == "regression" else None}
        for check in ERRORS["CHECKS"]
        for kind, found in outcomes.items()
        for outcome in found
    ]
    numbers = ERRORS["numbers"](cases)
    shares = [numbers[f"gate_error.{name}.memory"].value for name in ("missed", "false_alarm", "undecided")]
    assert shares == [0.25, 0, 0.125] and numbers["gate_error.mildest.memory"] == 2
    assert verdicts.judge(numbers, "C19")["verdict"].item() == verdicts.UNDECIDED


def test_help_comes_without_tensorflow():
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\ntry: runpy.run_path({str(BENCHMARK)!r}, run_name='__main__')\n"
    )
    code += "except SystemExit: print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("Usage") and done.stdout.strip().endswith("False"), done.stderr
