"""The numbers of a run: recorded with their provenance, read back, compared with the recorded ones.

A file is `results/<profile>/<notebook>.json`; every number in it is
`{"value", "low", "high", "unit", "tolerance"}`. The tolerance says by how much a rerun elsewhere may differ; null
means that the number belongs to the machine (latency, memory) and is not compared.
"""

import datetime
import json
import math
import subprocess
import time

import pandas as pd

from helpers import files, parameters, runtime_env
from helpers.stats import Estimate

RECORDED = files.REPOSITORY / "results"


class ResultsError(ValueError):
    """A result cannot be recorded or read."""


def record(notebook, numbers, used, dataset=None, tolerances=None, verdicts=None):
    """Write the numbers of a run and return the path of the file, relative to the output folder.

    notebook: its name. numbers: name -> Estimate or float. used: the parameters of the run, name -> value; they
    decide the profile (see `profile_of`). dataset: what it ran on. tolerances: by the name of a number or by its
    first part ("top1"); numbers with none are compared for equality. verdicts: claim -> verdict.
    Raises ResultsError for a number that is not finite.
    """
    content = {
        "notebook": notebook,
        "profile": profile_of(notebook, used),
        "parameters": used,
        "provenance": {
            "recorded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "git_revision": _git_revision(),
            "seconds": round(time.monotonic() - runtime_env.STARTED, 1),
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
            "data": {"name": dataset.name, "sha256": dataset.sha256} if dataset else None,
        },
        "numbers": {name: _entry(name, number, tolerances or {}) for name, number in numbers.items()},
        "verdicts": verdicts or {},
    }
    relative = f"results/{content['profile']}/{notebook}.json"
    files.write(files.output_root() / relative, json.dumps(content, indent=1) + "\n")
    return relative


def profile_of(notebook, used):
    """Under which name a run is kept: the profile whose parameters it has ("quick" is the notebook's own
    defaults), or "custom", so that a run with other parameters never passes for a recorded one."""
    for profile, values in parameters.profiles(notebook).items():
        if used == values:
            return profile
    return files.CUSTOM


def read(notebook, profile=files.QUICK, root=None):
    """The content of a recorded file as a dict, numbers as Estimates. root: the folder that holds `results/`.

    Raises ResultsError when there is none or it is damaged.
    """
    path = (root / "results" if root else RECORDED) / profile / f"{notebook}.json"
    try:
        content = json.loads(path.read_text())
        content["tolerances"] = {name: entry["tolerance"] for name, entry in content["numbers"].items()}
        content["numbers"] = {
            name: Estimate(entry["value"], entry["low"], entry["high"], entry["unit"])
            for name, entry in content["numbers"].items()
        }
    except FileNotFoundError:
        raise ResultsError(
            f"notebook={notebook!r} has no results for profile={profile!r}: run `make run` first."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path.name} is damaged ({error}): run the notebook again.") from error
    return content


def profiles():
    """The folders in which notebooks have results on record: profiles, and as `quick_…` the quick one on other processors;
    the quick one first, then those."""
    notebooks = {path.stem for path in files.NOTEBOOKS.glob("*.ipynb")}
    found = {path.parent.name for path in RECORDED.glob("*/*.json") if path.stem in notebooks}
    return sorted(found, key=lambda name: (name != files.QUICK, not name.startswith(files.QUICK), name))


def compare(numbers, recorded):
    """This run's numbers beside the recorded ones: frame with name, value, recorded, tolerance, agrees.

    numbers: name -> Estimate or float. recorded: what `read` returned. Values are compared as they are recorded, with 6
    significant digits. Numbers that belong to the machine, and those that were not recorded, have None in `agrees`.
    """
    rows = []
    for name, number in numbers.items():
        value = number.value if isinstance(number, Estimate) else number
        known = recorded["numbers"].get(name)
        tolerance = recorded["tolerances"].get(name)
        agrees = None if known is None or tolerance is None else abs(_plain(value) - known.value) <= tolerance + 1e-12
        rows.append(
            {
                "number": name,
                "this run": value,
                "recorded": known.value if known else None,
                "tolerance": tolerance,
                "agrees": agrees,
            }
        )
    return pd.DataFrame(rows).set_index("number")


def _entry(name, number, tolerances):
    estimate = number if isinstance(number, Estimate) else Estimate(float(number))
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    if not all(math.isfinite(end) for end in (estimate.value, *ends)):
        raise ResultsError(f"number {name}={estimate.value!r} is not finite: it cannot be recorded.")
    tolerance = tolerances.get(name, tolerances.get(name.split(".")[0], 0.0))
    return {
        "value": _plain(estimate.value),
        "low": _plain(estimate.low),
        "high": _plain(estimate.high),
        "unit": estimate.unit,
        "tolerance": tolerance,
    }


def _plain(value):
    return None if value is None else float(f"{value:.6g}")


def _git_revision():
    def git(*words):
        return subprocess.run(["git", *words], cwd=files.REPOSITORY, capture_output=True, text=True).stdout.strip()

    try:
        revision = git("rev-parse", "--verify", "HEAD")
    except OSError:
        return None
    return (
        f"{revision}{'-modified' if git('status', '--porcelain', '--', 'helpers', 'notebooks') else ''}"
        if revision
        else None
    )
