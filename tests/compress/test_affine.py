"""The arithmetic of quantization, against a reference in plain Python and against the integers of real files."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import affine, quantize
from helpers.tflite import litert

with runtime_env.quiet():
    import tensorflow as tf

SLACK = 1e-9  # what float64 itself may lose, as a share of a step
reals = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
ends = st.tuples(reals, reals).map(sorted)
bits = st.sampled_from([4, 8, 16])
kernels = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=reals)


# --- the reference: one number at a time, written from the definition


def limits(bits, narrow):
    return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1


def one_integer(value, scale, zero_point, bits, narrow):
    lowest, highest = limits(bits, narrow)
    return min(max(round(value / scale) + zero_point, lowest), highest)


def one_scale(values, bits):
    return max(abs(float(value)) for value in values) / (2 ** (bits - 1) - 1) or 1.0


def channels(kernel, axis):
    return [kernel.take(channel, axis) for channel in range(kernel.shape[axis])]


def near(value, integer, scale, zero_point, steps=0.5):
    """Whether a real value is within so many steps of what its integer stands for, in exact arithmetic."""
    error = abs(Fraction(value) - Fraction(float(scale)) * (int(integer) - zero_point))
    return error <= Fraction(float(scale)) * Fraction(steps + SLACK)


# --- activations


@given(ends, st.lists(st.floats(0, 1), min_size=1, max_size=20), bits)
@settings(deadline=None)
def test_inside_the_range_the_error_is_at_most_half_a_step(ends, places, bits):
    low, high = ends
    values = [min(max(low + place * (high - low), low), high) for place in [0.0, *places, 1.0]]
    scale, zero_point = affine.asymmetric(low, high, bits)
    integers = affine.quantize(values, scale, zero_point, bits=bits)
    assert integers.tolist() == [one_integer(value, scale, zero_point, bits, False) for value in values]
    back = affine.dequantize(integers, scale, zero_point)
    for value, integer, real in zip(values, integers, back, strict=True):
        assert near(value, integer, scale, zero_point)
        assert real == (int(integer) - zero_point) * scale


@given(ends, bits)
@settings(deadline=None)
def test_zero_is_an_integer_and_the_zero_point_in_range(ends, bits):
    scale, zero_point = affine.asymmetric(*ends, bits)
    assert scale > 0 and isinstance(zero_point, int)
    assert limits(bits, False)[0] <= zero_point <= limits(bits, False)[1]
    assert affine.quantize(0.0, scale, zero_point, bits=bits) == zero_point
    assert affine.dequantize(zero_point, scale, zero_point) == 0.0


@pytest.mark.parametrize(
    "low, high, scale, zero_point",
    [
        (0, 6, 6 / 255, -128),
        (-1, 1, 2 / 255, 0),  # -0.5 rounded to even
        (2, 5.1, 0.02, -128),
        (-5.1, -2, 0.02, 127),
        (0, 0, 1.0, -128),
    ],
)
def test_known_ranges(low, high, scale, zero_point):
    assert affine.asymmetric(low, high) == (pytest.approx(scale), zero_point)


@given(st.floats(width=32))
@settings(deadline=None)
def test_values_outside_the_range_are_clipped(value):
    assume(math.isfinite(value))
    scale, zero_point = affine.asymmetric(-1, 3)
    assert -128 <= affine.quantize(value, scale, zero_point) <= 127
    assert affine.quantize(1e30, scale, zero_point) == 127 and affine.quantize(-1e30, scale, zero_point) == -128


@pytest.mark.parametrize("low, high", [(1, 0), (math.nan, 1), (0, math.nan), (-math.inf, 0), (0, math.inf)])
def test_a_range_must_be_finite_and_in_order(low, high):
    with pytest.raises(InputError, match=f"low={low} and high={high} must be finite, and low the smaller"):
        affine.asymmetric(low, high)


# --- weights


@given(kernels, bits)
@settings(deadline=None)
def test_weights_are_symmetric_and_narrow(kernel, bits):
    scale = affine.symmetric(kernel, bits=bits)
    integers = affine.quantize(kernel, scale, bits=bits, narrow=True)
    assert scale == one_scale(kernel.ravel(), bits)
    assert integers.shape == kernel.shape and np.abs(integers).max() <= 2 ** (bits - 1) - 1
    assert (integers == -affine.quantize(-kernel, scale, bits=bits, narrow=True)).all()
    assert not integers[kernel == 0].any()
    for value, integer in zip(kernel.ravel().tolist(), integers.ravel(), strict=True):
        assert integer == one_integer(value, float(scale), 0, bits, True)
        assert near(value, integer, scale, 0)


@given(kernels, st.data())
@settings(deadline=None)
def test_per_channel_is_per_tensor_on_every_channel(kernel, data):
    axis = data.draw(st.integers(-kernel.ndim, kernel.ndim - 1))
    scales = affine.symmetric(kernel, axis)
    integers = affine.quantize(kernel, scales, axis=axis, narrow=True)
    back, rounded = affine.dequantize(integers, scales, axis=axis), affine.rounded(kernel, axis)
    assert scales.shape == (kernel.shape[axis],) and rounded.dtype == kernel.dtype
    for channel, part in enumerate(channels(kernel, axis)):
        scale = one_scale(part.ravel(), 8)
        assert scales[channel] == scale
        found = integers.take(channel, axis)
        assert found.ravel().tolist() == [one_integer(value, scale, 0, 8, True) for value in part.ravel().tolist()]
        np.testing.assert_array_equal(back.take(channel, axis), found * scale)
        np.testing.assert_array_equal(rounded.take(channel, axis), affine.rounded(part))


@given(kernels, st.data())
@settings(deadline=None)
def test_levels_of_every_channel(kernel, data):
    axis = data.draw(st.integers(0, kernel.ndim - 1))
    whole = one_scale(kernel.ravel(), 8)
    shared = [2 * max(abs(round(v / whole)) for v in part.ravel().tolist()) + 1 for part in channels(kernel, axis)]
    assert affine.levels(kernel, axis).tolist() == shared
    own = [255 if part.any() else 1 for part in channels(kernel, axis)]
    assert affine.levels(kernel, axis, affine.symmetric(kernel, axis)).tolist() == own


def test_zeros_stay_zero_and_a_constant_stays_itself():
    kernel = np.zeros((3, 3, 4, 2), "float32")
    assert affine.symmetric(kernel) == 1.0 and (affine.symmetric(kernel, 2) == 1.0).all()
    np.testing.assert_array_equal(affine.rounded(kernel, 2), kernel)
    assert affine.levels(kernel, 2).tolist() == [1] * 4
    kernel[:, :, 1] = -0.3  # one channel constant, the others zero
    np.testing.assert_allclose(affine.rounded(kernel, 2), kernel, rtol=1e-6)
    assert affine.levels(kernel, 2).tolist() == [1, 255, 1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_must_be_finite(bad):
    kernel = np.array([[1.0, bad], [2.0, 3.0]])
    for call in (affine.symmetric, affine.rounded, lambda w: affine.quantize(w, 0.1), lambda w: affine.levels(w, 1)):
        with pytest.raises(InputError, match="NaN or infinity"):
            call(kernel)
    for pair in ((kernel, kernel), (np.ones((2, 2)), kernel)):
        with pytest.raises(InputError, match="NaN or infinity"):
            affine.sqnr(*pair)


# --- SQNR


def test_sqnr_of_known_errors():
    reference = np.array([3.0, -4.0])
    assert affine.sqnr(reference, reference) == math.inf
    assert affine.sqnr(np.zeros(3), np.zeros(3)) == math.inf
    assert affine.sqnr(np.zeros(2), reference) == -math.inf
    assert affine.sqnr(reference, np.zeros(2)) == pytest.approx(0)
    assert affine.sqnr(reference, reference * 1.1) == pytest.approx(20)
    assert affine.sqnr(reference, reference * 1.05) - affine.sqnr(reference, reference * 1.1) == pytest.approx(6.0206)
    with pytest.raises(InputError, match=r"approximation has shape \(1, 2\): it must be \(2,\)"):
        affine.sqnr(reference, reference[None])


# --- what the converter writes


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_converter_writes_these_integers_and_scales(per_channel):
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    convolution, depthwise, dense = layers.Conv2D(8, 3), layers.DepthwiseConv2D(5), layers.Dense(6)
    model = tf.keras.Sequential([layers.Input((12, 12, 3)), convolution, depthwise, layers.Flatten(), dense])
    for layer in (convolution, depthwise, dense):  # channels an order of magnitude apart
        kernel, bias = layer.get_weights()
        spread = np.geomspace(1, 10, layer.output_shape[-1])
        layer.set_weights([kernel * (spread[:, None] if layer is depthwise else spread), bias])
    samples = np.random.default_rng(0).normal(size=(20, 12, 12, 3)).astype("float32")
    runner = litert.interpreter(quantize.convert(model, "int8", samples, per_channel=per_channel))
    for layer, order, axis in ((convolution, (3, 0, 1, 2), 0), (depthwise, (3, 0, 1, 2), 3), (dense, (1, 0), 0)):
        kernel = np.transpose(layer.get_weights()[0], order)
        (details,) = [d for d in runner.get_tensor_details() if tuple(d["shape"]) == kernel.shape]
        axis = axis if per_channel else None
        scales = affine.symmetric(kernel, axis)
        found = details["quantization_parameters"]
        # XNNPACK repeats the one scale of a dense layer; test_quantize counts what the file itself has.
        np.testing.assert_allclose(found["scales"], np.broadcast_to(scales, found["scales"].shape), rtol=1e-6)
        assert not found["zero_points"].any()
        expected = affine.quantize(kernel, scales, axis=axis, narrow=True)
        difference = np.abs(runner.get_tensor(details["index"]).astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
