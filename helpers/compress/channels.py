"""Structured pruning: whole neurons and channels go, by surgery on a flat Keras model, so that any kernel runs faster.

The channels that one layer puts out form a group. With a channel go its parameters in the layers that handle each channel
by itself (batch norm, depthwise convolution, PReLU ...) and the rows of the kernels that read it. Channels that reach an
addition, or the model's output, stay whole: they have to fit what they meet there. What a removed channel added to its
readers is dropped, a constant that its bias or batch norm made of it included; fine-tuning makes up for it.
"""

from collections import Counter
from numbers import Integral, Real

import numpy as np
import pandas as pd

from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.compress import channel_groups
from helpers.compress.channel_groups import Group, groups, left_whole, macs
from helpers.networks import models, structure
from helpers.networks.structure import has_kernel, kind

with runtime_env.quiet():
    import tensorflow as tf

__all__ = [
    "CRITERIA",
    "SCOPES",
    "Group",
    "StructureError",
    "compare",
    "groups",
    "keep",
    "left_whole",
    "macs",
    "masked",
    "narrow",
    "prune",
    "scores",
]

CRITERIA = {
    "l1": "L1 norm of the weights that make the channel (Li et al. 2017)",
    "gamma": "absolute scale in the batch norm that follows (Liu et al. 2017)",
    "activation": "mean absolute value that the next layers of weights read, on a calibration set",
    "random": "the control",
}
SCOPES = ("layer", "global")
BATCH = 32


def scores(model, criterion="l1", calibration=None, seed=0, only="*"):
    """How much each channel counts, more being better: group -> float64 (width,).

    criterion: a key of CRITERIA. "l1" looks at the kernel alone, without batch norm. "gamma" takes the first batch norm
    behind the group's layer. calibration: (samples, ...) as the model takes them, for "activation"; of several inputs name -> such
    an array, or a list in their order. seed: for "random". only: as in `groups`.
    Raises StructureError for an unknown criterion, a missing or ill-fitting calibration set, a group without such a batch
    norm, or no group at all; StructureError as `groups` does.
    """
    if criterion not in CRITERIA:
        raise StructureError(f"criterion={criterion!r} is unknown: choose one of {', '.join(CRITERIA)}.")
    model = channel_groups.checked(model)
    found = groups(model, only)
    if not found:
        raise StructureError(
            f"model {model.name} has no channels to remove in layers whose name fits only={only!r}"
            f"{_reasons(left_whole(model, only))}."
        )
    if criterion == "activation":
        return _mean_activations(model, found, _samples(calibration, model))
    random = np.random.default_rng(seed)
    measures = {
        "l1": lambda group: _kernel_norms(model.get_layer(group.name)),
        "gamma": lambda group: _gammas(model, group),
        "random": lambda group: random.random(group.width),
    }
    return {name: measures[criterion](group) for name, group in found.items()}


def keep(scores, ratio, scope="layer", multiple=1):
    """Which channels to keep: group -> bool (width,). Groups that `scores` does not name stay whole.

    ratio: share of the channels to remove, of each group (scope "layer") or of all groups together ("global"). Globally,
    scores are divided by the L2 norm of their group (Molchanov et al. 2017, section 2.2), and one threshold cuts them all;
    where scores differ little within a group, as with "l1", wide layers lose most. multiple: round each number of kept
    channels to the nearest multiple of it, at least one multiple, at most the width. No group is emptied; among equal
    scores the later channel goes first.
    Raises StructureError for a ratio outside (0, 1), an unknown scope, a multiple below 1, scores that are not finite.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < ratio < 1:
        raise StructureError(f"ratio={ratio!r} must lie between 0 and 1: it is the share of channels to remove.")
    if scope not in SCOPES:
        raise StructureError(f"scope={scope!r} is unknown: choose one of {', '.join(SCOPES)}.")
    if isinstance(multiple, bool) or not isinstance(multiple, Integral) or multiple < 1:
        raise StructureError(f"multiple={multiple!r} must be a whole number of 1 or more.")
    for name, values in scores.items():
        if np.ndim(values) != 1 or not len(values) or not np.isfinite(values).all():
            raise StructureError(f"scores of {name} must be one finite number for each of its channels.")
    kept = _kept_by_layer(scores, ratio) if scope == "layer" else _kept_globally(scores, ratio)
    return {name: _largest(values, _rounded(kept[name], multiple, len(values))) for name, values in scores.items()}


def masked(model, masks):
    """A copy of the model, as wide as it was, in which no layer of weights reads the removed channels: their rows are zero.

    It computes what `narrow` computes. masks: group -> bool (width,), True for channels to keep.
    Raises StructureError for an unknown group, or a mask that does not fit it or keeps nothing; StructureError as `groups`.
    """
    model, kept = _kept(model, masks)
    result = models.copy(model)
    for layer, reads, _ in _affected(model, kept):
        if reads is not None and has_kernel(layer) and kind(layer) != "depthwise":
            kernel, *bias = layer.get_weights()
            result.get_layer(layer.name).set_weights([kernel * reads[:, None], *bias])
    return result


def narrow(model, masks):
    """The model without the removed channels, not compiled: layers have the names, and the weights, that they had.

    The model itself is left as it is. A Sequential model comes back as a functional one. masks, errors: as in `masked`.
    """
    model, kept = _kept(model, masks)

    def clone(layer):
        config = layer.get_config()
        if layer.name in masks:
            config["units" if kind(layer) == "dense" else "filters"] = int(kept[layer.name].sum())
        return type(layer).from_config(config)

    result = tf.keras.models.clone_model(model, clone_function=clone)
    for layer, reads, writes in _affected(model, kept):
        result.get_layer(layer.name).set_weights(_remaining(layer, reads, writes))
    return result


def prune(model, ratio, criterion="l1", scope="layer", multiple=1, calibration=None, seed=0, only="*"):
    """The narrow model in one call; parameters and errors as in `scores` and `keep`."""
    return narrow(model, keep(scores(model, criterion, calibration, seed, only), ratio, scope, multiple))


def compare(model, narrowed, only="*"):
    """What was removed, a row for each group: group, kind, width, kept, followers, consumers, parameters and macs that
    one channel held."""
    rows = [
        {
            "group": group.name,
            "kind": kind(model.get_layer(group.name)),
            "width": group.width,
            "kept": narrowed.get_layer(group.name).output_shape[-1],
            "followers": " ".join(group.followers),
            "consumers": " ".join(group.consumers),
            "parameters": group.parameters,
            "macs": group.macs,
        }
        for group in groups(model, only).values()
    ]
    return pd.DataFrame(rows)


def _reasons(whole):
    told = [f"{name}: {why}" for name, why in list(whole.items())[:3]]
    return f" ({'; '.join(told)}{'; …' if len(whole) > 3 else ''})" if whole else ""


# --- scores and what to keep


def _kernel_norms(layer):
    return np.abs(structure.by_output_channel(layer, layer.get_weights()[0]).astype(np.float64)).sum(axis=0)


def _gammas(model, group):
    norms = (model.get_layer(name) for name in group.followers)
    norm = next(
        (layer for layer in norms if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.scale), None
    )
    if norm is None:
        raise StructureError(
            f"criterion='gamma' needs a batch norm with a scale, and none follows {group.name}: choose another criterion."
        )
    return _channel_means(np.abs(norm.gamma.numpy()), group.origins[norm.name])


def _mean_activations(model, found, samples):
    """Mean absolute value of every channel where it is read, over samples, places and readers: group -> (width,)."""
    read = {name: model.get_layer(name).input for group in found.values() for name in group.consumers}
    probe, sums = tf.keras.Model(model.inputs, read), dict.fromkeys(read, 0.0)
    for start in range(0, len(samples[0]), BATCH):
        parts = [each[start : start + BATCH] for each in samples]
        for name, values in probe(parts if len(parts) > 1 else parts[0], training=False).items():
            places = tf.reduce_mean(tf.abs(values), axis=range(1, len(values.shape) - 1))
            sums[name] += places.numpy().astype(np.float64).sum(axis=0)

    def mean(group):
        origins = [group.origins[structure.source(model.get_layer(name)).name] for name in group.consumers]
        parts = [_channel_means(sums[name], part) for name, part in zip(group.consumers, origins, strict=True)]
        return np.mean(parts, axis=0) / len(samples[0])

    return {name: mean(group) for name, group in found.items()}


def _channel_means(values, origins):
    return np.bincount(origins, values.astype(np.float64)) / np.bincount(origins)


def _samples(calibration, model):
    """A calibration set as a list with an array for each input of a model."""
    names, several = model.input_names, isinstance(calibration, dict | list | tuple)
    if len(names) == 1 and not isinstance(calibration, dict):
        return [_input(calibration, model.inputs[0])]
    if (
        not several
        or len(calibration) != len(names)
        or (isinstance(calibration, dict) and set(calibration) != set(names))
    ):
        raise StructureError(
            f"calibration must hold an array for each input: criterion='activation' needs {', '.join(names)}, by name or in this order."
        )
    arrays = [calibration[name] for name in names] if isinstance(calibration, dict) else calibration
    found = [_input(*each) for each in zip(arrays, model.inputs, strict=True)]
    if len(set(map(len, found))) > 1:
        raise StructureError("calibration has different numbers of samples for its inputs: give as many of each.")
    return found


def _input(calibration, tensor):
    shape = tuple(tensor.shape[1:])
    wanted = f"(samples, {', '.join(map(str, shape))})"
    if calibration is None or not np.size(calibration):
        raise StructureError(f"calibration is empty: criterion='activation' needs float32 samples of shape {wanted}.")
    samples = np.asarray(calibration, tensor.dtype.as_numpy_dtype)
    fits = len(samples.shape) == len(shape) + 1 and all(
        size in (None, given) for size, given in zip(shape, samples.shape[1:], strict=True)
    )
    if not fits:
        raise StructureError(f"calibration has shape {samples.shape}: this model takes {wanted}.")
    if not np.isfinite(samples).all():
        raise StructureError("calibration holds NaN or infinity: clean the samples first.")
    return samples


def _kept_by_layer(scores, ratio):
    return {name: len(values) - round(ratio * len(values)) for name, values in scores.items()}


def _kept_globally(scores, ratio):
    """How many channels each group keeps under one threshold; the best of each group is out of the competition."""
    rivals = []
    for name, values in scores.items():
        normalised = np.sort(np.asarray(values, np.float64) / (np.sqrt(np.sum(np.square(values))) or 1.0))
        rivals += [(score, name) for score in normalised[:-1]]
    total = sum(len(values) for values in scores.values())
    losers = Counter(name for _, name in sorted(rivals, key=lambda rival: rival[0])[: round(ratio * total)])
    return {name: len(values) - losers[name] for name, values in scores.items()}


def _rounded(number, multiple, width):
    nearest = (2 * number + multiple) // (2 * multiple) * multiple  # halves up
    return min(max(nearest, multiple), width)


def _largest(values, number):
    mask = np.zeros(len(values), bool)
    mask[np.argsort(-np.asarray(values, np.float64), kind="stable")[:number]] = True
    return mask


# --- surgery


def _kept(model, masks):
    """The checked model, and name -> which entries of the last axis stay, for every layer on the way of the channels."""
    model = channel_groups.checked(model)
    found = channel_groups.find(model, masks.__contains__)
    if not masks or set(masks) - set(found):
        named = sorted(set(masks) - set(found))
        raise StructureError(
            f"masks names {named[0] if named else 'nothing'!r}: take the names that groups(model) lists."
        )
    kept = {}
    for name, group in found.items():
        mask = np.asarray(masks[name])
        if mask.dtype != bool or mask.shape != (group.width,) or not mask.any():
            raise StructureError(
                f"mask of {name} has dtype {mask.dtype}, shape {mask.shape} and keeps {np.count_nonzero(mask)}: it must be "
                f"bool of shape ({group.width},) and keep at least 1 channel."
            )
        kept.update({layer: mask[origins] for layer, origins in group.origins.items()})
    return model, kept


def _affected(model, kept):
    """Every layer with weights: (layer, which input channels stay, which output channels stay), None meaning all."""
    for layer in model.layers:
        if layer.weights:
            yield layer, kept.get(structure.source(layer).name), kept.get(layer.name)


def _remaining(layer, reads, writes):
    everything = slice(None)
    reads, writes = (everything if part is None else part for part in (reads, writes))
    weights = layer.get_weights()
    if has_kernel(layer):
        kernel, *bias = weights
        outputs = everything if kind(layer) == "depthwise" else writes  # the last axis is then the multiplier
        return [kernel[..., reads, :][..., outputs], *(vector[writes] for vector in bias)]
    if writes is everything:
        return weights
    return [weight[..., writes] if weight.shape[-1] == len(writes) else weight for weight in weights]
