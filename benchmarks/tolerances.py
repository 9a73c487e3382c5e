"""How far do a notebook's numbers move on another machine? Reruns it under other vector instructions, thread numbers
and seeds, and prints for every number the largest shift from the recorded one, beside its tolerance, and every verdict
that changed.

    python benchmarks/tolerances.py 01_mnist_mlp_pruning
"""

import os
import sys
import tempfile
from pathlib import Path

import papermill

from helpers.base import repository
from helpers.evidence import results
from helpers.lab import notebook, parameters

SETTINGS = {
    "SSE4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, {}),
    "one thread": ({"TF_NUM_INTRAOP_THREADS": "1"}, {}),
    "no oneDNN": ({"TF_ENABLE_ONEDNN_OPTS": "0"}, {}),
    "other seeds": ({}, {"seeds": [10, 11, 12], "seed": 10}),
}


def rerun(path, environment, changes, folder):
    """The results of one run, as `results.read` gives them."""
    declared = parameters.defaults(path)
    changes = {name: value for name, value in changes.items() if name in declared}
    os.environ.update({repository.OUTPUT_VARIABLE: folder, **environment})
    try:
        papermill.execute_notebook(path, Path(folder) / path.name, changes, kernel_name="python3")
    finally:
        for name in environment:
            del os.environ[name]
    profile = repository.CUSTOM if changes else repository.QUICK
    return results.read(path.stem, profile, root=Path(folder))


def main():
    """Rerun a notebook in every setting; print the largest shift of each number beside its tolerance."""
    path = notebook.find(sys.argv[1] if len(sys.argv) > 1 else "01")
    recorded = results.read(path.stem)
    shifts = {}
    for setting, (environment, changes) in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            again = rerun(path, environment, changes, folder)
            for claim, verdict in again["verdicts"].items():
                if verdict != recorded["verdicts"][claim]:
                    print(f"{setting}: {claim} is {verdict}, recorded was {recorded['verdicts'][claim]}")
            for name, estimate in again["numbers"].items():
                shifts.setdefault(name, {})[setting] = abs(estimate.value - recorded["numbers"][name].value)
    for name, by_setting in shifts.items():
        tolerance = recorded["tolerances"][name]
        if tolerance is not None:
            worst = max(by_setting, key=by_setting.get)
            print(f"{name:45} tolerance {tolerance:<8g} largest shift {by_setting[worst]:.4g} ({worst})")


if __name__ == "__main__":
    main()
