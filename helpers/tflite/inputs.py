"""A user's files, models as bytes and the arrays of an `.npz`: read in one place, refused in one sentence. Loads no TensorFlow."""

import zipfile
from pathlib import Path

import numpy as np

from helpers.base.errors import InputError

ARRAYS = {"x": "x (samples)", "y": "y (labels)", "slice": "slice (the part of the data that a sample belongs to)"}


def content(model, parameter="model"):
    """The bytes of a model that is given as bytes or as a path. Raises InputError, which names the parameter."""
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as problem:
        raise InputError(
            f"{parameter}={str(model)!r} cannot be read ({problem.strerror}): give the path of a file that is there."
        ) from problem


def arrays(path, parameter="data", needed=("x",)):
    """Those of x, y and slice that an `.npz` holds: name -> array, x as `float_samples` gives it, the others as they are.

    parameter: what messages call the file. needed: names that it must hold. Raises InputError.
    """
    told = " and ".join(ARRAYS[each] for each in needed)
    found = _held(path, parameter, ARRAYS, needed, told)
    if "x" in found:
        found["x"] = float_samples(found["x"], f"{parameter}={str(path)!r}: ")
    return found


def judged(path, parameter="data"):
    """What a model is judged on: samples, x or else name of an input -> array; labels, y or else name of an output -> labels,
    of arrays y_<output>, or None; and slice, or None. Each as the `.npz` holds it. Raises InputError."""
    found = _held(path, parameter, None, [], "")
    slices, y = found.pop("slice", None), found.pop("y", None)
    several = {name.removeprefix("y_"): found.pop(name) for name in [*found] if name.startswith("y_")}
    if several and y is not None:
        raise InputError(
            f"{parameter}={str(path)!r} holds y and y_{next(iter(several))}: keep y, or an array for each output."
        )
    if not found:
        raise InputError(
            f"{parameter}={str(path)!r} holds no samples: add x, or an array for each input under its name."
        )
    if "x" in found and len(found) > 1:
        ignored = next(name for name in found if name != "x")
        raise InputError(
            f"{parameter}={str(path)!r} holds x and {ignored}: give x for the only input, or each input's array under its name."
        )
    return found.get("x", found), y if y is not None else several or None, slices


def named(path, parameter, names):
    """Arrays of an `.npz` by names of any kind: name -> array as it is. Raises InputError, also for a name that it does not
    hold."""
    return _held(path, parameter, names, names, ", ".join(names))


def optional(path, name, parameter="data"):
    """An array of an `.npz` as it is, or None if it holds none of this name. Raises InputError for an unreadable file."""
    return _held(path, parameter, [name], [], "").get(name)


def _held(path, parameter, names, needed, told):
    """Those of some arrays that an `.npz` holds: name -> array; all of them for None. told: what it must hold, in words. Raises InputError, also
    for a missing array that is needed."""
    label, given = f"{parameter}={str(path)!r}", ", ".join(f"{name}=..." for name in needed)
    try:
        with np.load(path) as loaded:
            held = loaded.files
            found = {name: loaded[name] for name in (held if names is None else names) if name in held}
    except Exception as error:  # besides NumPy, zipfile and zlib raise errors of their own for damaged files
        if "Object arrays" in str(error):
            raise InputError(
                f"{label} holds an array of Python objects (as pandas has text): save it as y.astype(str), or x.astype('float32')."
            ) from error
        cause = getattr(error, "strerror", None) or "it is no .npz file of plain arrays"
        raise InputError(f"{label} cannot be read ({cause}): save it with numpy.savez({given}).") from error
    for name in needed:
        if name not in found:
            shown = ", ".join(held[:8]) + (", …" if len(held) > 8 else "")
            raise InputError(f"{label} holds no {name} (it holds {shown or 'nothing'}): it must hold {told}.")
    return found


def samples(path, parameter="data", labelled=False):
    """x, float32 (n, ...), and y as it is, of an `.npz` with samples as the model takes them; y is None if it holds none.

    labelled: y must be there. Raises InputError as `arrays` does.
    """
    found = arrays(path, parameter, ("x", "y") if labelled else ("x",))
    return found["x"], found.get("y")


def float_samples(x, label="", name="x"):
    """x as float32, contiguous. Raises InputError unless it is floating-point (raw pixels, most likely) and finite.

    label: what the sentence begins with, before "x is". name: what it calls x.
    """
    if x.dtype.kind != "f":
        raise InputError(f"{label}{name} is {x.dtype}: it must be float32 samples, scaled as the model takes them.")
    x = np.ascontiguousarray(x, "float32")
    wild = x.size - np.count_nonzero(np.isfinite(x))
    if wild:
        raise InputError(f"{label}{name} is NaN or infinity in {wild:,} of {x.size:,} values: clean the samples first.")
    return x


def by_name(x):
    """Samples as name of an input -> array (n, ...); a plain array is that of the only input, called x."""
    arrays = {name: np.asarray(array) for name, array in x.items()} if isinstance(x, dict) else {"x": np.asarray(x)}
    return {name: array.astype("float32") if array.dtype == float else array for name, array in arrays.items()}


def save(path, arrays):
    """Write an `.npz`, as numpy.savez does, of arrays by any names (savez has a parameter `file`)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as written:
        for name, array in arrays.items():
            with written.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def representative(calibration, input_shape, dtype="float32"):
    """The generator that the converter wants of a calibration set: one sample at a time, batch dimension kept.

    calibration: (samples, ...) that fits input_shape (None, ...), of which None stands for a size that is left open; dtype: that
    of the input. Raises InputError otherwise.
    """
    shape = tuple(input_shape)[1:]
    if calibration is None or np.size(calibration) == 0:
        raise InputError(
            f"calibration is empty: integer recipes need at least 1 sample of shape {shape}; 100 is usual (calibration=, or "
            "--calibration FILE.npz)."
        )
    samples = np.asarray(calibration)
    given = samples.shape[1:]
    if len(given) != len(shape) or any(of not in (None, size) for of, size in zip(shape, given, strict=True)):
        raise InputError(
            f"calibration has shape {samples.shape}: this model takes (samples, {', '.join(map(str, shape))})."
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():  # the converter would leave the model in float32
        raise InputError("calibration holds NaN or infinity: clean the samples first.")
    samples = samples.astype(dtype)
    return lambda: ([sample[None]] for sample in samples)


def representative_by_name(calibration, shapes):
    """The same for a model of several inputs. calibration: name -> array (samples, ...), one for each input. shapes: name ->
    shape (None, ...). Raises InputError, also for arrays of different numbers of samples."""
    missing = [name for name in shapes if name not in calibration]
    if missing:
        raise InputError(
            f"calibration holds no {missing[0]} (it holds {', '.join(calibration) or 'nothing'}): give an array for each of "
            f"{', '.join(shapes)}."
        )
    numbers = {name: len(calibration[name]) for name in shapes}
    if len(set(numbers.values())) != 1:
        raise InputError(f"calibration has different numbers of samples ({numbers}): give as many of each.")
    arrays = {}
    for name, shape in shapes.items():
        array = np.asarray(calibration[name])
        if array.dtype.kind == "f":
            representative(array, shape)
            array = array.astype("float32")
        arrays[name] = array
    number = next(iter(numbers.values()))
    return lambda: ({name: array[place : place + 1] for name, array in arrays.items()} for place in range(number))


def is_tflite(blob):
    """Whether these bytes claim to be a `.tflite` file."""
    return blob[4:8] == b"TFL3"
