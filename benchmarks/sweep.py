"""How much faster is a sweep with two workers than with one? Promised on two cores: 1.7 times.

Notebook 01 with little training, for a few seeds; the whole command is timed, with starting and stopping the workers.
The two take turns. Each worker has one TensorFlow thread.

    python benchmarks/sweep.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # works without installation, too

from helpers.base import runtime_env
from helpers.lab import sweep

PROMISED = 1.7  # times
GRID = ["seeds=0:6", "epochs=2", "pruning_epochs=1", "sweep=[0.8]", "latency_rounds=6"]


def seconds(workers):
    """Wall time of the whole sweep."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if sweep.run("01", GRID, workers=workers, output=folder):
            raise SystemExit("a point failed: see above")
        return time.perf_counter() - started


@click.command()
@click.option("--rounds", default=1, show_default=True, help="How often the two take turns.")
def main(rounds):
    """Time the same sweep with one worker and with two."""
    busy = os.getloadavg()[0]
    one, two = np.array([(seconds(1), seconds(2)) for _ in range(rounds)]).T
    ratio = np.median(one / two)
    print(f"{runtime_env.cpu()['name']}; other processes took {busy:.1f} cores when it began")
    print(f"one worker {np.median(one):.0f} s, two {np.median(two):.0f} s: {ratio:.2f} times as fast")
    if ratio < PROMISED:
        print(f"That falls short of the {PROMISED} times that are promised: are two cores free?")


if __name__ == "__main__":
    main()
