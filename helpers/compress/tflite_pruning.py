"""Zeros for a float `.tflite` in training (`tflite_training`): a share by magnitude, or a pattern; kept by all that follows.

The share grows as tfmot lets it: Zhu and Gupta 2017, eq. 1.
"""

from dataclasses import dataclass

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress.tflite_operators import KERNEL_PLACE

with runtime_env.quiet():
    import tensorflow as tf


@dataclass(frozen=True)
class Share:
    """A share of zeros in every kernel, by magnitude: reached along a polynomial of third degree in one half of the steps."""

    final: float

    def __post_init__(self):
        if not 0 < self.final < 1:
            raise InputError(f"sparsity={self.final} must lie in (0, 1), or be a pattern such as 2:4.")

    def fits(self, kernel):
        return True

    def mask(self, kernel, progress):
        """The mask at a share `progress` of the steps in which it grows, in [0, 1]."""
        share = self.final * (1 - (1 - progress) ** 3)
        size = tf.abs(tf.reshape(kernel, [-1]))
        dropped = tf.cast(tf.round(share * tf.cast(tf.size(size), tf.float32)), tf.int32)
        smallest = tf.argsort(size, stable=True)[:dropped]  # of equal ones, as in clusters, no more than are asked for
        gone = tf.scatter_nd(smallest[:, None], tf.ones_like(smallest, kernel.dtype), tf.shape(size))
        return tf.reshape(1 - gone, kernel.shape)


@dataclass(frozen=True)
class Pattern:
    """n weights of m that lie side by side along the inputs are kept, the largest (N:M sparsity: Mishra et al. 2021)."""

    n: int
    m: int

    def __post_init__(self):
        if not 0 < self.n < self.m:
            raise InputError(f"sparsity={self.n}:{self.m} must keep at least 1 weight of m, and not all.")

    def fits(self, kernel):
        return kernel.shape[-1] % self.m == 0

    def mask(self, kernel, progress):
        size = tf.reshape(tf.abs(kernel), (-1, self.m))
        order = tf.argsort(tf.argsort(size, direction="DESCENDING", stable=True), stable=True)
        return tf.reshape(tf.cast(order < self.n, kernel.dtype), kernel.shape)


def sparse(aware, sparsity):
    """Let an `Aware` be pruned in training: kernels of convolutions and dense layers (not depthwise ones, which are small) get a
    mask that is held in all that follows. Changes it and returns (itself, names of the kernels that the pattern does not fit).

    sparsity: a share, such as 0.5, or a pattern, such as "2:4". Raises InputError for another, StructureError for a pattern
    that fits no kernel.
    """
    aware.sparsity = _sparsity(sparsity)
    aware.masks.clear()
    aware.forget()
    kernels = {
        node.inputs[KERNEL_PLACE[node.kind]]
        for node in aware.graph.nodes()
        if node.kind in KERNEL_PLACE and node.kind != "DEPTHWISE_CONV_2D"
    }
    left = []
    for index in kernels & set(aware.graph.weights):
        kernel = aware.graph.weights[index]
        if aware.sparsity.fits(kernel):
            aware.masks[index] = tf.Variable(tf.ones(kernel.shape), trainable=False)
        else:
            left.append(aware.graph.name_of(index))
    if not aware.masks:
        raise StructureError(f"sparsity={sparsity!r} fits no kernel of this model: choose a share, such as 0.5.")
    return aware, left


def _sparsity(given):
    try:
        if ":" in str(given):
            return Pattern(*map(int, str(given).split(":")))
        return Share(float(given))
    except (TypeError, ValueError):
        raise InputError(f"sparsity={given!r} must be a share in (0, 1) or a pattern such as 2:4.") from None
