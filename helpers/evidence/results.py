"""The numbers of a run: recorded with their provenance, read back, compared with the recorded ones.

A file is `results/<profile>/<machine>/<notebook>.json`; every number in it is
`{"value", "low", "high", "unit", "tolerance"}`, and "trainings" where it is the mean of some. The tolerance says by how much a
rerun elsewhere may differ; null means that the number belongs to the machine (latency, memory) and is compared with nothing
from another one. `labels` names the numbers that have a row in the tables, in their order. The provenance holds, under "rule",
the hash of each claim's rule as it was before the numbers.

The machine's name is made of what decides latency (`runtime_env.machine_name`). Several machines may have recorded one
notebook: the *reference* is the one whose outputs stand in the notebook itself, the others only add their latencies.
"""

import datetime
import json
import math
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, ResultsError
from helpers.evidence.stats import Estimate

RECORDED = repository.REPOSITORY / "results"


@dataclass(frozen=True)
class Recording:
    """A results file: under which profile, on which machine, of which notebook; when (ISO date and time), and whether its
    machine is the reference for this notebook and profile."""

    profile: str
    machine: str
    notebook: str
    recorded: str
    reference: bool


def record(
    notebook, profile, parameters, numbers, dataset=None, tolerances=None, verdicts=None, labels=None, rules=None
):
    """Write the numbers of a run and return the path of the file, relative to the output folder.

    notebook: its name. profile: under which name the run is kept. parameters: those of the run, name -> value. numbers:
    name -> Estimate or float. dataset: what it ran on. tolerances: by the name of a number or by its first part ("top1");
    numbers with none are compared for equality. verdicts: claim -> verdict. labels: number -> its row in the tables.
    rules: claim -> the hash of its rule, as it was when the numbers were recorded.
    Raises InputError for a number that is not finite.
    """
    tolerances, labels = tolerances or {}, labels or {}  # of numbers that another profile may have
    content = {
        "notebook": notebook,
        "profile": profile,
        "reference": repository.output_root() == repository.REPOSITORY,
        "parameters": parameters,
        "provenance": {
            "recorded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "git_revision": git_revision(),
            "seconds": round(time.monotonic() - runtime_env.STARTED, 1),
            "versions": runtime_env.versions(),
            "machine": runtime_env.machine(),
            "data": {"name": dataset.name, "sha256": dataset.sha256} if dataset else None,
            "rule": rules or {},
        },
        "numbers": {name: _entry(name, number, tolerances) for name, number in numbers.items()},
        "labels": labels,
        "verdicts": verdicts or {},
    }
    relative = f"results/{profile}/{runtime_env.machine_name()}/{notebook}.json"
    repository.write(repository.output_root() / relative, json.dumps(content, indent=1) + "\n")
    return relative


def recordings(profile=None, notebook=None, root=None):
    """What is on record: a list of Recordings, the quick profile first, then the others by name; of each notebook the
    reference first, then the newest.

    profile, notebook: only of these. root: the folder that holds `results/`. A damaged file counts as the oldest.
    """
    found = []
    for path in (root / "results" if root else RECORDED).glob(f"{profile or '*'}/*/{notebook or '*'}.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            recorded, reference = content["provenance"]["recorded"], content["reference"]
        except (ValueError, KeyError, TypeError):
            recorded, reference = "", False
        found.append(Recording(path.parts[-3], path.parts[-2], path.stem, recorded, reference))
    found.sort(key=lambda it: it.recorded, reverse=True)
    return sorted(found, key=lambda it: (it.profile != repository.QUICK, it.profile, it.notebook, not it.reference))


def read(notebook, profile=repository.QUICK, machine=None, root=None):
    """The content of a recorded file as a dict, numbers as Estimates, with `tolerances`, `labels` and `machine`, its name.

    machine: its name; the reference by default, or whichever recorded last. root: the folder that holds `results/`.
    Raises ResultsError when there is none or it is damaged.
    """
    there = [it.machine for it in recordings(profile, notebook, root) if machine in (None, it.machine)]
    if not there:
        where = f" on machine={machine!r}" if machine else ""
        raise ResultsError(
            f"notebook={notebook!r} has no results for profile={profile!r}{where}: `make run ARGS='--profile {profile}'` "
            "makes them."
        )
    path = (root / "results" if root else RECORDED) / profile / there[0] / f"{notebook}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["numbers"]
        content["tolerances"] = {name: entry["tolerance"] for name, entry in entries.items()}
        content["labels"] = content.get("labels", {})  # older files have none
        content["numbers"] = {
            name: Estimate(entry["value"], entry["low"], entry["high"], entry["unit"], entry.get("trainings"))
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path.name} is damaged ({error}): run the notebook again.") from error
    return {**content, "machine": there[0]}


def compare(numbers, recorded):
    """This run's numbers beside the recorded ones: frame with name, value, recorded, tolerance, agrees.

    numbers: name -> Estimate or float. recorded: what `read` returned. Values are compared as they are recorded, with 6
    significant digits. Numbers that belong to the machine, and those that only one of the two has, have None in `agrees`; value
    is None for those that this run did not make.
    """
    rows, absent = [], [name for name in recorded["numbers"] if name not in numbers]
    for name, number in (*numbers.items(), *dict.fromkeys(absent).items()):
        value = number.value if isinstance(number, Estimate) else number
        known = recorded["numbers"].get(name)
        tolerance = recorded["tolerances"].get(name)
        compared = not (value is None or known is None or tolerance is None)
        agrees = abs(_plain(value) - known.value) <= tolerance + 1e-12 if compared else None
        rows.append(
            {
                "number": name,
                "this run": value,
                "recorded": known.value if known else None,
                "tolerance": tolerance,
                "agrees": agrees,
            }
        )
    return pd.DataFrame(rows, columns=["number", "this run", "recorded", "tolerance", "agrees"]).set_index("number")


def absent(table):
    """The names of numbers that were recorded with a tolerance and that this run did not make. table: of `compare`."""
    return table.index[table["this run"].isna() & table["tolerance"].notna()].tolist()


def keep(profile, source, reference=True, notebooks=None):
    """Copy the results of a finished run of `profile` on this machine from the folder `source` among the recorded ones.

    notebooks: the names of those that ran, by default all that lie there. reference: whether this machine becomes the reference
    for what it recorded; if not, it is kept beside it, and what has this machine for its reference stays, since those numbers
    belong to the recorded outputs.
    Returns the names of the notebooks. Raises ResultsError when there are none.
    """
    here = runtime_env.machine_name()
    found = [it for it in recordings(profile, root=Path(source)) if it.machine == here]
    found = [it for it in found if notebooks is None or it.notebook in notebooks]
    if not found:
        raise ResultsError(
            f"profile={profile!r} has no results to keep: run `make run ARGS='--profile {profile}'` first."
        )
    counts = {it.notebook: it.machine for it in reversed(recordings(profile)) if it.reference}  # the first one of each
    kept = [it for it in found if reference or counts.get(it.notebook) != it.machine]
    if not kept:
        raise ResultsError(
            f"this machine, {here}, is the reference itself: record without --machine to replace its numbers."
        )
    for it in kept:
        relative = Path(profile) / it.machine / f"{it.notebook}.json"
        content = json.loads((Path(source) / "results" / relative).read_text(encoding="utf-8"))
        repository.write(RECORDED / relative, json.dumps({**content, "reference": reference}, indent=1) + "\n")
    return sorted({it.notebook for it in kept})


def tolerance_of(name, tolerances):
    """What a number's tolerance is: of its own name, of its first part ("top1" of "top1.float32"), or 0."""
    return tolerances.get(name, tolerances.get(name.split(".")[0], 0.0))


def _entry(name, number, tolerances):
    estimate = number if isinstance(number, Estimate) else Estimate(float(number))
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    if not all(math.isfinite(end) for end in (estimate.value, *ends)):
        raise InputError(f"number {name}={estimate.value!r} is not finite: it cannot be recorded.")
    entry = {
        "value": _plain(estimate.value),
        "low": _plain(estimate.low),
        "high": _plain(estimate.high),
        "unit": estimate.unit,
        "tolerance": tolerance_of(name, tolerances),
    }
    return entry if estimate.trainings is None else {**entry, "trainings": estimate.trainings}


def _plain(value):
    return None if value is None else float(f"{value:.6g}")


def git_revision():
    """The commit whose helpers and notebooks are at work, with "-modified" if they were changed since; None outside git. An installed
    package knows of which commit it was built, if of one.

    A recording of several notebooks changes them one after the other, so it asks once and hands the answer on in
    $COMPRESSION_LAB_REVISION.
    """
    if os.environ.get(repository.REVISION_VARIABLE):
        return os.environ[repository.REVISION_VARIABLE]
    if repository.INSTALLED:  # git would answer for whatever repository it was installed in
        built = repository.SHIPPED / "revision"
        return built.read_text().strip() if built.is_file() else None

    def git(*words):
        done = subprocess.run(["git", *words], cwd=repository.REPOSITORY, capture_output=True, text=True)
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "--verify", "HEAD")
    except OSError:
        return None
    if not revision:
        return None
    return f"{revision}{'-modified' if git('status', '--porcelain', '--', 'helpers', 'notebooks') else ''}"
