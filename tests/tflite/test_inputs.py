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


def test_known_arrays_are_read(folder):
    np.savez("data.npz", x=X.astype("float16"), y=Y, slice=["a", "b", "a", "b"], other=Y)
    found = inputs.arrays("data.npz", needed=("x", "y"))
    assert sorted(found) == ["slice", "x", "y"] and found["x"].dtype == "float32"
    x, y = inputs.samples("data.npz")
    assert x.dtype == "float32" and (y == Y).all()


def test_labels_may_be_missing_where_nobody_needs_them(folder):
    np.savez("data.npz", x=X)
    assert inputs.samples("data.npz")[1] is None
    with pytest.raises(InputError, match=r"holds no y \(it holds x\): it must hold x \(samples\) and y"):
        inputs.samples("data.npz", labelled=True)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"y": Y}, r"test='data.npz' holds no x \(it holds y\): it must hold x \(samples\)"),
        ({"images": X, "labels": Y}, r"holds no x \(it holds images, labels\)"),
        ({f"a{i}": Y for i in range(10)}, r"\(it holds a0, a1, a2, a3, a4, a5, a6, a7, …\)"),
        ({}, r"\(it holds nothing\)"),
        ({"x": X.astype("uint8")}, "test='data.npz': x is uint8: it must be float32 samples, scaled as"),
        ({"x": np.array([None, 1], object)}, r"test='data.npz' holds an array of Python objects"),
    ],
)
def test_arrays_of_another_kind(folder, arrays, message):
    np.savez("data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        inputs.samples("data.npz", "test")


@pytest.mark.parametrize("read", [inputs.arrays, inputs.samples])
def test_raw_pixels_are_refused_however_they_are_read(folder, read):
    np.savez("data.npz", x=X.astype("uint8"), y=Y)
    with pytest.raises(InputError, match=r"data='data\.npz': x is uint8"):
        read("data.npz")


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
            inputs.arrays(name)
    for name, cause in (("none.npz", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(InputError, match=rf"cannot be read \({cause}\): save it with numpy.savez\(x="):
            inputs.arrays(name)
