"""The arithmetic of quantization: real = scale * (integer - zero point), as TFLite has it (Jacob et al. 2018, section 2.1).

Activations are asymmetric: [low, high] onto all integers, with a zero point. Weights are symmetric: zero point 0, and
the range narrow, -127 to 127 at 8 bits, so that a weight and its negative are rounded alike. A scale belongs to a whole
tensor or to each channel along an axis. Computed in float64: the reference for what kernels do, up to ties in rounding.
"""

import numpy as np

from helpers.base.errors import InputError


def asymmetric(low, high, bits=8):
    """Scale and zero point for activations between low and high, as (float, int).

    The range is widened to hold 0, which then is an integer exactly. An empty range at 0 gets scale 1.
    Raises InputError unless low <= high, both finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise InputError(f"low={low} and high={high} must be finite, and low the smaller.")
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, round(-(2 ** (bits - 1)) - low / scale)


def symmetric(weights, axis=None, bits=8):
    """Scales for weights: float64 (channels,) along `axis`, or () for the whole tensor; zero points are 0.

    Where all weights are zero the scale is 1, and they stay zero. Raises InputError for NaN or infinity.
    """
    weights = _finite(weights)
    others = None if axis is None else tuple(np.delete(np.arange(weights.ndim), axis))
    largest = np.abs(weights).max(axis=others) / (2 ** (bits - 1) - 1)
    return np.where(largest > 0, largest, 1.0)


def quantize(values, scale, zero_point=0, axis=None, bits=8, narrow=False):
    """Real values to integers: rounded to the nearest, halves to even, and clipped to the range. int32, same shape.

    narrow: leave out the lowest integer, as weights do.
    """
    lowest, highest = -(2 ** (bits - 1)) + int(narrow), 2 ** (bits - 1) - 1
    integers = np.round(_finite(values) / _along(scale, axis, np.ndim(values))) + zero_point
    return np.clip(integers, lowest, highest).astype(np.int32)


def dequantize(integers, scale, zero_point=0, axis=None):
    """Integers back to real values: float64, same shape."""
    return (np.asarray(integers, np.float64) - zero_point) * _along(scale, axis, np.ndim(integers))


def rounded(weights, axis=None, bits=8):
    """Weights after quantization and dequantization, per-channel along `axis` or per-tensor: same shape and dtype."""
    scale = symmetric(weights, axis, bits)
    integers = quantize(weights, scale, axis=axis, bits=bits, narrow=True)
    return dequantize(integers, scale, axis=axis).astype(np.asarray(weights).dtype)


def levels(weights, axis, scale=None, bits=8):
    """How many levels each channel can tell apart under `scale` (by default one for the whole tensor): int (channels,).

    A channel whose largest weight is k steps has 2 k + 1 of them; one whose weights all round to zero has 1.
    """
    scale = symmetric(weights, None, bits) if scale is None else scale
    steps = np.abs(quantize(weights, scale, axis=axis if np.ndim(scale) else None, bits=bits, narrow=True))
    return 2 * steps.max(axis=tuple(np.delete(np.arange(steps.ndim), axis))) + 1


def sqnr(reference, approximation):
    """Signal-to-quantization-noise ratio in dB: 10 log10(sum reference^2 / sum error^2). Infinite without error.

    Both of one shape. 6 dB are a factor of two in the error. Raises InputError for other shapes, NaN or infinity.
    """
    reference, approximation = _finite(reference), _finite(approximation)
    if reference.shape != approximation.shape:
        raise InputError(
            f"approximation has shape {approximation.shape}: it must be {reference.shape} as the reference."
        )
    noise, signal = ((reference - approximation) ** 2).sum(), (reference**2).sum()
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(signal / noise)) if noise else np.inf


def _finite(values):
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise InputError("values hold NaN or infinity: these have no scale.")
    return values


def _along(scale, axis, dimensions):
    """A scale per channel, shaped to multiply a tensor whose channels lie along `axis`."""
    if axis is None or np.ndim(scale) == 0:
        return scale
    shape = [1] * dimensions
    shape[axis] = -1
    return np.reshape(scale, shape)
