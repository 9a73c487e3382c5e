"""A decision of the gate, told to people (a table), and to machines (JSON, JUnit XML)."""

import json
import math
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from rich.table import Table

from helpers.base import repository
from helpers.base.errors import InputError, OutputError
from helpers.deploy.policy import FAIL, PASS

MEASURES = ("f1", "r2", "iou", "ap50", "score")
IN_WORDS = {"top1": "top-1", "f1": "F1", "r2": "R²", "iou": "IoU", "ap50": "AP50", "right": "accuracy"}


def table(decision):
    """The checks of a decision, then what else was measured, as a rich Table."""
    shown = Table("", "check", "limit", "measured")
    for check in decision.checks:
        word = {PASS: "pass", FAIL: "FAIL"}.get(check.outcome, "?")
        shown.add_row(word, check.name, _limit(check), check.because)
    shown.add_section()
    for name, estimate in decision.measured.items():
        shown.add_row("", name, "", told(name, estimate))
    if decision.causes:
        shown.add_section()
    for sentence in decision.causes:
        shown.add_row("", "likely cause", "", sentence)
    return shown


def told(name, estimate):
    """A measured number as people read it; its name decides the form."""
    forms = {
        "top1": ".1%",
        "accuracy": ".1%",
        "right": ".1%",
        "agreement": ".1%",
        "peak_memory": "MB",
        "sqnr": ".1f",
        "damage": ".3g",
    }
    first = name.split(".")[0]
    if first.startswith("delta_"):
        return f"{estimate:points}"
    if first == "size":
        return f"{estimate.value:,.0f} bytes"
    if first == "milliseconds":
        return f"{estimate.value:.3g} ms"
    return f"{estimate:{forms.get(first, '.3f' if first in MEASURES else '.2f')}}"


def changes(decision):
    """By how much each score changed, in words: "top-1 -0.3 points [-0.8, +0.2]"; empty where nothing was compared."""
    found = []
    for name, estimate in decision.measured.items():
        if name.startswith("delta_"):
            measure, _, head = name.removeprefix("delta_").partition(".")
            found.append(f"{IN_WORDS.get(measure, measure)}{f' of {head}' if head else ''} {estimate:points}")
    return ", ".join(found)


def summary(decision):
    """One sentence: the outcome and the checks that decided it."""
    decisive = [check for check in decision.checks if check.outcome != PASS]
    failed = [check for check in decisive if check.outcome == FAIL]
    if not decisive:
        return f"{decision.outcome}: all {len(decision.checks)} checks passed."
    causes = "".join(f" Likely cause: {sentence}." for sentence in decision.causes)
    told = "; ".join(f"{check.name}: {check.because}" for check in failed or decisive)
    return f"{decision.outcome}: {told}.{causes}"


def clear(path):
    """Remove a former report, so that it does not outlive a run that decides nothing.

    Raises InputError for another suffix than those of WRITERS, OutputError if nothing can be written there.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise InputError(f"--report={str(path)!r} must end in {' or '.join(WRITERS)}.")
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"--report={str(path)!r} cannot be written ({error.strerror or error}): name a file in a writable folder."
        ) from error


def write(decision, path):
    """Write a decision as the suffix says: .json is everything that it holds, .xml its checks for a CI. Raises OutputError."""
    repository.write(Path(path), WRITERS[Path(path).suffix](decision))


def as_json(decision):
    """Everything that a decision holds."""
    return json.dumps(finite(decision.as_dict()), indent=1, allow_nan=False) + "\n"


def as_junit(decision):
    """The checks as JUnit test cases: one that fails is a failure, an undecided one an error of type undecided, so that no
    CI shows it green."""
    failures = [check for check in decision.checks if check.outcome == FAIL]
    errors = [check for check in decision.checks if check.outcome not in (PASS, FAIL)]
    counts = {"tests": len(decision.checks), "failures": len(failures), "errors": len(errors)}
    suite = ElementTree.Element("testsuite", {"name": "gate", **{name: str(count) for name, count in counts.items()}})
    for check in decision.checks:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "gate", "name": check.name})
        if check in failures:
            ElementTree.SubElement(case, "failure", {"message": check.because})
        elif check in errors:
            ElementTree.SubElement(case, "error", {"type": check.outcome, "message": check.because})
        else:
            ElementTree.SubElement(case, "system-out").text = check.because
    if decision.causes:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(decision.causes)
    root = ElementTree.Element("testsuites", {name: str(count) for name, count in counts.items()})
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


WRITERS = {".json": as_json, ".xml": as_junit}


def finite(value):
    """Plain values with None for what JSON cannot say (NaN, infinity)."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _limit(check):
    if check.limit is None:
        return ""
    if check.name.split(" of ")[0].endswith("drop"):
        points = f"{-100 * check.limit:g}"
        return f"{points} point{'' if points == '1' else 's'}"
    if check.name in ("size", "peak memory"):
        return f"{check.limit:,} bytes"
    if check.name.startswith(("speedup", "SQNR", "damage")):
        return f"{check.limit:g}{' dB' if check.name.startswith('SQNR') else ''}"
    return f"{100 * check.limit:g}%"
