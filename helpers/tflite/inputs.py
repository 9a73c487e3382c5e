"""A user's files, models as bytes and the arrays of an `.npz`: read in one place, refused in one sentence. Loads no TensorFlow."""

import zipfile
from pathlib import Path

import numpy as np

from helpers.base.errors import InputError


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


def tflite(model):
    """The same, of a `.tflite`. Raises InputError also for what is none."""
    name, blob = "model" if isinstance(model, bytes) else str(model), content(model)
    if not blob:
        raise InputError(f"{name} is empty (0 bytes): give a .tflite file as the converter wrote it.")
    if not is_tflite(blob):
        raise InputError(f"{name} ({len(blob):,} bytes) is not a TFLite model: its bytes 4 to 8 should read TFL3.")
    return blob


def judged(path, parameter="data"):
    """What a model is judged on: samples, x or else name of an input -> array; labels, y or else name of an output -> labels,
    of arrays y_<output>, or None; and slice, or None. Each as the `.npz` holds it.

    Beside x, which is the only input's, other arrays of samples are kept in case that there are several inputs. parameter: what
    messages call the file. Raises InputError.
    """
    found, label = _held(path, parameter), f"{parameter}={str(path)!r}"
    told = ", ".join([*found][:8]) + (", …" if len(found) > 8 else "")
    slices, y = found.pop("slice", None), found.pop("y", None)
    several = {name.removeprefix("y_"): found.pop(name) for name in [*found] if name.startswith("y_")}
    if several and y is not None:
        raise InputError(f"{label} holds y and y_{next(iter(several))}: keep y, or an array for each output.")
    if not found:
        raise InputError(
            f"{label} holds no samples (it holds {told or 'nothing'}): add x, or an array for each input under its name."
        )
    if "x" in found:
        alike = (name for name, of in found.items() if of.dtype.kind in "fiub" and of.ndim > 1)
        found = {name: found[name] for name in alike if name == "x" or len(found[name]) == len(found["x"])} or found
    return found["x"] if [*found] == ["x"] else found, y if y is not None else several or None, slices


def _held(path, parameter):
    """All arrays of an `.npz`: name -> array. Raises InputError."""
    label = f"{parameter}={str(path)!r}"
    try:
        with np.load(path) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # besides NumPy, zipfile and zlib raise errors of their own for damaged files
        if "Object arrays" in str(error):
            raise InputError(
                f"{label} holds an array of Python objects (as pandas has text): save it as y.astype(str), or x.astype('float32')."
            ) from error
        cause = getattr(error, "strerror", None) or "it is no .npz file of plain arrays"
        raise InputError(f"{label} cannot be read ({cause}): save it with numpy.savez(file, x=x, y=y).") from error


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


def in_order(names, samples):
    """The arrays of samples, name -> array (n, ...), in the order of a file's inputs, of these names. Those of names that only
    another file has go into the inputs that are left. Raises InputError where one is missing."""
    left = [array for name, array in samples.items() if name not in names]
    if len(names) == len(samples):
        samples = {name: samples[name] if name in samples else left.pop(0) for name in names}
    for name in names:
        if name not in samples:
            raise InputError(f"samples hold no {name}: give an array for each of {', '.join(names)}.")
    return [samples[name] for name in names]
