"""A rescue of a file of the user's, and what is told of it."""

from pathlib import Path

import numpy as np

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.compress import own_data, own_model, reports, rescue
from helpers.evidence import stats

FEWEST = 4  # samples: an interval can be told from two of them, which are the half that chooses


def of_file(
    path, calibration, output, test=None, limit=rescue.LIMIT, purpose=None, without=(), progress=iter, seed=0, **options
):
    """`rescue.rescue` for a model that `own_model.load(path, **options)` takes, and arrays in `.npz` files as `inputs.judged` reads them.

    Half of the calibration samples, drawn at random, set ranges, and the other half chooses; with y in the file, by labels. test:
    another such `.npz`, that nothing is chosen by. The file is written to `output` in one step, whether the limit is reached or
    not. Returns (the Model, the Rescued, the samples to be judged on: of test, or else those that chose; and their labels, or None).
    Raises InputError for files that cannot be used; nothing is written then.
    """
    rescue.check_settings(limit, without)
    reports.check_output(path, Path(output))
    own = own_model.load(path, **options)
    x, y = own_data.samples(calibration, own, parameter="calibration")
    number = own_data.number(x)
    own_data.check_labels(y, number)
    if number < FEWEST:
        raise InputError(
            f"calibration={str(calibration)!r} holds {number} samples: half of them choose, so give 100 or more."
        )
    fitting, selection = np.array_split(np.random.default_rng(seed).permutation(number), 2)
    fitting, selection = np.sort(fitting[: rescue.CALIBRATED]), np.sort(selection[: rescue.SELECTED])
    judged = own_data.part(x, selection), own_data.part(y, selection)
    if test is not None:
        judged_once = own_data.samples(test, own, parameter="test")
    saved = rescue.rescue(
        own.file, own_data.part(x, fitting), judged[0], judged[1], limit, purpose, without, progress, seed
    )
    repository.write(output, saved.file)
    return own, saved, *(judged if test is None else judged_once)


def told(row):
    """The cells of a row of the table, for people: list of str."""
    if np.isnan(row["change"]):
        return ["left out", *[""] * 5]
    change = stats.Estimate(row["change"], row["low"], row["high"])
    return [
        "kept" if row["kept"] else "no better",
        f"{change:points}".replace(" points", ""),
        "" if np.isnan(row["same"]) else f"{row['same']:.1%}",
        f"{row['damage']:.3g}",
        f"{row['bytes'] / 1000:,.0f}",
        f"{row['one_scale']:.0f} of {row['kernels']:.0f}",
    ]


def sentences(saved, limit):
    """What became of it, for people: list of str."""
    row, first = saved.table.loc[saved.last], saved.table.loc[rescue.NOTHING]
    change, before = (stats.Estimate(*each[["change", "low", "high"]]) for each in (row, first))
    expected = ", as float32's own probabilities let expect" if saved.expected else ""
    found = [f"{name}: {note}." for name, note in saved.table["note"].items() if note]
    found.append(f"Task: {saved.judged}. Changes are measured on the samples that choose{expected}.")
    if before.value >= -limit:
        found.append(f"There is no collapse: one scale for each kernel costs {before:points}.")
    if saved.reached:
        found.append(f"Within {_points(limit)} of float32 after the step {saved.last}: {change:points}.")
    else:
        found.append(
            f"No step brings it within {_points(limit)} of float32: the best, after the step {saved.last}, is {change:points}; allow "
            "more by --limit, or convert it with a scale for each channel (compression-lab convert)."
        )
    if row["in_float"]:
        found.append(f"{row['in_float']:.0f} operators compute in float32.")
    return found


def _points(limit):
    return "1 point" if limit == 0.01 else f"{100 * limit:g} points"
