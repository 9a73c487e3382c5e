"""A file written anew computes the same, and says what the tools want to read."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import requantize
from helpers.tflite import litert, rewrite

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")


def without_signature(offset=False):
    """A dense layer with a swish, as a bare function: the converter gives such a file no signature."""
    runtime_env.seed_everything(0)
    weights = tf.constant(np.random.default_rng(1).normal(size=(6, 4)).astype("float32"))
    function = tf.function(lambda x: tf.nn.silu(x @ weights))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(tf.TensorSpec((None, 6)))], tf.Module()
    )
    converter._experimental_use_buffer_offset = offset
    with runtime_env.quiet():
        return converter.convert()


@pytest.mark.parametrize("offset", [False, True])
def test_a_signature_is_added_and_nothing_else(offset):
    bare = without_signature(offset)
    signed = rewrite.with_signature(bare)
    (name, ends), *others = litert.interpreter(signed).get_signature_list().items()
    assert name == rewrite.SIGNATURE and not others and len(ends["inputs"]) == len(ends["outputs"]) == 1
    np.testing.assert_array_equal(litert.predict(signed, X), litert.predict(bare, X))
    assert litert.operators(signed).equals(litert.operators(bare))
    assert rewrite.with_signature(signed) is signed


def test_a_file_without_a_signature_is_calibrated_and_quantized():
    bare = without_signature()
    file = requantize.apply(bare, {"*": requantize.Format()}, requantize.calibrate(bare, X))
    exact = litert.predict(bare, X)
    assert len(litert.kernels_in(file)) == 1
    assert np.abs(litert.predict(file, X) - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("spoil", [lambda file: file[:8] + bytes(50), lambda _: b"x" * 99])
def test_a_damaged_file_is_refused(spoil):
    with pytest.raises(InputError):
        rewrite.with_signature(spoil(without_signature()))
