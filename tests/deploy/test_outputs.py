"""What a child process answered, read as if it lied; and outputs that go by other names."""

import os
import pickle

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.deploy import outputs

N = 8
RIGHT = np.arange(2.0 * N, dtype="float32").reshape(N, 2)


def end(name="out", shape=(1, 2), dtype="float32", scale=None, **more):
    return {"name": name, "shape": list(shape), "open": [], "dtype": dtype, "scale": scale, "zero_point": 0, **more}


def answer(*ends, **more):
    return {"inputs": [end("x", (1, 3))], "outputs": list(ends or [end()]), "not_finite": 0, "first": [], **more}


def read(folder, given, *arrays):
    for place, array in enumerate(arrays):
        np.save(folder / f"it{place}.npy", array)
    return outputs.read(given, folder, "it", N)


def test_an_honest_answer_comes_with_its_arrays(tmp_path):
    found = read(tmp_path, answer(end("a"), end("b", (1,))), RIGHT, RIGHT[:, 0])
    assert [of["name"] for of in found["outputs"]] == ["a", "b"] and found["not_finite"] == 0
    assert np.array_equal(found["arrays"][0], RIGHT) and np.array_equal(found["arrays"][1], RIGHT[:, 0])
    assert not isinstance(found["arrays"][0], np.memmap)  # the folder goes


def test_what_is_not_finite_is_counted_here(tmp_path):
    wild = RIGHT.copy()
    wild[[1, 5], [0, 1]] = np.nan, np.inf
    assert read(tmp_path, answer(not_finite=0), wild)["not_finite"] == 2
    assert read(tmp_path, answer(end("a"), end("b")), wild, wild[::-1].copy())["not_finite"] == 4


@pytest.mark.parametrize(
    "lie",
    [
        {},
        {"inputs": [], "outputs": None},
        {"inputs": None, "outputs": None, "unusable": "x"},
        {"inputs": [], "outputs": [], "unusable": {"a": 1}},
        answer({"shape": [1, 2], "dtype": "float32"}),
        answer("out"),
        answer(end(name=["out"])),
        answer(end(name=3)),
        answer(end(dtype=None)),
        answer(end(shape=(1, "2"))),
        answer(end(shape=(1, float("nan")))),
        answer(end(open=None)),
        answer(end(scale="1")),
        answer(end(zero_point=0.5)),
        answer(end("same"), end("same")),
        answer(*[end(str(place)) for place in range(3)]),
    ],
)
def test_lies_about_inputs_and_outputs_are_nonsense(tmp_path, lie):
    assert read(tmp_path, lie, RIGHT, RIGHT) == {"error": outputs.NONSENSE}


def header(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\1\0" + (len(text) + 1).to_bytes(2, "little") + text.encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"<html>" * 99,
        pickle.dumps(RIGHT),
        header((N, 2)) + RIGHT.tobytes()[:-1],
        header((N, 2)),
        header((N, 10**12)),
        header((N, 2**70)),
        header((N, -2)) + RIGHT.tobytes(),
        header((N, 0)),
        header(()) + bytes(4),
        header((2 * N,)) + RIGHT.tobytes(),
        header((N - 1, 2)) + RIGHT.tobytes(),
        header((N, 2), "<f8") + bytes(16 * N),
        header((N, 2), ">f4") + RIGHT.tobytes(),
        header((N, 2), "<i4") + RIGHT.tobytes(),
        header((N, 2), "|O") + pickle.dumps([None] * 2 * N),
        header((N, 2), "nosuch") + RIGHT.tobytes(),
    ],
)
def test_files_that_hold_something_else_are_nonsense(tmp_path, content):
    (tmp_path / "it0.npy").write_bytes(content)
    assert outputs.read(answer(), tmp_path, "it", N) == {"error": outputs.NONSENSE}


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")]
)
def test_what_is_no_file_is_nonsense_and_not_waited_for(tmp_path, make):
    make(tmp_path / "it0.npy")
    assert outputs.read(answer(), tmp_path, "it", N) == {"error": outputs.NONSENSE}


def test_what_it_says_can_be_printed(tmp_path):
    found = read(tmp_path, answer(end("a\n\x1b[31m" + 999 * "b")), RIGHT)
    assert found["outputs"][0]["name"].startswith("a??[31mb") and len(found["outputs"][0]["name"]) == 300
    unusable = read(tmp_path, answer(unusable="so\nit is"))
    assert unusable["unusable"] == "so?it is" and "arrays" not in unusable
    assert read(tmp_path, answer(unusable=""))["unusable"] == outputs.NONSENSE
    assert read(tmp_path, {"error": "no\x1b"}) == {"error": "no?"}
    assert read(tmp_path, {"error": ""}) == {"error": outputs.NONSENSE}


# --- names


def of(*ends):
    arrays = [np.full((N, *each["shape"][1:]), place, "float32") for place, each in enumerate(ends)]
    return {"outputs": list(ends), "arrays": arrays}


def test_outputs_are_matched_by_name_and_a_single_one_whatever_it_is_called():
    before = of(end("kind", (1, 3)), end("price", (1, 1)))
    found, problem = outputs.matched(of(end("price", (1, 1)), end("kind", (1, 3))), before, {})
    assert problem is None and list(found) == ["kind", "price"] and found["kind"][0, 0] == 1
    found, problem = outputs.matched(of(end("other")), of(end("out")), {})
    assert problem is None and list(found) == ["out"]


@pytest.mark.parametrize(
    "renamed, names, cure",
    [
        ({}, [("b", (1, 1)), ("a", (1, 3))], {"kind": "a", "price": "b"}),
        ({"price": "b"}, [("b", (1, 1)), ("a", (1, 3))], {"kind": "a"}),
        ({}, [("a", (1, 3)), ("price", (1, 1))], {"kind": "a"}),
        ({"kind": "nosuch"}, [("a", (1, 3)), ("price", (1, 1))], {"kind": "a"}),
        ({"kind": "b", "price": "b"}, [("b", (1, 3)), ("a", (1, 1))], {"price": "a"}),
    ],
)
def test_the_options_that_it_names_are_those_that_are_missing(renamed, names, cure):
    before = of(end("kind", (1, 3)), end("price", (1, 1)))
    candidate = of(*[end(*each) for each in names])
    found, problem = outputs.matched(candidate, before, renamed)
    said = " ".join(f"--output {name}={other}" for name, other in cure.items())
    assert found is None and problem.endswith(f"say which is which, as in {said}")
    found, problem = outputs.matched(candidate, before, {**renamed, **cure})
    assert problem is None and {name: array.shape for name, array in found.items()} == {"kind": (N, 3), "price": (N, 1)}


def test_an_output_that_the_baseline_does_not_have_is_refused():
    with pytest.raises(InputError, match="there is no output 'nosuch': the baseline has out"):
        outputs.matched(of(end()), of(end()), {"nosuch": "out"})


@pytest.mark.parametrize(
    "theirs, told",
    [
        ([end("a"), end("b", (1, 3))], "the baseline's output b is float32 (1, 2)"),
        ([end("a"), end("b", dtype="int32")], "its output is int32 without a scale, the baseline's float32"),
        ([end("a"), end("b"), end("c")], "the baseline has 2 outputs: float32 (1, 2), float32 (1, 2)"),
        ([end("a")], "the baseline has 2 outputs"),
    ],
)
def test_other_outputs_are_told_from_the_baselines(theirs, told):
    found, problem = outputs.matched(of(*theirs), of(end("a"), end("b")), {})
    assert found is None and problem.startswith(told)


def test_integers_with_a_scale_are_real_numbers():
    found, problem = outputs.matched(of(end(dtype="int8", scale=0.1)), of(end()), {})
    assert problem is None and found["out"].shape == (N, 2)
