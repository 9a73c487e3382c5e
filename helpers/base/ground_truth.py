"""The labels of classified samples, in whatever form users have them: read as one class a sample, or refused with a cure."""

import numpy as np

from helpers.base.errors import InputError


def labels(y, n, classes=None, name="y"):
    """Labels of n samples as int64 (n,), counted from 0.

    y: whole numbers (integers, floats or booleans) of shape (n,) or (n, 1), or one-hot rows (n, classes). classes: how
    many there are, where that is known. name: what a refusal calls the array; its last word stands in the cure.
    Raises InputError for anything that does not say one class a sample: the sentence ends in what would, where there is such
    a thing (`keep` is then to be applied to the samples as well).
    """
    y, variable = np.asarray(y), name.split()[-1]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    given = len(y) if y.ndim else 1
    if given != n:
        raise InputError(f"{name} has {given:,} labels for {n:,} samples: give one a sample.")
    if y.dtype.kind not in "iufb":
        raise InputError(
            f"{name} holds words ({y.dtype}): give each word's place among the model's outputs, counted from 0, as in "
            f"[names.index(word) for word in {variable}]."
        )
    if y.ndim == 2:
        y = _from_rows(y, classes, name, variable)
    if y.shape != (n,):
        raise InputError(f"{name} is {y.dtype} of shape {y.shape}: it must be integers of shape ({n},), one a sample.")
    if y.dtype.kind == "f":
        _check_whole(y, name, variable)
    y = np.ascontiguousarray(y, "int64")
    _check_counted_from_0(y, classes, name, variable)
    return y


def _from_rows(y, classes, name, variable):
    """The place of the one in each row of zeros and ones."""
    if not np.isin(y, (0, 1)).all():
        raise InputError(f"{name} is {y.dtype} of shape {y.shape}, not only zeros and ones: give {variable}.argmax(1).")
    ones = (y == 1).sum(axis=1)
    if (ones != 1).any():
        raise InputError(
            f"{name} names several classes for {(ones > 1).sum():,} of {len(y):,} samples and none for "
            f"{(ones == 0).sum():,}: one a sample can be judged. Give keep = {variable}.sum(1) == 1 and {variable}[keep]."
        )
    if classes is not None and y.shape[1] != classes:
        raise InputError(f"{name} has rows of {y.shape[1]}: the model has {classes} classes.")
    return y.argmax(axis=1)


def _check_whole(y, name, variable):
    wild = ~np.isfinite(y)
    if wild.any():
        raise InputError(
            f"{name} is NaN or infinity for {wild.sum():,} of {len(y):,} samples: give keep = np.isfinite({variable}) and "
            f"{variable}[keep]."
        )
    broken = y[y != np.round(y)]
    if len(broken):
        raise InputError(f"{name} holds {broken[0]:g}: classes are whole numbers, counted from 0.")


def _check_counted_from_0(y, classes, name, variable):
    if not len(y):
        return
    low, high = int(y.min()), int(y.max())
    if low >= 0 and (classes is None or high < classes):
        return
    outputs = f"the model answers 0 to {classes - 1}" if classes else "classes are counted from 0"
    cure = ""
    if low == -1 and (classes is None or high < classes):
        cure = f" If -1 stands for no label, give keep = {variable} >= 0 and {variable}[keep]."
    elif low == 1 and high == classes:
        cure = f" If they are counted from 1, give {variable} - 1."
    raise InputError(f"{name} has labels from {low} to {high}: {outputs}.{cure}")
