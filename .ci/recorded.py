"""Are this machine's recorded numbers those of the reference, within their tolerances? To be run after `record --machine`.

    .venv/bin/python .ci/recorded.py runs/numbers.xml

Exit code 1 if one is not, or if there is nothing to compare.
"""

import contextlib
import sys

import junit

from helpers.base import repository, runtime_env
from helpers.base.errors import ResultsError
from helpers.evidence import results


def compared(machine, profile=repository.QUICK, root=None):
    """Each notebook that `machine` has recorded beside a reference -> which of its numbers are off, a line each, or None."""
    cases = {}
    for it in results.recordings(profile, root=root):
        reference = results.read(it.notebook, profile, root=root)
        if it.machine != machine or reference["machine"] == machine:
            continue
        here = results.read(it.notebook, profile, machine, root)
        table = results.compare(here["numbers"], reference)
        lines = [
            f"{row.Index} is {row.value:.6g} on {machine}, recorded {row.recorded:.6g} on {reference['machine']}: "
            f"off by {abs(row.value - row.recorded):.3g}, allowed {row.tolerance:g}"
            for row in table.rename(columns={"this run": "value"}).itertuples()
            if row.agrees is not None and not row.agrees
        ]
        cases[it.notebook] = "\n".join(lines) or None
    return cases


def lost(notebook, machine, profile=repository.QUICK, root=None):
    """What `machine` recorded no number for, though the reference did, in words; no fault, since an emulator may be missing."""
    with contextlib.suppress(ResultsError):
        here = results.read(notebook, profile, machine, root)["numbers"]
        names = results.absent(results.compare(here, results.read(notebook, profile, root=root)))
        if names:
            return f"; not made here: {', '.join(names)}"
    return ""


def main(report):
    """Compare, and write the report; the exit code."""
    machine = runtime_env.machine_name()
    cases = compared(machine) or {"numbers": f"nothing was recorded on {machine} beside a reference"}
    junit.write(report, "numbers", cases)
    for name, why in cases.items():
        print(f"{name}: {why or 'as recorded'}{lost(name, machine)}")
    return int(any(cases.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
