"""A user's own samples and labels, as a model of theirs takes them. What does not fit is refused in one sentence."""

import io
import math
from pathlib import Path

import numpy as np

from helpers.base import extras, repository
from helpers.base.errors import InputError
from helpers.networks import photos
from helpers.tflite import inputs

SCALINGS = {"-1 to 1": (127.5, 1.0), "0 to 1": (255.0, 0.0), "0 to 255": (1.0, 0.0)}  # pixels / divisor - offset
GREY = (0.299, 0.587, 0.114)  # what red, green and blue weigh in luminance (ITU-R BT.601)
EXAMPLE = "cnn_fashion_28"


def samples(path, model, scaling=None, parameter="data"):
    """Samples and labels for an `own_model.Model`: x (n, ...), or name of an input -> such an array; y as it is given, of
    several outputs name -> labels, None without labels.

    path: an `.npz` as `inputs.judged` takes it, or a folder with a subfolder of images for each class (in the order of the
    alphabet), cropped to their central square and resized. scaling: a key of SCALINGS, what such images' pixels become, since nothing in
    a model tells. parameter: what messages call the file. Raises InputError when the samples do not fit the model; what `inputs.judged`
    and `photos.load_folder` raise.
    """
    if not str(path):
        raise InputError(
            "data_path is empty: give an .npz with x and, if known, y, or a folder with a subfolder of images for each class."
        )
    label = f"{parameter}={str(path)!r}"
    if Path(path).is_dir():
        return _images(label, path, model, scaling)
    x, y, _ = inputs.judged(path, parameter)
    return fitted(x, model, label), y


def fitted(x, model, label):
    """Samples as a model takes them: an array for its only input, else name of an input -> array. x: an array or such a
    mapping. label: what a refusal calls the file. Raises InputError."""
    ends = model.inputs
    named = x if isinstance(x, dict) else {"x": x}
    names = [end.name for end in ends]
    if len(ends) == 1 and names[0] not in named:
        names = ["x"] if "x" in named else [*named][:1] if len(named) == 1 else names
    missing = [name for name in names if name not in named]
    if missing:
        raise InputError(
            f"{label} holds {', '.join(named)}: this model takes an array for each of {', '.join(names)}, under its name."
        )
    found = {}
    for end, name in zip(ends, names, strict=True):
        array, word = np.asarray(named[name]), "x" if len(ends) == 1 else name
        fits = array.ndim == len(end.shape) + 1 and all(
            side in (None, size) for side, size in zip(end.shape, array.shape[1:], strict=True)
        )
        if not fits or not len(array):
            cure = " Give x[..., None], which adds the axis of channels." if (*array.shape[1:], 1) == end.shape else ""
            raise InputError(f"{label} has {word} of shape {array.shape}: this model takes {end}, n at least 1.{cure}")
        if np.dtype(end.dtype).kind == "f":
            found[end.name] = inputs.float_samples(array, f"{label}: ", word).astype(end.dtype, copy=False)
        elif array.dtype.kind in "iub" or (array.dtype.kind == "f" and (array == np.round(array)).all()):
            limits = np.iinfo(end.dtype) if np.dtype(end.dtype).kind in "iu" else None
            if limits and not limits.min <= array.min() <= array.max() <= limits.max:
                raise InputError(
                    f"{label} has {word} from {array.min():g} to {array.max():g}: this model takes {end}, which holds {limits.min} to "
                    f"{limits.max}."
                )
            found[end.name] = array.astype(end.dtype)
        else:
            raise InputError(f"{label} has {word} of {array.dtype}: this model takes {end}, whole numbers.")
    if len({len(array) for array in found.values()}) > 1:
        raise InputError(f"{label} has different numbers of samples for its inputs: give as many of each.")
    return found if len(found) > 1 else next(iter(found.values()))


def part(arrays, chosen):
    """Some of the samples or of the labels. arrays: (n, ...), or name -> such an array, or None."""
    if isinstance(arrays, dict):
        return {name: part(array, chosen) for name, array in arrays.items()}
    return None if arrays is None else np.asarray(arrays)[chosen]


def number(x):
    """How many samples there are."""
    return len(next(iter(x.values())) if isinstance(x, dict) else x)


def check_labels(y, n):
    """Raises InputError for labels, (n, ...) or name of an output -> such an array or None, that are not one a sample."""
    for name, each in ({"y": y} if not isinstance(y, dict) else {f"y_{name}": of for name, of in y.items()}).items():
        if each is not None and len(each) != n:
            raise InputError(f"{name} has {len(each):,} labels for {n:,} samples: give one a sample.")


def split(x, y, calibration, selection, seed=0):
    """Three disjoint parts of samples and their labels, drawn at random: "calibration", "selection" and "test" -> (x, y).

    calibration: how many; selection: share of the others. Raises InputError when that leaves nothing to judge by, and for labels
    that are not one a sample.
    """
    n = number(x)
    check_labels(y, n)
    order = np.random.default_rng(seed).permutation(n)
    middle = calibration + math.ceil(selection * max(0, n - calibration))
    if middle >= n:
        raise InputError(
            f"data holds {n:,} samples: calibration_samples={calibration} and selection_share={selection} leave none to "
            "judge by."
        )
    parts = zip(("calibration", "selection", "test"), np.split(order, [calibration, middle]), strict=True)
    return {name: (part(x, chosen), part(y, chosen)) for name, chosen in parts}


def output_folder():
    """Where packages and the example go: `repository.output_root()`, or `runs/` while that is the repository itself."""
    root = repository.output_root()
    return root / "runs" if root.resolve() == repository.REPOSITORY else root


def example(folder):
    """A small convolutional network that this repository ships, and test samples for it as a user would have them, written
    into `folder` if they are not there yet: paths of a `.keras` and an `.npz`."""
    with extras.needed("the example"):  # samples in an .npz need no TensorFlow
        from helpers.networks import checkpoints, data, models
    model_path, data_path = checkpoints.path(EXAMPLE), Path(folder) / "example.npz"
    if not data_path.is_file():
        images, size = data.load(checkpoints.RECIPES[EXAMPLE].dataset), checkpoints.RECIPES[EXAMPLE].size
        arrays = io.BytesIO()
        np.savez_compressed(arrays, x=models.network_input(images.x_test, size).numpy(), y=images.y_test)
        repository.write(data_path, arrays.getvalue())
    return model_path, data_path


def _images(label, folder, model, scaling):
    shape = model.inputs[0].shape if len(model.inputs) == 1 and model.is_classifier() else ()
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise InputError(f"{label} is a folder of images, but this is no classifier of square images: give an .npz.")
    if scaling is None:
        raise InputError(
            f"{label} is a folder of images, of which nobody says how the model takes them: give an .npz with x, scaled as the model "
            "takes it, and y. The notebook your_own_model takes folders, with its parameter scaling."
        )
    if scaling not in SCALINGS:
        raise InputError(f"scaling={scaling!r} is unknown: choose one of {', '.join(SCALINGS)}.")
    pictures, labels, names, _ = photos.load_folder(folder, shape[0])
    if len(names) != model.outputs[0].shape[0]:
        raise InputError(
            f"{label} has {len(names)} classes ({', '.join(names)}): this model has {model.outputs[0].shape[0]}."
        )
    divisor, offset = SCALINGS[scaling]
    x = pictures.astype("float32") / np.float32(divisor) - np.float32(offset)
    return (x @ np.array(GREY, "float32"))[..., None] if shape[2] == 1 else x, labels
