"""What the process of a file reads and writes, and what it may use."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from helpers.compress import quantize
from helpers.tflite import inputs, measure, runner

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    """Tells the sum of numbers, and twice that of tokens."""
    ends = [tf.TensorSpec((1, 3, 4), tf.float32, "numbers"), tf.TensorSpec((1, 5), tf.int32, "tokens")]

    @tf.function(input_signature=ends)
    def function(numbers, tokens):
        return {
            "one": tf.reduce_sum(numbers, (1, 2))[:, None],
            "two": tf.repeat(tf.reduce_sum(tokens, 1, keepdims=True), 2, 1),
        }

    return quantize.convert(function.get_concrete_function())


@pytest.mark.parametrize("turned", [np.ascontiguousarray, np.asfortranarray])
def test_samples_are_those_that_were_stored(model, tmp_path, turned):
    arrays = {
        "numbers": RANDOM.normal(size=(9, 3, 4)).astype("float32"),
        "tokens": RANDOM.integers(0, 90, (9, 5), np.int32),
    }
    folder = staged(tmp_path, model, {name: turned(array) for name, array in arrays.items()})
    found = runner.run(measure.prediction("0.tflite", show=9), folder)
    told = dict(zip([np.shape(each) for each in found["first"]], found["first"], strict=True))
    np.testing.assert_allclose(told[9, 1], arrays["numbers"].sum((1, 2))[:, None], rtol=1e-5)
    np.testing.assert_array_equal(told[9, 2], np.repeat(arrays["tokens"].sum(1)[:, None], 2, 1))


def staged(folder, model, arrays):
    (folder / "0.tflite").write_bytes(model)
    inputs.save(folder / measure.SAMPLES, arrays)
    return folder


def test_compressed_samples_are_refused(model, tmp_path):
    staged(tmp_path, model, {})
    np.savez_compressed(tmp_path / measure.SAMPLES, x=np.zeros((2, 3)))
    answer = runner.run(measure.prediction("0.tflite"), tmp_path)
    assert (
        answer["kind"] == "refused" and "x.npy is compressed: numpy.savez stores arrays as they are" in answer["error"]
    )


@pytest.mark.parametrize("limit", ["RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_CORE"])
def test_stricter_limits_of_whoever_started_it_stay(limit):
    """As `ulimit` and batch systems set them."""
    most = {"RLIMIT_CPU": 500, "RLIMIT_CORE": 0}.get(limit, 2**33)
    code = f"""
import resource
from helpers.tflite import runner
resource.setrlimit(resource.{limit}, ({most}, {most}))
runner._restrict({{"limits": {{"seconds": 1000, "bytes": 2**34}}}})
print(*resource.getrlimit(resource.{limit}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    soft, hard = map(int, done.stdout.split()) if done.returncode == 0 else pytest.fail(done.stderr)
    assert hard == most and soft == most - (limit == "RLIMIT_CPU")  # before it is killed it is told


def test_without_such_limits_its_own_are_set():
    code = """
import resource
from helpers.tflite import runner
runner._restrict({"limits": {"seconds": 1000, "bytes": 2**34}, "threads": 2})
print(*resource.getrlimit(resource.RLIMIT_CPU))
"""
    if resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        soft, hard = map(int, done.stdout.split())
        assert hard == soft + 1 and 2000 < soft < 2100
