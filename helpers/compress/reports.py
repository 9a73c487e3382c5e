"""What the commands do with a file of the user's: prune its channels, find its sensitive layers; and what they tell of it."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import repository
from helpers.base.errors import StructureError
from helpers.compress import channels, own_model, quantize, sensitivity
from helpers.networks import checkpoints
from helpers.tflite import inputs, litert, measure


def prune_file(path, output, ratio, calibration=None, **choices):
    """Write the narrow model of a `.keras` file to `output`, and a row for each group to the `.csv` beside it.

    ratio and choices: as in `channels.prune`; calibration: path of an `.npz` file with x, for criterion "activation".
    Returns (the table of the groups, a frame of totals with before, after, low, high: parameters, macs, bytes and
    milliseconds of the float32 `.tflite`, and latency_ratio, whose "after" is before / after with its 95% interval).
    Raises StructureError for files of the wrong kind, InputError for such samples, InputError for such a model, and what
    `channels.prune` and `repository.write` raise; nothing is written before all else has worked.
    """
    path, output = Path(path), Path(output)
    for parameter, given in (("model", path), ("output", output)):
        if given.suffix != ".keras":
            raise StructureError(f"{parameter}={str(given)!r} must be a .keras file.")
    if output.resolve() == path.resolve():
        raise StructureError(f"output={str(output)!r} is the model itself: name another file.")
    samples = None if calibration is None else inputs.samples(calibration, "calibration")[0]
    wide = checkpoints.load(path)
    narrowed = channels.prune(wide, ratio, calibration=samples, **choices)
    table = channels.compare(wide, narrowed, choices.get("only", "*"))
    totals = _totals(wide, narrowed)
    content = checkpoints.packed(narrowed)
    repository.write(output.with_suffix(".csv"), table.to_csv(index=False))
    repository.write(output, content)
    return table, totals


def analyse_file(path, calibration, judged, form, cache, progress=iter):
    """`sensitivity.sweep` for whatever `own_model.load` takes and arrays in `.npz` files: x, float32 (samples, ...), and y, labels, if known.

    Raises InputError for files that cannot be used.
    """
    samples, _ = inputs.samples(calibration, "calibration")
    images, labels = inputs.samples(judged, "test")
    return sensitivity.sweep(own_model.load(path).file, samples, images, labels, form, cache, progress)


def told(totals):
    """What `prune_file` measured, a line each, for people."""
    faster = totals.loc["latency_ratio"]
    return [
        *(
            f"{name}: {totals.before[row]:,.0f} -> {totals.after[row]:,.0f} ({totals.after[row] / totals.before[row]:.0%})"
            for row, name in (
                ("parameters", "Parameters"),
                ("macs", "Multiply-accumulates"),
                ("bytes", "Bytes of the float32 .tflite"),
            )
        ),
        f"Latency, one thread: {totals.before.milliseconds:.3g} -> {totals.after.milliseconds:.3g} ms, "
        f"{faster.after:.2f} times as fast [{faster.low:.2f}, {faster.high:.2f}]",
    ]


def _totals(wide, narrowed):
    variants = {"before": quantize.convert(wide), "after": quantize.convert(narrowed)}
    shape = litert.interpreter(variants["before"], batch=1).get_input_details()[0]["shape"]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    times = measure.latency(variants, "before", x)
    rows = {
        "parameters": [wide.count_params(), narrowed.count_params()],
        "macs": [channels.macs(wide), channels.macs(narrowed)],
        "bytes": [len(file) for file in variants.values()],
        "milliseconds": times.milliseconds,
        "latency_ratio": times.ratio,
    }
    totals = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"])
    totals.loc["latency_ratio", ["low", "high"]] = times.loc["after", ["low", "high"]]
    return totals
