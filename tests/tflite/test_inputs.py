"""A user's `.npz`: what is read of it, and each way in which it can be unusable."""

import re

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.tflite import inputs

X, Y = np.ones((4, 3), "float32"), np.arange(4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_samples_labels_and_slices_are_read_as_they_are(folder):
    np.savez("data.npz", x=X.astype("float16"), y=Y, slice=["a", "b", "a", "b"], other=Y)
    x, y, slices = inputs.judged("data.npz")
    assert x.dtype == "float16" and (y == Y).all() and list(slices) == ["a", "b", "a", "b"]


def test_several_inputs_and_outputs_are_read_by_their_names(folder):
    np.savez("data.npz", picture=X, tokens=Y[:, None], y_kind=Y, y_there=Y)
    x, y, slices = inputs.judged("data.npz")
    assert list(x) == ["picture", "tokens"] and list(y) == ["kind", "there"] and slices is None


def test_what_is_no_sample_beside_x_is_left_out(folder):
    np.savez("data.npz", x=X, more=2 * X, names=["a"] * 4, ids=Y, longer=np.ones((9, 2)))
    assert list(inputs.judged("data.npz")[0]) == ["x", "more"]  # there may be two inputs


def test_labels_may_be_missing(folder):
    np.savez("data.npz", x=X)
    assert inputs.judged("data.npz")[1:] == (None, None)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"y": Y}, r"test='data.npz' holds no samples \(it holds y\): add x, or an array for each input"),
        ({}, r"\(it holds nothing\)"),
        ({"x": X, "y": Y, "y_kind": Y}, "holds y and y_kind: keep y, or an array for each output"),
        ({"x": np.array([None, 1], object)}, r"test='data.npz' holds an array of Python objects"),
    ],
)
def test_arrays_of_another_kind(folder, arrays, message):
    np.savez("data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        inputs.judged("data.npz", "test")


def test_arrays_are_written_under_any_name(folder):
    """numpy.savez has a parameter called file."""
    inputs.save("data.npz", {"file": X, "a/b": Y})
    with np.load("data.npz") as found:
        assert (found["file"] == X).all() and (found["a/b"] == Y).all()


def test_a_model_is_given_as_bytes_or_as_a_path(folder):
    (folder / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    for given in (b"\x1c\0\0\0TFL3", "model.tflite", folder / "model.tflite"):
        assert inputs.content(given) == b"\x1c\0\0\0TFL3" and inputs.is_tflite(inputs.content(given))
    assert inputs.content(b"") == b"" and not inputs.is_tflite(b"TFL3")


@pytest.mark.parametrize("path, cause", [("none.tflite", "No such file or directory"), (".", "Is a directory")])
def test_a_model_that_cannot_be_read_is_named_as_the_caller_says(folder, path, cause):
    for parameter in ("baseline", "source"):
        with pytest.raises(InputError, match=rf"^{parameter}='{re.escape(path)}' cannot be read \({cause}\)"):
            inputs.content(path, parameter)
    with pytest.raises(InputError, match=r"^model='"):
        inputs.content(path)


def test_files_that_are_no_npz(folder):
    np.save("one.npy", X)
    np.savez("whole.npz", x=np.random.default_rng(0).normal(size=(99, 9)).astype("float32"))
    whole = (folder / "whole.npz").read_bytes()
    spoilt = whole[:500] + bytes(64) + whole[564:]
    contents = {"half.npz": whole[:700], "spoilt.npz": spoilt, "empty.npz": b"", "text.npz": b"x, y\n1, 2\n"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    for name in ("one.npy", *contents):
        with pytest.raises(InputError, match=rf"data='{name}' cannot be read \(it is no .npz file"):
            inputs.judged(name)
    for name, cause in (("none.npz", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(InputError, match=rf"cannot be read \({cause}\): save it with numpy.savez\(file, x=x"):
            inputs.judged(name)
