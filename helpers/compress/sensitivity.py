"""Which layers suffer from quantization: each one alone, and all but each one; and the plan of what to keep in float.

Works on a float `.tflite` through `requantize`, so that a variant takes a fraction of a second: no conversion, one
calibration for all. A killed sweep resumes where it stopped.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from helpers.base import ground_truth, repository
from helpers.base.errors import InputError
from helpers.compress import affine, requantize
from helpers.evidence import stats
from helpers.tflite import litert, runner

ALONE, ALL_BUT, ALL = "alone", "all_but", "all"
PARTS = {"project": "project", "expand": "expand", "Conv_1": "head"}  # in this order: expanded_conv_project is one
SMALLEST = 1 / 512  # an int8 softmax tells nothing below half a step of 1/256
NUMBERS = ("sqnr_db", "kl", "kl_error", "top1_change", "low", "high")
TYPES = {"weights": int, **dict.fromkeys(NUMBERS, float), "size": int}
COLUMNS = ["mode", "layer", "op", "name", *TYPES]


def sweep(
    model, calibration, images, labels=None, form=None, cache=None, progress=iter, modes=(ALONE, ALL_BUT), known=()
):
    """Quantize every layer of weights alone, all but it, and all of them; judge each against the float model.

    model: a float `.tflite`. calibration, images: float32 (samples, ...) as the model takes them. labels: as `ground_truth.labels` takes them;
    without them the float model's own answers are taken for right. form: a `requantize.Format`, int8 per-channel by
    default (for 4 bits see `requantize.available`). cache: path of a CSV file that keeps finished rows. progress: wraps the
    list of variants, as tqdm does. modes: what to do besides quantizing all. known: as in `litert.weight_layers`.
    Returns a frame, a row for each variant: mode, layer, op, name, weights, sqnr_db and kl (nats; mean divergence of the
    softmax, with its standard error kl_error) of the outputs against float32, top1_change with low and high, size (bytes).
    Raises InputError when there are no layers of weights or they are quantized already.
    """
    form = form or requantize.Format()
    layers = weight_layers(model, known)
    ranges = requantize.calibrate(model, calibration) if form.activations else None
    exact, batched = litert.predict(model, images), _admits_batches(model)
    answers = exact.argmax(axis=-1) if labels is None else ground_truth.labels(labels, len(exact), exact.shape[-1])
    key = _fingerprint(litert.content(model), repr(form), repr(COLUMNS), calibration, images, answers)
    rows = _finished(cache, key)
    todo = [(ALL, None), *((mode, layer) for mode in modes for layer in layers.itertuples())]
    for mode, layer in progress(todo):
        if (mode, layer.layer if layer else "") not in rows:
            variant = requantize.apply(model, _formats(mode, layer, form), ranges)
            about = layer._asdict() if layer else {"layer": "", "op": "", "name": "", "weights": layers.weights.sum()}
            row = {
                "mode": mode,
                **about,
                **_damage(exact, litert.predict(variant, images, admits_batches=batched), answers),
                "size": len(variant),
            }
            rows[mode, row["layer"]] = {column: row[column] for column in COLUMNS}
            _keep(cache, key, rows)
    wanted = [rows[mode, layer.layer if layer else ""] for mode, layer in todo]
    return pd.DataFrame(wanted, columns=COLUMNS)


def weight_layers(model, known=()):
    """`litert.weight_layers` of a float model, by names that occur once. Raises InputError as `sweep` does."""
    layers = litert.weight_layers(model, known)
    if layers.empty:
        raise InputError("model has no convolution or dense layer: there is nothing to quantize.")
    quantized = layers[layers.dtype != "float32"]
    if len(quantized):
        raise InputError(f"layer {quantized.layer.iloc[0]} is quantized already: give the float32 model.")
    if layers.layer.duplicated().any():
        layers["layer"] = layers.layer + np.where(
            layers.layer.duplicated(keep=False), "_" + layers.groupby("layer").cumcount().astype(str), ""
        )
    return layers


def order(table, per_byte=True):
    """Layers in the order in which to protect them: error removed per byte, the largest first.

    The error is the divergence that the layer causes when quantized alone; what a fully quantized model gains by one
    float layer says less, since the others' errors mask it. The bytes that a float kernel takes more are in proportion to
    its weights.
    per_byte: False for the largest error first.
    """
    alone = table[table["mode"] == ALONE]
    return alone.assign(gain=alone["kl"] / (alone["weights"] if per_byte else 1)).sort_values(
        "gain", ascending=False, kind="stable"
    )


def rank(table, layer):
    """The place of a layer among all by the error it causes alone, 1 being the worst: an Estimate.

    Its interval holds the true place in at least 95% of the samples of images: a layer counts as worse, or as better, only if
    its mean divergence differs by a test of the two whose level is divided by their number (Klein, Wright and Wieczorek 2020;
    drawing the means anew, as a bootstrap does, says too much where layers are nearly alike). Raises InputError for an unknown
    layer.
    """
    alone = table[table["mode"] == ALONE].set_index("layer")
    if layer not in alone.index:
        raise InputError(f"layer={layer!r} is not one of {', '.join(alone.index)}.")
    of, others = alone.loc[layer], alone.drop(index=layer)
    level = (1 - stats.CONFIDENCE) / max(len(others), 1)
    far = norm.ppf(1 - level / 2) * np.hypot(others["kl_error"], of["kl_error"])
    apart = others["kl"] - of["kl"]
    return stats.Estimate(
        int(1 + (apart > 0).sum()), int(1 + (apart > far).sum()), int(len(alone) - (apart < -far).sum()), "place"
    )


def kinds(table):
    """The part that the layer of each row plays in its network, a list: stem for the first and classifier for the last,
    depthwise by operator, expand, project and head by their names in Keras' MobileNetV2, else convolution or dense."""
    names = list(table["layer"][table["layer"] != ""].unique())

    def kind(layer, op):
        if layer in (names[0], names[-1]):
            return "stem" if layer == names[0] else "classifier"
        if op == requantize.DEPTHWISE:
            return "depthwise"
        named = (part for name, part in PARTS.items() if name in layer)
        return next(named, "convolution" if op == "CONV_2D" else "dense")

    return [kind(layer, op) if layer else "" for layer, op in zip(table["layer"], table["op"], strict=True)]


def protect(model, names, scheme):
    """A float `.tflite` quantized by a `requantize.Scheme` but for the operators whose output tensors are named: bytes."""
    formats = {requantize.EVERYTHING: scheme.form, **dict.fromkeys(names, scheme.instead)}
    return requantize.apply(model, formats, scheme.ranges)


def plan(model, names, scheme, images, labels, target=0.005, counts=None):
    """Protect layers one after another in the order given, until top-1 falls by at most `target` (a share).

    names: of output tensors, as `order(table).name` has them. scheme: as in `protect`. images, labels: what each step is
    verified on; choose by other images than you report. target: None to try them all. counts: how many layers to try to
    protect, rising; every number by default.
    Returns a frame, a row for each step: layers (how many are protected), top1_change, low, high, size (bytes). The last
    row reaches the target, or is the last of `counts`.
    """
    names = list(names)
    batched = _admits_batches(model)
    exact = litert.predict(model, images, admits_batches=batched)
    labels = ground_truth.labels(labels, len(exact), exact.shape[-1])
    base = exact.argmax(axis=-1) == labels
    rows = []
    for many in range(len(names) + 1) if counts is None else counts:
        variant = protect(model, names[:many], scheme)
        right = litert.predict(variant, images, admits_batches=batched).argmax(axis=-1) == labels
        change = stats.paired_difference(base, right)
        values = (many, change.value, change.low, change.high, len(variant))
        rows.append(dict(zip(("layers", "top1_change", "low", "high", "size"), values, strict=True)))
        if target is not None and change.value >= -target:
            break
    return pd.DataFrame(rows)


def _formats(mode, layer, form):
    if mode == ALONE:
        return {layer.name: requantize.available(form, layer.op)}
    return {requantize.EVERYTHING: form} | ({} if mode == ALL else {layer.name: None})


def _admits_batches(model):
    """Whether a model admits batches, and with it every variant of it: quantization changes no shape."""
    return runner.admits_batches(litert.content(model), litert.BATCH)


def _damage(exact, outputs, answers):
    change = stats.paired_difference(exact.argmax(axis=-1) == answers, outputs.argmax(axis=-1) == answers)
    ends_in_softmax = (exact >= 0).all() and np.allclose(exact.sum(axis=-1), 1, atol=1e-3)
    log_p, log_q = (_log_probabilities(answer, ends_in_softmax) for answer in (exact, outputs))
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return {
        "sqnr_db": affine.sqnr(exact, outputs),
        "kl": float(divergence.mean()),
        "kl_error": float(divergence.std(ddof=1) / np.sqrt(len(divergence))) if len(divergence) > 1 else 0.0,
        "top1_change": change.value,
        "low": change.low,
        "high": change.high,
    }


def _log_probabilities(outputs, probabilities):
    logits = np.log(np.maximum(outputs, SMALLEST)) if probabilities else outputs.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _fingerprint(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(
            part if isinstance(part, bytes) else str(part).encode() if isinstance(part, str) else part.tobytes()
        )
    return digest.hexdigest()


def _finished(cache, key):
    """(mode, layer) -> row, of an earlier sweep of the same model, format and data."""
    if cache is None or not Path(cache).is_file():
        return {}
    first, _, table = Path(cache).read_text().partition("\n")
    if first != f"# {key}":
        return {}
    frame = pd.read_csv(io.StringIO(table), keep_default_na=False, dtype=str).astype(TYPES)
    return {(row["mode"], row["layer"]): row for row in frame.to_dict("records")}


def _keep(cache, key, rows):
    if cache is not None:
        repository.write(Path(cache), f"# {key}\n" + pd.DataFrame(rows.values(), columns=COLUMNS).to_csv(index=False))
