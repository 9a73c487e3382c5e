"""The extras of the package: which modules come with each, and the sentence that names the cure where one is missing.

with extras.needed():
    from helpers.compress import quantize    # MissingError where TensorFlow is not installed
"""

import contextlib

from helpers.base.errors import MissingError

# Extra -> what it brings, by the names under which modules are imported; whatever else the lab imports comes with the package.
MODULES = {
    "files": ("litert_quantizer", "matplotlib"),
    "models": ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "h5py", "PIL"),
    "lab": (
        "nbformat",
        "papermill",
        "jupyter_client",
        "nbconvert",
        "IPython",
        "dask",
        "distributed",
        "tensorboard",
        "mlxtend",
    ),
    "site": ("sphinx", "myst_nb", "sphinx_book_theme"),
}
# Extra -> what a user needs it for.
USES = {
    "files": "for the layers of a .tflite, sensitivity and search",
    "models": "to convert, train and rescue",
    "lab": "for the notebooks",
}
# Module -> what to call it where its own name is not the package's; Keras comes with TensorFlow.
NAMES = {"tensorflow": "TensorFlow", "tf_keras": "TensorFlow", "keras": "TensorFlow", "PIL": "Pillow"}


def explained(error, what="this"):
    """A MissingError for an ImportError by a module of an extra; any other error as it is. what: needs it, in words."""
    name = (getattr(error, "name", None) or "").split(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if name in modules), None)
    if not isinstance(error, ModuleNotFoundError) or extra is None:
        return error
    package = NAMES.get(name, name.replace("_", "-"))
    return MissingError(f'{what} needs {package}, which is not installed: pip install "compression-lab[{extra}]".')


@contextlib.contextmanager
def needed(what="this"):
    """Turns the ImportError of a module that an extra brings into a MissingError. what: as in `explained`."""
    try:
        yield
    except ModuleNotFoundError as error:
        told = explained(error, what)
        if told is error:
            raise
        raise told from error
