"""Which layers suffer from quantization: each one alone, and all but each one; and the plan of what to keep in float.

Works on a float `.tflite` through `requantize`, so that a variant takes a fraction of a second: no conversion, one
calibration for all. What a variant has in common with the float file, or with the quantized one, runs once for all (`replay`).
A killed sweep resumes where it stopped.
"""

import hashlib
import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.compress import affine, requantize
from helpers.evidence import stats
from helpers.tflite import heads, inputs, interpreting, litert, replay

ALONE, ALL_BUT, ALL = "alone", "all_but", "all"
PARTS = {"project": "project", "expand": "expand", "Conv_1": "head"}  # in this order: expanded_conv_project is one
NUMBERS = ("sqnr_db", "damage", "damage_error", "change", "low", "high")
TYPES = {"weights": int, **dict.fromkeys(NUMBERS, float), "size": int}
_known = {}  # of the last sweeps: what they judged by -> digest of a file -> numbers
COLUMNS = ["mode", "layer", "op", "name", *TYPES]


def sweep(
    model,
    calibration,
    images,
    labels=None,
    form=None,
    cache=None,
    progress=iter,
    modes=(ALONE, ALL_BUT),
    known=(),
    every=False,
    purpose=None,
    ranges=None,
    kept_bytes=replay.KEPT_BYTES,
):
    """Quantize every layer of weights alone, all but it, and all of them; judge each against the float model.

    model: a float `.tflite`. calibration, images: samples as the model takes them, (n, ...), or name of an input -> such an
    array. labels: as the task takes them; without them the float model's own answers are taken for right. form: a
    `requantize.Format`, int8 per-channel by default (for 4 bits see `requantize.available`). cache: path of a CSV file that
    keeps finished rows. progress: wraps the list of variants, as tqdm does. modes: what to do besides quantizing all. known: as
    in `litert.weight_layers`. every: also operators without weights (ADD, SOFTMAX, …), with the tensors that they read and
    write. purpose: a `heads.Purpose`. ranges: what `requantize.calibrate` returned for this calibration, where it is known already.
    kept_bytes: how much memory what variants have in common may take, at most; with 0 each runs as a whole, to the same numbers.
    Returns a frame, a row for each variant: mode, layer, op, name, weights, sqnr_db of the outputs against float32, damage (of
    the task; nats of the softmax's divergence for classes; its mean over the images, the sum over several outputs) with its
    standard error damage_error, change of the score with low and high (of the output that loses most), size (bytes). Its attrs say in words
    what was judged, and the unit of the damage.
    Raises InputError when there are no layers of weights or they are quantized already, and what `heads.heads` raises.
    """
    form, images = form or requantize.Format(), inputs.by_name(images)
    layers = weight_layers(model, known, every)
    ranges = (ranges or requantize.calibrate(model, calibration)) if form.activations else None
    batched = _admits_batches(model, images)
    exact = _answers(model, images, batched)
    judged = heads.heads(exact, labels, purpose)
    parts = litert.content(model), COLUMNS, images, labels, purpose
    if purpose and purpose.metric:  # what is in that file, not only its name
        parts = *parts, Path(purpose.metric.rpartition(":")[0]).read_bytes()
    key = _fingerprint(form, calibration, *parts)
    measured = (
        {} if purpose and purpose.metric else _measured_by(_fingerprint(*parts))
    )  # that file may change meanwhile
    rows = _finished(cache, key)
    todo = [(ALL, None), *((mode, layer) for mode in modes for layer in layers.itertuples())]
    begun, bases = {}, {ALONE: model}

    def answers(file):
        if mode == ALL or not kept_bytes:
            return _answers(file, images, batched)
        if mode not in begun:
            begun.clear()  # what they hold is large
            base = bases.get(mode) or requantize.apply(model, _formats(ALL, None, form), ranges)
            begun[mode] = replay.Replay(base, images, batched, kept_bytes)
        return begun[mode].answers(file)

    for mode, layer in progress(todo):
        if (mode, layer.layer if layer else "") not in rows:
            variant = requantize.apply(model, _formats(mode, layer, form), ranges)
            if mode == ALL:
                bases[ALL_BUT] = variant
            if mode == ALONE and not layer.weights and not (litert.tensors(variant)["scales"] > 0).any():
                continue  # it has no integer kernel
            about = layer._asdict() if layer else {"layer": "", "op": "", "name": "", "weights": layers.weights.sum()}
            row = {
                "mode": mode,
                **about,
                **_of_file(measured, variant, lambda file: _damage(judged, exact, answers(file))),
                "size": len(variant),
            }
            rows[mode, row["layer"]] = {column: row[column] for column in COLUMNS}
            _keep(cache, key, rows)
    places = [(mode, layer.layer if layer else "") for mode, layer in todo]
    table = pd.DataFrame([rows[place] for place in places if place in rows], columns=COLUMNS)
    table.attrs = {"judged": "; ".join(map(str, judged)), "unit": " + ".join(head.task.unit for head in judged)}
    return table


def forget():
    """Judge files anew that earlier sweeps judged: to time them."""
    _known.clear()


def _answers(model, images, batched):
    return litert.run(model, images, batch=litert.BATCH, admits_batches=batched)


def judge(model, images, labels=None, purpose=None):
    """What `sweep` judges variants of a float model by, to judge others: a list of `heads.Head`, and a function of a file -> name of
    each of NUMBERS -> number. model, images, labels, purpose: as in `sweep`."""
    images = inputs.by_name(images)
    batched = _admits_batches(model, images)
    exact = _answers(model, images, batched)
    judged = heads.heads(exact, labels, purpose)
    return judged, lambda file: _damage(judged, exact, _answers(file, images, batched))


def weight_layers(model, known=(), every=False):
    """`litert.weight_layers` of a float model, by names that occur once. every: also its other operators. Raises InputError as
    `sweep` does."""
    layers = litert.weight_layers(model, known, every)
    if not (layers["weights"] > 0).any():
        raise InputError("model has no convolution or dense layer: there is nothing to quantize.")
    quantized = layers[layers.dtype != "float32"]
    if len(quantized):
        raise InputError(f"layer {quantized.layer.iloc[0]} is quantized already: give the float32 model.")
    return layers.assign(layer=_told_apart(list(layers["layer"])))


def _told_apart(names):
    """Names that occur more than once with a number behind them, which makes none that another has."""
    taken, found = set(names), []
    for name in names:
        told = name
        if names.count(name) > 1:
            told = next(other for number in itertools.count() if (other := f"{name}_{number}") not in taken)
            taken.add(told)
        found.append(told)
    return found


def order(table, per_byte=True):
    """Layers in the order in which to protect them: error removed per byte, the largest first.

    The error is the damage that the layer causes when quantized alone; what a fully quantized model gains by one
    float layer says less, since the others' errors mask it. The bytes that a float kernel takes more are in proportion to
    its weights.
    per_byte: False for the largest error first.
    """
    alone = table[table["mode"] == ALONE]
    return alone.assign(gain=alone["damage"] / (alone["weights"].clip(lower=1) if per_byte else 1)).sort_values(
        "gain", ascending=False, kind="stable"
    )


def rank(table, layer):
    """The place of a layer among all by the error it causes alone, 1 being the worst: an Estimate.

    Its interval holds the true place in at least 95% of the samples of images: a layer counts as worse, or as better, only if
    its mean damage differs by a test of the two whose level is divided by their number (Klein, Wright and Wieczorek 2020;
    drawing the means anew, as a bootstrap does, says too much where layers are nearly alike). Raises InputError for an unknown
    layer.
    """
    alone = table[table["mode"] == ALONE].set_index("layer")
    if layer not in alone.index:
        raise InputError(f"layer={layer!r} is not one of {', '.join(alone.index)}.")
    of, others = alone.loc[layer], alone.drop(index=layer)
    level = (1 - stats.CONFIDENCE) / max(len(others), 1)
    far = norm.ppf(1 - level / 2) * np.hypot(others["damage_error"], of["damage_error"])
    apart = others["damage"] - of["damage"]
    return stats.Estimate(
        int(1 + (apart > 0).sum()), int(1 + (apart > far).sum()), int(len(alone) - (apart < -far).sum()), "place"
    )


def kinds(table):
    """The part that the layer of each row plays in its network, a list: stem for the first and classifier for the last,
    depthwise by operator, expand, project and head by their names in Keras' MobileNetV2, else convolution or dense; without weights for
    all other operators."""
    names = list(table["layer"][table["weights"].gt(0) & table["layer"].ne("")].unique())

    def kind(layer, op):
        if layer in (names[0], names[-1]):
            return "stem" if layer == names[0] else "classifier"
        if op == requantize.DEPTHWISE:
            return "depthwise"
        if layer not in names:
            return "without weights"
        named = (part for name, part in PARTS.items() if name in layer)
        return next(named, "convolution" if op == "CONV_2D" else "dense")

    return [kind(layer, op) if layer else "" for layer, op in zip(table["layer"], table["op"], strict=True)]


def protect(model, names, scheme):
    """A float `.tflite` quantized by a `requantize.Scheme` but for the operators whose output tensors are named: bytes."""
    formats = {requantize.EVERYTHING: scheme.form, **dict.fromkeys(names, scheme.instead)}
    return requantize.apply(model, formats, scheme.ranges)


def plan(model, names, scheme, images, labels, target=0.005, counts=None, purpose=None):
    """Protect layers one after another in the order given, until the score falls by at most `target` (a share).

    names: of output tensors, as `order(table).name` has them. scheme: as in `protect`. images, labels, purpose: what each step
    is verified on, as in `sweep`; choose by other images than you report. target: None to try them all. counts: how many
    layers to try to protect, rising; every number by default.
    Returns a frame, a row for each step: layers (how many are protected), change of the score, low, high, size (bytes). The
    last row reaches the target, or is the last of `counts`.
    """
    names, images = list(names), inputs.by_name(images)
    batched = _admits_batches(model, images)
    judged = heads.heads(_answers(model, images, batched), labels, purpose)
    rows = []
    for many in range(len(names) + 1) if counts is None else counts:
        variant = protect(model, names[:many], scheme)
        change = _change(judged, _answers(variant, images, batched))
        values = (many, change.value, change.low, change.high, len(variant))
        rows.append(dict(zip(("layers", "change", "low", "high", "size"), values, strict=True)))
        if target is not None and change.value >= -target:
            break
    return pd.DataFrame(rows)


def _formats(mode, layer, form):
    if mode == ALONE:
        return {layer.name: requantize.available(form, layer.op)}
    return {requantize.EVERYTHING: form} | ({} if mode == ALL else {layer.name: None})


def _admits_batches(model, images):
    """Whether a model admits batches, and with it every variant of it: quantization changes no shape."""
    size = interpreting.at_a_time(list(images.values()), litert.BATCH)
    return interpreting.admits_batches(litert.content(model), size)


def _measured_by(key):
    """What is known of files that were judged by this model and these samples: digest -> numbers. Of others nothing is kept."""
    if key not in _known:
        _known.clear()
    return _known.setdefault(key, {})


def _of_file(measured, file, measure):
    """The numbers of a file, measured once: sweeps of 8 and of 4 bits have the variants of depthwise kernels in common."""
    digest = hashlib.sha256(file).digest()
    if digest not in measured:
        measured[digest] = measure(file)
    return measured[digest]


def _damage(judged, exact, outputs):
    parts = [head.task.damage(head.answers, head.of(outputs)) for head in judged]
    damage, change = np.sum(parts, axis=0), _change(judged, outputs)
    return {
        "sqnr_db": min(affine.sqnr(exact[name], outputs[name]) for name in exact),
        "damage": float(damage.mean()),
        "damage_error": float(damage.std(ddof=1) / np.sqrt(len(damage))) if len(damage) > 1 else 0.0,
        "change": change.value,
        "low": change.low,
        "high": change.high,
    }


def _change(judged, outputs):
    """Of the score of the head that loses most."""
    changes = [stats.score_difference(head.scores, head.task.scores(head.of(outputs), head.truth)) for head in judged]
    return min(changes, key=lambda change: change.value)


def _fingerprint(*parts):
    """Of bytes, arrays and whatever tells by `repr` all that it is."""
    digest = hashlib.sha256()
    for part in parts:
        named = part if isinstance(part, dict) else {"": part}
        for name, each in named.items():
            array = isinstance(each, np.ndarray)
            digest.update(f"{name} {each.shape} {each.dtype}".encode() if array else name.encode())
            digest.update(each.tobytes() if array else each if isinstance(each, bytes) else repr(each).encode())
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
