"""A user's own model and samples: loaded, checked, looked into. What cannot be used is refused in one sentence.

A Keras model may hold code of its author (Lambda layers, SavedModel functions): load only files that you trust.
"""

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base import ground_truth, repository, runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.networks import checkpoints, data, models, photos
from helpers.tflite import inputs, litert

with runtime_env.quiet():
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SCALINGS = {"-1 to 1": (127.5, 1.0), "0 to 1": (255.0, 0.0), "0 to 255": (1.0, 0.0)}  # pixels / divisor - offset
GREY = (0.299, 0.587, 0.114)  # what red, green and blue weigh in luminance (ITU-R BT.601)
KERAS_FILES = (".keras", ".h5", ".hdf5")
EXAMPLE = "cnn_fashion_28"
_UNKNOWN_CLASS = re.compile(r"(?:object of type `|Unknown layer: '|Could not locate class ')(\w+)")


@dataclass(frozen=True)
class OwnModel:
    """A classifier with one float32 input and one output of (samples, classes), whatever file it came from.

    name: of the file. kind: what the file is, in words. file: bytes of the float32 `.tflite`. graph: what
    `quantize.convert` takes, or None for a `.tflite`. keras: the Keras 2 model whose channels can be pruned, or None.
    input_shape, classes: of one sample, and how many answers. skipped: what this kind does not allow, a sentence or "".
    """

    name: str
    kind: str
    file: bytes
    graph: object
    keras: object
    input_shape: tuple[int, ...]
    classes: int
    skipped: str


def load(path):
    """A `.keras`, `.h5` or `.tflite` file, or the folder of a SavedModel, as an OwnModel. Files of Keras 3 and SavedModels
    without a Keras model are read as graphs.

    Raises InputError for a missing or damaged file, an unknown suffix, layers that only their author's code knows, other
    inputs and outputs than one float32 each, and a `.tflite` that is quantized already; what `quantize.convert` and
    `litert.interpreter` raise for weights and files that are unusable.
    """
    path = Path(path)
    label = f"model={str(path)!r}"
    if not path.exists():
        raise InputError(f"{label} does not exist: give a .keras, .h5 or .tflite file, or the folder of a SavedModel.")
    if path.suffix == ".tflite" and path.is_file():
        skipped = "A .tflite cannot be converted anew: float16, dynamic range and the pruning of channels are left out."
        return _checked(label, path, "a .tflite file", litert.content(path), None, None, skipped)
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise InputError(f"{label} is a folder without a saved_model.pb: give a SavedModel, or a file.")
    if not path.is_dir() and path.suffix not in KERAS_FILES:
        raise InputError(
            f"{label} ends in {path.suffix or 'no suffix'}: give a .keras, .h5 or .tflite file, or the folder of a SavedModel."
        )
    kind, keras, graph = _saved_model(label, path) if path.is_dir() else _keras_file(label, path)
    try:
        blob = quantize.convert(graph)
    except InputError:
        raise
    except Exception as error:  # the converter's own, of many classes
        raise InputError(f"{label} cannot be converted to .tflite ({_first_line(error)}).") from error
    skipped = "" if keras else f"The pruning of channels needs a Keras 2 model, and this is {kind}: it is left out."
    return _checked(label, path, kind, blob, graph, keras, skipped)


def samples(path, model, scaling="-1 to 1"):
    """Samples and labels as an OwnModel takes them: float32 (n, ...), int64 (n,).

    path: an `.npz` with x (float32 as the model takes them) and y, or a folder with a subfolder of images for each class
    (in the order of the alphabet), cropped to their central square and resized. scaling: a key of SCALINGS, what such
    images' pixels become.
    Raises InputError when they do not fit the model; what `inputs.samples` and `photos.load_folder` raise.
    """
    if not str(path):
        raise InputError(
            "data_path is empty: give an .npz with x and y, or a folder with a subfolder of images for each class."
        )
    label = f"data={str(path)!r}"
    if Path(path).is_dir():
        x, y = _images(label, path, model, scaling)
    else:
        x, y = inputs.samples(path, labelled=True)
    wanted = f"(n, {', '.join(map(str, model.input_shape))})"
    if x.shape[1:] != model.input_shape or not len(x):
        cure = " Give x[..., None], which adds the axis of channels." if (*x.shape[1:], 1) == model.input_shape else ""
        raise InputError(f"{label} has x of shape {x.shape}: this model takes {wanted}, n at least 1.{cure}")
    return x, ground_truth.labels(y, len(x), model.classes, f"{label}: y")


def split(number, calibration, selection, seed=0):
    """Three disjoint parts of `number` samples, drawn at random: indices "calibration", "selection" and "test".

    calibration: how many; selection: share of the others. Raises InputError when that leaves nothing to judge by.
    """
    order = np.random.default_rng(seed).permutation(number)
    middle = calibration + math.ceil(selection * max(0, number - calibration))
    if middle >= number:
        raise InputError(
            f"data holds {number:,} samples: calibration_samples={calibration} and selection_share={selection} leave none to "
            "judge by."
        )
    return dict(zip(("calibration", "selection", "test"), np.split(order, [calibration, middle]), strict=True))


def profile(file):
    """Where the weights and multiply-accumulates of a `.tflite` are, for one sample: `litert.weight_layers` with macs and
    the shares weights_share and macs_share."""
    shapes = litert.tensors(file).drop_duplicates("name").set_index("name")["shape"]
    table = litert.weight_layers(file)
    table["macs"] = table["weights"] * table["name"].map(lambda name: math.prod(shapes[name][1:-1]))
    return table.assign(**{f"{key}_share": table[key] / table[key].sum() for key in ("weights", "macs")})


def output_folder():
    """Where packages and the example go: `repository.output_root()`, or `runs/` while that is the repository itself."""
    root = repository.output_root()
    return root / "runs" if root.resolve() == repository.REPOSITORY else root


def example(folder):
    """A small convolutional network that this repository ships, and test samples for it as a user would have them, written
    into `folder` if they are not there yet: paths of a `.keras` and an `.npz`."""
    model_path, data_path = checkpoints.path(EXAMPLE), Path(folder) / "example.npz"
    if not data_path.is_file():
        images, size = data.load(checkpoints.RECIPES[EXAMPLE].dataset), checkpoints.RECIPES[EXAMPLE].size
        arrays = io.BytesIO()
        np.savez_compressed(arrays, x=models.network_input(images.x_test, size).numpy(), y=images.y_test)
        repository.write(data_path, arrays.getvalue())
    return model_path, data_path


def _keras_file(label, path):
    """kind, Keras 2 model or None, and frozen graph of a file that either Keras wrote."""
    found = {}
    with runtime_env.quiet():
        import keras  # Keras 3, which TensorFlow brings along

        for kind, library in (("a model of Keras 2", tf.keras), ("a model of Keras 3", keras)):
            try:
                model = library.models.load_model(path, compile=False)
                break
            except Exception as error:  # zip, HDF5 and each Keras raise their own
                found[kind] = error
    if len(found) == 2:
        raise InputError(f"{label} {_why_not(found.values())}") from found["a model of Keras 2"]
    return kind, model if library is tf.keras else None, _graph_of(label, model)


def _saved_model(label, path):
    """The same of a SavedModel."""
    failure = None
    with runtime_env.quiet():
        try:
            model = tf.keras.models.load_model(path, compile=False)
            if not isinstance(model, tf.keras.Model):
                loaded = tf.saved_model.load(path)  # kept while its function is frozen: the variables are its own
                graph = convert_variables_to_constants_v2(loaded.signatures["serving_default"])
        except Exception as error:  # a damaged protocol buffer, missing variables, no such signature, ...
            failure = error
    if failure:
        raise InputError(f"{label} cannot be loaded as a SavedModel ({_first_line(failure)}).") from failure
    if isinstance(model, tf.keras.Model):
        return "a SavedModel of Keras 2", model, _graph_of(label, model)
    _check_ends(label, graph.inputs, graph.outputs)
    return "a SavedModel without a Keras model", None, graph


def _graph_of(label, model):
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise InputError(
            f"{label} declares no inputs (it is subclassed, or was never built): export it as a SavedModel."
        )
    _check_ends(label, inputs, outputs)
    if isinstance(model, tf.keras.Model):
        return quantize.freeze(model)
    signature = tf.TensorSpec((None, *inputs[0].shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    return convert_variables_to_constants_v2(function)


def _checked(label, path, kind, blob, graph, keras, skipped):
    details = litert.interpreter(blob)
    inputs, outputs = details.get_input_details(), details.get_output_details()
    ends = [[_tensor(each) for each in end] for end in (inputs, outputs)]
    _check_ends(label, *ends)
    constants = litert.tensors(blob).query("constant")["dtype"]
    small = constants[constants.isin(("int4", "int8", "int16", "float16"))]
    if len(small):
        raise InputError(f"{label} has {small.iloc[0]} weights already: give the float32 model that it was made from.")
    shape = tuple(int(side) for side in inputs[0]["shape"][1:])
    return OwnModel(path.stem, kind, blob, graph, keras, shape, int(outputs[0]["shape"][1]), skipped)


def _tensor(details):
    shape = [None if side < 0 else int(side) for side in details["shape_signature"]]
    return tf.TensorSpec(shape, tf.as_dtype(details["dtype"]))


def _check_ends(label, inputs, outputs):
    """One float32 input of known size, and one output of (samples, classes)."""
    if (len(inputs), len(outputs)) != (1, 1):
        raise InputError(f"{label} has {len(inputs)} inputs and {len(outputs)} outputs: it must have one of each.")
    (source, target), kind = (*inputs, *outputs), tf.as_dtype(inputs[0].dtype).name
    if kind != "float32":
        raise InputError(f"{label} takes {kind}: it must take float32.")
    for end, what in ((source, "takes"), (target, "answers with")):
        known = tf.TensorShape(end.shape)
        shape = known.as_list() if known.rank is not None else []
        shown = f"(n, {', '.join('?' if side is None else str(side) for side in shape[1:])})"
        if None in shape[1:]:
            raise InputError(f"{label} {what} {shown}: every size but that of the batch must be known.")
        if end is target and (len(shape) != 2 or shape[1] < 2):
            raise InputError(f"{label} answers with {shown}: it must be a classifier with an output for each class.")


def _images(label, folder, model, scaling):
    shape = model.input_shape
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise InputError(f"{label} is a folder of images, but this model takes {shape}: give an .npz with x and y.")
    if scaling not in SCALINGS:
        raise InputError(f"scaling={scaling!r} is unknown: choose one of {', '.join(SCALINGS)}.")
    pictures, labels, names, _ = photos.load_folder(folder, shape[0])
    if len(names) != model.classes:
        raise InputError(f"{label} has {len(names)} classes ({', '.join(names)}): this model has {model.classes}.")
    divisor, offset = SCALINGS[scaling]
    x = pictures.astype("float32") / np.float32(divisor) - np.float32(offset)
    return (x @ np.array(GREY, "float32"))[..., None] if shape[2] == 1 else x, labels


def _why_not(errors):
    texts = [str(error) for error in errors]
    unknown = next(filter(None, map(_UNKNOWN_CLASS.search, texts)), None)
    if unknown:
        return f"needs the class {unknown.group(1)}, which only its author's code has: export it as a SavedModel or .tflite."
    if any("Lambda" in text for text in texts):
        return "holds Lambda layers, which are code and are not run from a file: export it as a SavedModel or .tflite."
    return f"cannot be loaded by Keras 2 or 3 ({_first_line(texts[0])})."


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
