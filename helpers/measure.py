"""Accuracy, latency and peak memory of `.tflite` models, measured so that two of them can be compared."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import litert, runtime_env, stats

# One timing lasts at least this long, so that the clock's resolution and a single interrupt do not decide it.
SAMPLE_SECONDS = 0.002
BLOCKS = 6


@contextlib.contextmanager
def stopwatch():
    """Time a block: yields a function that tells the seconds from its beginning to its end."""
    start, ends = time.perf_counter(), []
    yield lambda: (ends[0] if ends else time.perf_counter()) - start
    ends.append(time.perf_counter())


def correct(model, x, y, batch=litert.BATCH, threads=runtime_env.THREADS):
    """Which test samples a model gets right (top-1): bool (n,). x: float32 (n, ...), y: int (n,).

    Raises ValueError unless there is one label a sample.
    """
    if np.shape(y) != (len(x),):
        raise ValueError(f"y has shape {np.shape(y)}: give one label for each of the {len(x)} samples.")
    return litert.predict(model, x, batch, threads).argmax(axis=-1) == np.asarray(y)


def latency(models, baseline, x, rounds=60, threads=1):
    """Time one sample (batch 1) on several models, interleaved: A B C, A B C, …

    models: name -> `.tflite`; baseline: the name to compare with; x: float32 (1, ...).
    Where an interpreter's buffers happen to lie shifts its times by some percent for as long as it lives. So the
    rounds are spread over BLOCKS blocks, each with interpreters of its own, and it is the blocks that are repetitions.
    Returns a frame indexed by name: milliseconds (median), ratio (baseline / model, so above 1 is faster; the mean of
    the blocks' medians, each round having timed both), low, high (95% t interval over the blocks).
    Raises KeyError when baseline is not among the models, ValueError for fewer rounds than blocks.
    """
    if baseline not in models:
        raise KeyError(f"baseline={baseline!r} is not one of {', '.join(models)}.")
    if rounds < BLOCKS:
        raise ValueError(f"rounds={rounds} must be at least {BLOCKS}, one for each block of fresh interpreters.")
    blocks = []
    for _ in range(BLOCKS):
        runners = {name: _Runner(model, x, threads) for name, model in models.items()}
        turns = [{name: runner.seconds() for name, runner in runners.items()} for _ in range(rounds // BLOCKS)]
        blocks.append(pd.DataFrame(turns))
    times = pd.concat(blocks)
    rows = []
    for name in models:
        estimate = stats.mean([(block[baseline] / block[name]).median() for block in blocks])
        rows.append(
            {
                "model": name,
                "milliseconds": 1000 * times[name].median(),
                "ratio": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
            }
        )
    return pd.DataFrame(rows).set_index("model")


class _Runner:
    """One loaded model that can be timed again and again."""

    def __init__(self, model, x, threads):
        self.interpreter = litert.interpreter(model, threads, batch=1)
        details = self.interpreter.get_input_details()[0]
        self.interpreter.set_tensor(details["index"], np.asarray(x[:1]).astype(details["dtype"]))
        self.repeats = 1
        warm_up = time.perf_counter() + 20 * SAMPLE_SECONDS
        while time.perf_counter() < warm_up:
            self.interpreter.invoke()
        self.repeats = max(1, round(SAMPLE_SECONDS / self.seconds()))

    def seconds(self):
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.interpreter.invoke()
        return (time.perf_counter() - start) / self.repeats


# Runs in a process of its own, with the interpreter and nothing else of the lab.
_PROBE = """
import json, pathlib, re, resource, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
if len(sys.argv) > 1:
    runner = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]))
    runner.allocate_tensors()
    details = runner.get_input_details()[0]
    runner.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    for _ in range(3):
        runner.invoke()
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux's ru_maxrss would start from the parent's memory
    print(json.dumps(int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text()).group(1)) * 1024))
else:  # macOS counts in bytes
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


def peak_memory(model, threads=1, repeats=3):
    """Bytes that loading and running one model adds to the resident high-water mark of a fresh process.

    A child process runs the model, another runs nothing; the Estimate is the median difference, with the smallest
    and the largest one as its ends. Raises RuntimeError when the child fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(litert.content(model))
        differences = [_probe(path, threads) - _probe() for _ in range(repeats)]
    return stats.Estimate(float(np.median(differences)), float(min(differences)), float(max(differences)), "bytes")


def _probe(*arguments):
    done = subprocess.run([sys.executable, "-c", _PROBE, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"the child process that runs the model failed: {reason}")
    return json.loads(done.stdout)
