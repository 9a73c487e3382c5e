"""A decision of the gate, told to people (a table), and to machines (JSON, JUnit XML)."""

import json
import math
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from rich.table import Table

from helpers import files
from helpers.gate_checks import FAIL, PASS

_MEGABYTE = 1e6


def table(decision):
    """The checks of a decision, then what else was measured, as a rich Table."""
    shown = Table("", "check", "limit", "measured")
    for check in decision.checks:
        word = {PASS: "pass", FAIL: "FAIL"}.get(check.outcome, "?")
        shown.add_row(word, check.name, _limit(check), check.because)
    shown.add_section()
    for name, estimate in decision.measured.items():
        shown.add_row("", name, "", told(name, estimate))
    return shown


def told(name, estimate):
    """A measured number as people read it; its name decides the form."""
    first = name.split(".")[0]
    if first in ("top1", "agreement"):
        return _scaled(estimate, 100, ".1f", "%")
    if first == "delta_top1":
        return _scaled(estimate, 100, "+.1f", "points")
    if first == "size":
        return f"{estimate.value:,.0f} bytes"
    if first == "peak_memory":
        return _scaled(estimate, 1 / _MEGABYTE, ".1f", "MB")
    if first == "milliseconds":
        return f"{estimate.value:.3g} ms"
    return f"{estimate:.2f}"


def summary(decision):
    """One sentence: the outcome and the checks that decided it."""
    decisive = [check for check in decision.checks if check.outcome != PASS]
    failed = [check for check in decisive if check.outcome == FAIL]
    if not decisive:
        return f"{decision.outcome}: all {len(decision.checks)} checks passed."
    return f"{decision.outcome}: " + "; ".join(f"{check.name}: {check.because}" for check in failed or decisive) + "."


def clear(path, option):
    """Remove a former report, so that it does not outlive a run that decides nothing. option: what messages call the path.

    Raises files.OutputError if nothing can be written there.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise files.OutputError(
            f"{option}={str(path)!r} cannot be written ({error.strerror or error}): name a file in a writable folder."
        ) from error


def write_json(decision, path):
    """Write everything that a decision holds. Raises files.OutputError."""
    files.write(Path(path), json.dumps(finite(decision.as_dict()), indent=1, allow_nan=False) + "\n")


def write_junit(decision, path):
    """Write the checks as JUnit test cases: one that fails is a failure, an undecided one an error of type undecided, so
    that no CI shows it green. Raises files.OutputError.
    """
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
    root = ElementTree.Element("testsuites", {name: str(count) for name, count in counts.items()})
    root.append(suite)
    ElementTree.indent(root)
    files.write(Path(path), ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


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
    if check.name.endswith("drop"):
        points = f"{-100 * check.limit:g}"
        return f"{points} point{'' if points == '1' else 's'}"
    if check.name in ("size", "peak memory"):
        return f"{check.limit:,} bytes"
    return f"{check.limit:g}" if check.name == "speedup" else f"{100 * check.limit:g}%"


def _scaled(estimate, factor, spec, unit):
    if estimate.low is None:
        return f"{factor * estimate.value:{spec}} {unit}"
    low, high = factor * estimate.low, factor * estimate.high
    return f"{factor * estimate.value:{spec}} {unit} [{low:{spec}}, {high:{spec}}]"
