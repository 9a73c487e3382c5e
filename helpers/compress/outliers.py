"""Channels far larger than the others of their tensor, in a float `.tflite`, whatever made it: planted, and taken away again.

int8 has one scale for all channels of an activation, so that one which is 64 times larger than the others leaves them 4 levels.
Large Transformers come with such channels (Dettmers et al. 2022), small ones do not: `plant` gives them some, `migrate` moves
them into the weights that read them. Both change only how a function is written down. The factors are powers of two, which
change no bit of float32.
"""

import numpy as np
import pandas as pd

from helpers.base.errors import InputError, StructureError
from helpers.compress import tflite_scales
from helpers.compress.tflite_plan import opened
from helpers.tflite import inside, rewrite

COLUMNS = ["tensor", "kind", "channel", "factor"]
DEAD = 1e-6  # share of its tensor's, or kernels', largest below which a channel carries nothing


def plant(model, factor, channels=2):
    """A float `.tflite` in which some channels of every normalization are `factor` times as large, and the weights that read
    them so much smaller: it computes the same, bit for bit where factor is a power of two.

    channels: how many of each, those whose gamma is largest, or a list of their numbers. A normalization is left alone if
    anything but convolutions and dense layers reads it, as in a residual connection behind it.
    Returns (bytes, frame), a row for each channel: tensor (the normalization's output), kind, channel, factor.
    Raises InputError for a factor that is not above 0, for channels that do not exist, and for a quantized or unusable file;
    StructureError for one without such a normalization.
    """
    if not (np.isfinite(factor) and factor > 0):
        raise InputError(f"factor={factor!r} must be a finite number above 0, such as 64.")
    file, plan, _ = opened(model)
    found = [each for each in tflite_scales.passages(plan) if each.kind == tflite_scales.NORMALIZATION]
    if not found:
        raise StructureError(
            "model has no normalization that only dense layers and convolutions read: give a model that normalizes what goes into "
            "its layers, as Vision Transformers do."
        )
    rows, operands = [], {}
    for passage in found:
        factors = np.ones(passage.channels)
        factors[_chosen(passage, plan, channels)] = factor
        operands = passage.moved(plan, operands, factors)
        rows += _rows(plan, passage, factors)
    return rewrite.with_operands(file, operands), pd.DataFrame(rows, columns=COLUMNS)


def migrate(model, samples, strength=0.5):
    """A float `.tflite` whose channels are as large as suits both sides: what is hard to quantize in an activation moves into the
    weights that read it, which have a scale for each channel to put out (Xiao et al. 2023, *SmoothQuant*, equation 4). It
    computes the same, bit for bit.

    Channel j of a tensor is divided by max|X_j|^a / max|W_j|^(1 - a), to the nearest power of two and up to a factor that all
    channels share, and the rows of the weights that read it are multiplied by it. That is done to what normalizations put out
    (into gamma and beta), and to what convolutions and dense layers put out without an activation or with a ReLU (into their
    kernels and biases), wherever only convolutions and dense layers read it. samples: (n, ...) as the model takes them, or name of
    an input -> such an array; max|X_j| is the largest over them. strength: a, from 0 (the weights alone decide) to 1 (the
    activations alone).
    Returns (bytes, frame), a row for each channel that moved: tensor, kind (normalization, scale or weights), channel, factor (what
    its values are multiplied by).
    Raises InputError for a strength beyond [0, 1], for samples that do not fit, and for a quantized or unusable file; StructureError
    for one without any such tensor.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength={strength!r} must lie in [0, 1]: 0.5 is usual.")
    file, plan, _ = opened(model)
    found = tflite_scales.passages(plan)
    if not found:
        raise StructureError(
            "model has no tensor whose channels could move into weights (only convolutions and dense layers may read it, and no "
            "activation but ReLU may stand before them): keep its sensitive layers in float instead, as sensitivity.plan does."
        )
    largest, rows, operands = inside.maxima_by_index(file, samples), [], {}
    for passage in found:
        weights = passage.largest_weights(plan, operands)
        factors = _balanced(largest[passage.tensor], weights, strength)
        operands = passage.moved(plan, operands, factors)
        rows += _rows(plan, passage, factors)
    return rewrite.with_operands(file, operands), pd.DataFrame(rows, columns=COLUMNS)


def _chosen(passage, plan, channels):
    """The numbers of the channels of a normalization that are to be outliers."""
    if not np.ndim(channels):
        if not 1 <= channels <= passage.channels:
            raise InputError(f"channels={channels!r} must lie in [1, {passage.channels}], as many as are normalized.")
        return np.argsort(-passage.gamma(plan), kind="stable")[:channels]
    if not len(channels) or min(channels) < 0 or max(channels) >= passage.channels:
        raise InputError(f"channels={list(channels)} must be numbers from 0 to {passage.channels - 1}, at least one.")
    return list(channels)


def _balanced(activations, weights, strength):
    """What to multiply each channel of an activation by: powers of two, 1 for a channel like most others."""
    carried = (activations > DEAD * activations.max()) & (weights > DEAD * weights.max())
    if not carried.any():
        return np.ones(len(weights))
    balance = np.zeros(len(weights))
    balance[carried] = strength * np.log2(activations[carried]) - (1 - strength) * np.log2(weights[carried])
    whole = np.rint(balance).astype(int)
    usual = int(np.sort(whole[carried])[carried.sum() // 2])  # one of them, so that differences are whole
    return np.where(carried, 2.0 ** (usual - whole), 1.0)


def _rows(plan, passage, factors):
    name = plan.names[passage.tensor]
    return [(name, passage.kind, int(at), float(factors[at])) for at in np.flatnonzero(factors != 1)]
