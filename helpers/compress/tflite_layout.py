"""Where in the constants of a `.tflite`'s operators the channels lie that they read and make.

node: a `tflite_operators.Node`. place: of the constant among its inputs. channels: how many the tensor between two operators has; an
axis may hold them several times. reads: whether the operator reads that tensor; otherwise it makes it.
"""

import numpy as np

from helpers.compress.tflite_operators import KERNEL_PLACE


def largest(node, place, values, channels, reads=True):
    """The largest value of a constant for each channel: (channels,)."""
    return by_channel(node, place, values, channels, reads).max(1)


def summed(node, place, values, channels, reads=True):
    """The sum of a constant's values for each channel: (channels,)."""
    return by_channel(node, place, values, channels, reads).sum(1)


def by_channel(node, place, values, channels, reads=True):
    """A constant as (channels, values of each)."""
    if reads and node.kind == "DEPTHWISE_CONV_2D":
        return np.moveaxis(values, -1, 0).reshape(channels, -1)
    if reads and _is_grouped(node, values.shape, channels):
        groups = channels // values.shape[-1]
        parts = values.reshape(groups, -1, values.shape[-1])
        return np.moveaxis(parts, -1, 1).reshape(channels, -1)
    rows = np.moveaxis(values, axis(node, place, values.shape, reads), -1)
    return np.moveaxis(rows.reshape(-1, channels), -1, 0)


def spread(node, place, shape, factors, reads):
    """Factors of channels, laid out so that they multiply a constant of this shape."""
    if reads and node.kind == "DEPTHWISE_CONV_2D":
        return np.repeat(factors, shape[-1] // len(factors))
    if reads and _is_grouped(node, shape, len(factors)):
        groups = np.reshape(factors, (-1, 1, 1, shape[-1]))
        return np.repeat(groups, shape[0] // len(groups), 0)
    along, where = [1] * len(shape), axis(node, place, shape, reads)
    along[where] = -1
    return np.tile(factors, shape[where] // len(factors)).reshape(along)


def _is_grouped(node, shape, channels):
    return node.kind == "CONV_2D" and shape[-1] < channels


def axis(node, place, shape, reads):
    """Along which axis of a constant the channels lie that it makes, or reads."""
    if reads and node.kind == "BATCH_MATMUL":
        return len(shape) - (1 if node.options.adjY else 2)
    makes_first = node.kind in KERNEL_PLACE and node.kind != "DEPTHWISE_CONV_2D" and place == KERNEL_PLACE[node.kind]
    return 0 if makes_first and not reads else len(shape) - 1
