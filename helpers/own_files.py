"""A user's files, models as bytes and the arrays of an `.npz`: read in one place, refused in one sentence. Loads no TensorFlow."""

from pathlib import Path

import numpy as np

ARRAYS = {"x": "x (samples)", "y": "y (labels)", "slice": "slice (the part of the data that a sample belongs to)"}


class OwnFileError(ValueError):
    """A file of the user's is missing, damaged, or lacks what is needed."""


def content(model, parameter, error=OwnFileError):
    """The bytes of a model that is given as bytes or as a path. Raises `error`, which names the parameter."""
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as problem:
        raise error(f"{parameter}={str(model)!r} cannot be read ({problem.strerror}).") from problem


def arrays(path, parameter="data", needed=("x",)):
    """Those of x, y and slice that an `.npz` holds: name -> array, x as `float_samples` gives it, the others as they are.

    parameter: what messages call the file. needed: names that it must hold. Raises OwnFileError.
    """
    named, given = f"{parameter}={str(path)!r}", ", ".join(f"{name}=..." for name in needed)
    try:
        with np.load(path) as loaded:
            held = loaded.files
            found = {name: loaded[name] for name in ARRAYS if name in held}
    except Exception as error:  # besides NumPy, zipfile and zlib raise errors of their own for damaged files
        cause = getattr(error, "strerror", None) or "it is no .npz file of plain arrays"
        raise OwnFileError(f"{named} cannot be read ({cause}): save it with numpy.savez({given}).") from error
    for name in needed:
        if name not in found:
            wanted = " and ".join(ARRAYS[each] for each in needed)
            shown = ", ".join(held[:8]) + (", …" if len(held) > 8 else "")
            raise OwnFileError(f"{named} holds no {name} (it holds {shown or 'nothing'}): it must hold {wanted}.")
    if "x" in found:
        found["x"] = float_samples(found["x"], f"{named}: ")
    return found


def samples(path, parameter="data", labelled=False):
    """x, float32 (n, ...), and y as it is, of an `.npz` with samples as the model takes them; y is None if it holds none.

    labelled: y must be there. Raises OwnFileError as `arrays` does.
    """
    found = arrays(path, parameter, ("x", "y") if labelled else ("x",))
    return found["x"], found.get("y")


def float_samples(x, label="", error=OwnFileError):
    """x as float32, contiguous. Raises `error` unless it is floating-point (raw pixels, most likely) and finite.

    label: what the sentence begins with, before "x is".
    """
    if x.dtype.kind != "f":
        raise error(f"{label}x is {x.dtype}: it must be float32 samples, scaled as the model takes them.")
    x = np.ascontiguousarray(x, "float32")
    wild = x.size - np.count_nonzero(np.isfinite(x))
    if wild:
        raise error(f"{label}x is NaN or infinity in {wild:,} of {x.size:,} values: clean the samples first.")
    return x


def labels(y, n, label="", error=OwnFileError):
    """y as int64 (n,). Raises `error` unless it is integers of that shape, with the cure where there is one."""
    if y.shape != (n,) or y.dtype.kind not in "iu":
        form = f"it must be integers of shape ({n},), one label a sample.{_label_cure(y, n)}"
        raise error(f"{label}y is {y.dtype} of shape {y.shape}: {form}")
    return np.ascontiguousarray(y, "int64")


def is_tflite(blob):
    """Whether these bytes claim to be a `.tflite` file."""
    return blob[4:8] == b"TFL3"


def _label_cure(y, n):
    """What makes labels, int (n,), of an array that is of another form: a sentence after a space, or ""."""
    cure = ""
    if y.ndim == 2 and len(y) == n and y.dtype.kind in "biuf":
        cure = "ravel()" if y.shape[1] == 1 else "argmax(1)"
    if y.shape in ((n,), (n, 1)) and (y.dtype.kind == "b" or (y.dtype.kind == "f" and (y == np.round(y)).all())):
        cure += ".astype(int)" if cure else "astype(int)"
    return f" Give y.{cure}." if cure else ""
