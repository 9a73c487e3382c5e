"""Keras models from users' files: which Keras wrote them, the code that their own layers need, and what is wrong with them.

A Keras model may hold code of its author (Lambda layers, SavedModel functions): load only files that you trust.
"""

import contextlib
import json
import re
import sys
import types
import zipfile
from pathlib import Path

import h5py
import numpy as np

from helpers.base import runtime_env
from helpers.base.errors import InputError, first_line

with runtime_env.quiet():
    import keras  # Keras 3, which TensorFlow brings along
    import tensorflow as tf


_UNKNOWN_CLASS = re.compile(r"(?:object of type `|Unknown layer: '|Could not locate class '|Received: layer=)(\w+)")


def keras_file(path, code=None):
    """The model in a `.keras` or `.h5` file of Keras 2 or 3, not compiled.

    code: a Python file with the classes that its layers need, as their author wrote it.
    Raises InputError for a file that neither Keras can read, with the reason and a cure.
    """
    path, libraries = Path(path), (tf.keras, keras)
    version = _version(path)
    if version:
        libraries = (keras,) if version.startswith("3") else (tf.keras,)
    errors = []
    for library in libraries:
        own = _classes(code, library) if code else {}
        try:
            with runtime_env.quiet():
                model = library.models.load_model(path, custom_objects=own, compile=False)
        except Exception as error:  # zip, HDF5 and each Keras raise their own
            errors.append(error)
        else:
            check_finite(_weights(model), f"model={str(path)!r}")
            return model
    raise InputError(f"model={str(path)!r} {_why_not(errors, version, code, _named_classes(path))}") from errors[0]


def output_names(model):
    """Names of the outputs of a Keras model, of either Keras, in their order: the keys under which it gives them, or else the
    layers that make them; none where a model does not declare any."""
    answers = getattr(model, "_outputs_struct", None)  # of Keras 3, whose `output` is flat
    if answers is None:
        answers = getattr(model, "output", None)
    names = sorted(answers) if isinstance(answers, dict) else getattr(model, "output_names", None)
    return tuple(names or ())


def _weights(model):
    try:
        return model.weights
    except ValueError:  # a model that was never built has none yet
        return []


def check_finite(variables, label):
    """Raises InputError for weights that are NaN or infinite: the converter may end the whole process on them."""
    for variable in variables:
        values = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
        if values.dtype.kind == "f" and not np.isfinite(values.astype("float32")).all():
            name = getattr(variable, "path", None) or variable.name
            raise InputError(f"{label}: weights of {name} hold NaN or infinity: train or load the model again.")


def _version(path):
    """The version of Keras that wrote a file, such as "3.5.0"; "" if it does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
        with h5py.File(path) as archive:
            return str(archive.attrs.get("keras_version", ""))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def _classes(code, library):
    """The layers and other classes that a file of Python defines: name -> class, for one of the two libraries.

    Raises InputError for a file that cannot be read or run.
    """
    path = Path(code)
    names = {"__name__": path.stem, "__file__": str(path)}
    try:
        with _as_tf_keras(library):
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    except OSError as error:
        raise InputError(f"code={str(code)!r} cannot be read ({error.strerror}): give a Python file.") from error
    except Exception as error:
        raise InputError(f"code={str(code)!r} cannot be run ({type(error).__name__}: {first_line(error)}).") from error
    return {name: value for name, value in names.items() if isinstance(value, type) or callable(value)}


@contextlib.contextmanager
def _as_tf_keras(library):
    """Let `tf.keras` and `keras` mean one of the two libraries, since the author's code says either for the one it was
    written for."""
    former = {name: module for name, module in sys.modules.items() if _is_keras(name)}
    parts = {
        f"{root}.{part}": module
        for root in ("tensorflow.keras", "keras")
        for part, module in vars(library).items()
        if isinstance(module, types.ModuleType) and not part.startswith("_")
    }
    for name in former:
        if library is not keras or name.startswith("tensorflow"):  # its own inner modules stay as they are
            del sys.modules[name]
    try:
        sys.modules.update({"tensorflow": _TensorFlow(library), "tensorflow.keras": library, "keras": library, **parts})
        yield
    finally:
        for name in [name for name in sys.modules if _is_keras(name)]:
            del sys.modules[name]
        sys.modules.update({"tensorflow": tf, **former})


def _is_keras(name):
    return name == "keras" or name.startswith(("keras.", "tensorflow.keras"))


class _TensorFlow(types.ModuleType):
    """TensorFlow with `keras` of one library, also when the author's layers are made and called, which is later."""

    def __init__(self, library):
        super().__init__("tensorflow")
        self.keras, self.__path__, self.__spec__ = library, tf.__path__, tf.__spec__

    def __getattr__(self, name):
        return getattr(tf, name)


def _named_classes(path):
    """The classes of its author's that a file names, in its order; [] if it cannot be read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
        else:
            with h5py.File(path) as archive:
                config = json.loads(archive.attrs["model_config"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []
    found, waiting = [], [config]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, dict):
            name = each.get("class_name")
            if name and each.get("registered_name") and name not in ("Functional", "Sequential"):
                found.append(name)
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return found


def _why_not(errors, version, code, own):
    texts = [str(error) for error in errors]
    if code is None and own:
        texts.append(f"Unknown layer: '{own[0]}'")
    unknown = next(filter(None, map(_UNKNOWN_CLASS.search, texts)), None)
    if unknown and unknown.group(1) not in ("Functional", "Sequential"):
        name = unknown.group(1)
        if code:
            return f"needs the class {name}, which {str(code)!r} does not define: add it there."
        return (
            f"needs the class {name}, which only its author's code has: give the Python file that defines it (--code), or "
            "export the model as a SavedModel where that code is at hand."
        )
    if any("Lambda" in text for text in texts):
        return (
            "holds Lambda layers, which are code and are not run from a file: export the model as a SavedModel where it "
            "was made, or replace them by layers."
        )
    by = f" of Keras {version}" if version else ""
    return f"cannot be loaded as a model{by} ({first_line(texts[0])})."
