"""What is missing is said in one sentence with its cure; any other error stays what it is."""

import sys

import pytest

import helpers
from helpers.base import extras
from helpers.base.errors import MissingError


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("tensorflow.python.framework", "TensorFlow", "models"),
        ("keras", "TensorFlow", "models"),
        ("litert_quantizer", "litert-quantizer", "files"),
        ("papermill", "papermill", "lab"),
    ],
)
def test_a_module_of_an_extra_names_it(module, package, extra):
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    told = extras.explained(error, "the command x")
    assert isinstance(told, MissingError) and isinstance(told, ImportError)
    assert (
        str(told) == f'the command x needs {package}, which is not installed: pip install "compression-lab[{extra}]".'
    )


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'nosuch'", name="nosuch"),
        ImportError("cannot import name 'x' from 'tensorflow'", name="tensorflow"),  # it is there, and broken
        ValueError("tensorflow"),
    ],
)
def test_any_other_error_stays_as_it_is(error):
    assert extras.explained(error) is error
    with pytest.raises(type(error)) as raised, extras.needed():
        raise error
    assert raised.value is error


def test_the_front_door_says_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    monkeypatch.delitem(sys.modules, "helpers.compress.qat", raising=False)
    monkeypatch.delitem(vars(helpers), "qat", raising=False)
    with pytest.raises(
        MissingError, match=r"^helpers\.qat needs tensorflow-model-optimization, which is not installed"
    ):
        from helpers import qat  # noqa: F401
