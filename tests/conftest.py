"""Has nbval compare recorded outputs as `lab.recorded` does, keeps what tests write away from the repository, and runs with
`--changed` only what a change can reach (see tests/changed.py)."""

import atexit
import os
import re
import tempfile
import time
from pathlib import Path

import pytest

# A worker of pytest-xdist, and every kernel that it starts, keeps to a core of its own: two that share two cores wait for
# each other in loops. TensorFlow then has one thread: a second one costs a fifth more, and recorded tolerances cover one.
# Before the lab is imported, which counts its cores.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(_cores)]})
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from nbval.plugin import IPyNbCell

from helpers.base import repository, runtime_env
from helpers.lab import recorded
from tests import changed


def compare_outputs(self, test, ref, skip_compare=None):
    """In place of IPyNbCell.compare_outputs: whether a cell's outputs match; if not, its report says why."""
    tolerance = self.cell.metadata.get("tolerance")
    why = recorded.difference(self.sanitize_outputs(ref), self.sanitize_outputs(test), tolerance)
    self.comparison_traceback = [f"Cell {self.cell_num} ({self.cell.get('id', 'no id')}), {why}"]
    return why is None


IPyNbCell.compare_outputs = compare_outputs

# What tests and kernels write must not land among the recorded results, nor outlive the run.
if not os.environ.get(repository.OUTPUT_VARIABLE):
    _output = tempfile.TemporaryDirectory(prefix="compression_lab_")
    atexit.register(_output.cleanup)
    os.environ[repository.OUTPUT_VARIABLE] = _output.name

# Latencies are not compared, so notebooks under test time each model no more often than an interval needs.
os.environ.setdefault(runtime_env.MOST_ROUNDS_VARIABLE, "6")


# Files that take half a minute and more: a worker that begins one while the other has nothing left would keep a core idle.
LONGEST = (
    *("test_exercises.py", "test_bare.py", "test_gate.py", "test_sweep.py", "test_outliers.py", "test_wheel.py"),
    *("test_zoo.py", "test_from_pytorch.py"),
)


def pytest_collection_modifyitems(items):
    """Notebooks first, then the longest files, then all others."""
    items.sort(key=lambda item: 0 if item.path.suffix == ".ipynb" else 1 + (item.path.name not in LONGEST))


def pytest_addoption(parser):
    parser.addoption(
        "--changed", action="store_true", help="leave out files that passed before and that no change reaches"
    )


def pytest_ignore_collect(collection_path, config):
    """Leave a file out; None has no opinion."""
    asked = config.getoption("--changed") and re.match(r"test_|\d", collection_path.name)
    known = asked and changed.passed().get(_name(collection_path, config))
    return True if known and known == changed.key(collection_path) else None


def pytest_runtest_logreport(report):
    _outcomes.setdefault(report.nodeid.split("::")[0], set()).add(report.outcome)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Remember the files that ran to their end: all that was collected of them, and nothing failed."""
    config = session.config
    if config.getoption("--changed") and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK  # nothing was reached, which is what was asked
    options = ("keyword", "lf", "deselect", "maxfail")
    partly = (
        any(config.getoption(option, None) for option in options)
        or any("::" in word for word in config.args)
        or exitstatus not in (0, 1)
    )
    if hasattr(config, "workerinput") or partly or config.getoption("collectonly"):
        return
    keys = {}
    for file, outcomes in _outcomes.items():
        path = config.rootpath / file
        if path.is_file():
            # What was written meanwhile was not what ran.
            sound = "failed" not in outcomes and changed.older(path, _BEGAN)
            keys[_name(path, config)] = changed.key(path) if sound else None
    if keys:
        changed.store(keys)


def _name(path, config):
    """A file, and which of its tests were asked for."""
    return f"{Path(path).resolve().relative_to(changed.ROOT)} -m {config.getoption('markexpr')}"


_outcomes, _BEGAN = {}, time.time()
