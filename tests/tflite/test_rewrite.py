"""A file written anew computes the same, and says what the tools want to read."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize, requantize
from helpers.tflite import flatbuffer, litert, packing, rewrite

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


# --- weights as float32


def network(size=8):
    layers = tf.keras.layers
    runtime_env.seed_everything(0)
    inputs = layers.Input((size, size, 4))
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(inputs)
    x = layers.DepthwiseConv2D(3, activation="relu", name="spread")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(layers.Flatten()(layers.Conv2D(16, 1, name="mix")(x)))
    return tf.keras.Model(inputs, layers.Dense(5, name="answer")(x))


IMAGES = np.random.default_rng(0).normal(size=(10, 8, 8, 4)).astype("float32")


def test_float16_weights_are_widened_exactly():
    file = quantize.convert(network(), "float16")
    plain, notes = rewrite.with_plain_weights(file)
    assert set(litert.weight_layers(plain).dtype) == {"float32"} and "DEQUANTIZE" not in set(litert.operators(plain).op)
    assert len(notes) == 1 and "float16 weights" in notes[0]
    np.testing.assert_allclose(litert.predict(plain, IMAGES), litert.predict(file, IMAGES), atol=1e-6)


@pytest.mark.parametrize("sparsity_, block", [(0.8, (1, 1)), (0.9, (16, 1)), (0.6, (4, 1))])
def test_sparse_weights_are_filled_up_exactly(sparsity_, block):
    model = network()
    for layer in model.layers:
        if layer.get_weights() and "Depthwise" not in type(layer).__name__:
            kernel, bias = layer.get_weights()
            blocks = np.random.default_rng(1).random((-(-kernel.shape[-2] // block[0]), kernel.shape[-1])) > sparsity_
            layer.set_weights([kernel * np.repeat(blocks, block[0], axis=0)[: kernel.shape[-2]], bias])
    dense, file = quantize.convert(model), quantize.convert(model, sparse=True)
    with flatbuffer.unpacked(file) as content:
        assert any(tensor.sparsity for tensor in content.subgraphs[0].tensors)
    plain, notes = rewrite.with_plain_weights(file)
    with flatbuffer.unpacked(plain) as content:
        assert not any(tensor.sparsity for tensor in content.subgraphs[0].tensors)
    assert len(notes) == 1 and "were filled up" in notes[0] and "DENSIFY" not in set(litert.operators(plain).op)
    np.testing.assert_allclose(litert.predict(plain, IMAGES), litert.predict(dense, IMAGES), atol=1e-5)
    zeros = litert.tensors(plain).query("constant")["zeros"].sum()
    assert zeros == pytest.approx(litert.tensors(dense).query("constant")["zeros"].sum(), rel=1e-6)


def test_plain_files_and_integer_weights_stay_as_they_are():
    model = network()
    for recipe in ("float32", "dynamic", "int8"):
        file = quantize.convert(model, recipe, IMAGES)
        assert rewrite.with_plain_weights(file) == (file, [])


def as_old_converters_wrote(file):
    with flatbuffer.unpacked(file) as content:
        for code in content.operatorCodes:
            code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
        return packing.packed(content, file)


def test_files_of_old_converters_are_quantized_like_new_ones():
    file = quantize.convert(network())
    old = as_old_converters_wrote(file)
    assert flatbuffer.has_old_codes(old) and not flatbuffer.has_old_codes(file)
    assert not flatbuffer.has_old_codes(rewrite.with_signature(old))
    small = requantize.apply(old, {"*": requantize.Format()}, requantize.calibrate(old, IMAGES))
    assert small == requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, IMAGES))


def test_operands_that_others_read_too_get_twins():
    """Two dense layers with one bias: changed for the first, for both alike, and for each in another way."""
    bias = tf.constant([1.0, 2.0, 3.0])
    kernels = [tf.constant(np.random.default_rng(seed).normal(size=(6, 3)).astype("float32")) for seed in (1, 2)]
    function = tf.function(lambda x: [x @ kernel + bias for kernel in kernels])
    frozen = function.get_concrete_function(tf.TensorSpec((None, 6)))
    with runtime_env.quiet():
        file = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()
    file = rewrite.with_signature(file)
    known, ops = litert.run(file, {"x": X}), list(litert.operators(file).op)
    assert ops == ["FULLY_CONNECTED"] * 2

    def shifted(places):
        found = litert.run(rewrite.with_operands(file, places), {"x": X})
        return [float((found[name] - known[name]).mean()) for name in known]

    more, most = (np.array([1, 2, 3], "float32") + by for by in (np.float32(1), np.float32(5)))
    assert sorted(shifted({(0, 2): more})) == pytest.approx([0, 1], abs=1e-5)
    assert shifted({(0, 2): more, (1, 2): more}) == pytest.approx([1, 1], abs=1e-5)
    assert sorted(shifted({(0, 2): more, (1, 2): most})) == pytest.approx([1, 5], abs=1e-5)
    assert len(litert.tensors(rewrite.with_operands(file, {(0, 2): more, (1, 2): more}))) == len(litert.tensors(file))
    with pytest.raises(InputError, match="has another form"):
        rewrite.with_operands(file, {(0, 2): more[:2]})
