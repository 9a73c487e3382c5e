"""Which layers suffer from quantization: each one alone, and all but each one; and the plan of what to keep in float.

Works on a float `.tflite` through `requantize`, so that a variant takes a fraction of a second: no conversion, one
calibration for all. A killed sweep resumes where it stopped.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import affine, files, litert, quantize, requantize, stats

ALONE, ALL_BUT, ALL = "alone", "all_but", "all"
SMALLEST = 1 / 512  # an int8 softmax tells nothing below half a step of 1/256
TYPES = {"weights": int, "sqnr_db": float, "kl": float, "top1_change": float, "low": float, "high": float, "size": int}
COLUMNS = ["mode", "layer", "op", "name", *TYPES]


class SensitivityError(ValueError):
    """The model cannot be analysed layer by layer."""


def sweep(model, calibration, images, labels=None, form=None, cache=None, progress=iter):
    """Quantize every layer of weights alone, all but it, and all of them; judge each against the float model.

    model: a float `.tflite`. calibration, images: float32 (samples, ...) as the model takes them. labels: int (images,);
    without them the float model's own answers are taken for right. form: a `requantize.Format`, int8 per-channel by
    default. cache: path of a CSV file that keeps finished rows. progress: wraps the list of variants, as tqdm does.
    Returns a frame, a row for each variant: mode, layer, op, name, weights, sqnr_db and kl (nats; mean divergence of the
    softmax) of the outputs against float32, top1_change with low and high, size (bytes).
    Raises SensitivityError when there are no layers of weights or they are quantized already.
    """
    form = form or requantize.Format()
    layers = weight_layers(model)
    ranges = requantize.calibrate(model, calibration) if form.activations else None
    exact = litert.predict(model, images)
    answers = exact.argmax(axis=-1) if labels is None else np.asarray(labels)
    key = _fingerprint(litert.content(model), repr(form), calibration, images, answers)
    rows = _finished(cache, key)
    todo = [(ALL, None), *((mode, layer) for mode in (ALONE, ALL_BUT) for layer in layers.itertuples())]
    for mode, layer in progress(todo):
        if (mode, layer.layer if layer else "") not in rows:
            variant = requantize.apply(model, _formats(mode, layer and layer.name, form), ranges)
            about = layer._asdict() if layer else {"layer": "", "op": "", "name": "", "weights": layers.weights.sum()}
            row = {"mode": mode, **about, **_damage(exact, variant, images, answers), "size": len(variant)}
            rows[mode, row["layer"]] = {column: row[column] for column in COLUMNS}
            _keep(cache, key, rows)
    return pd.DataFrame(rows.values(), columns=COLUMNS)


def analyse_file(path, calibration, judged, form, cache, progress=iter):
    """`sweep` for a `.tflite` or Keras file and arrays in `.npz` files: x, float32 (samples, ...), and y, labels, if known.

    Raises SensitivityError for files that cannot be used.
    """
    samples, _ = _arrays(calibration, "calibration")
    images, labels = _arrays(judged, "test")
    return sweep(_float_file(path), samples, images, labels, form, cache, progress)


def weight_layers(model):
    """`litert.weight_layers` of a float model, by names that occur once. Raises SensitivityError as `sweep` does."""
    layers = litert.weight_layers(model)
    if layers.empty:
        raise SensitivityError("model has no convolution or dense layer: there is nothing to quantize.")
    quantized = layers[layers.dtype != "float32"]
    if len(quantized):
        raise SensitivityError(f"layer {quantized.layer.iloc[0]} is quantized already: give the float32 model.")
    if layers.layer.duplicated().any():
        layers["layer"] = layers.layer + np.where(
            layers.layer.duplicated(keep=False), "_" + layers.groupby("layer").cumcount().astype(str), ""
        )
    return layers


def order(table):
    """Layers in the order in which to protect them: error removed per byte, the largest first.

    Of a sweep: what the divergence of the fully quantized model loses when the layer stays in float, over the bytes that
    its kernel then takes more.
    """
    everything = table[table["mode"] == ALL].iloc[0]
    others = table[table["mode"] == ALL_BUT]
    removed = (everything["kl"] - others["kl"]) / (others["size"] - everything["size"]).clip(lower=1)
    return others.assign(removed_per_byte=removed).sort_values("removed_per_byte", ascending=False, kind="stable")


def protect(model, names, form=None, ranges=None):
    """A float `.tflite` quantized but for the operators whose output tensors are named. Returns bytes."""
    return requantize.apply(model, {"*": form or requantize.Format(), **dict.fromkeys(names)}, ranges)


def plan(model, table, calibration, images, labels, target=0.005, form=None):
    """Protect layers one after another, in the order of `order`, until top-1 falls by at most `target` (a share).

    images, labels: what each step is verified on; choose by other images than you report. Returns a frame, a row for each
    step from 0 protected layers on: layers (how many are protected), layer (the last one), name, top1_change, low, high,
    size (bytes). The last row reaches the target, or protects all layers.
    """
    form = form or requantize.Format()
    ranges = requantize.calibrate(model, calibration) if form.activations else None
    base = litert.predict(model, images).argmax(axis=-1) == np.asarray(labels)
    ordered, rows = order(table), []
    for many in range(len(ordered) + 1):
        variant = protect(model, ordered["name"][:many], form, ranges)
        right = litert.predict(variant, images).argmax(axis=-1) == np.asarray(labels)
        change = stats.paired_difference(base, right)
        last = ordered.iloc[many - 1] if many else {"layer": "", "name": ""}
        rows.append(
            {
                "layers": many,
                "layer": last["layer"],
                "name": last["name"],
                "top1_change": change.value,
                "low": change.low,
                "high": change.high,
                "size": len(variant),
            }
        )
        if change.value >= -target:
            break
    return pd.DataFrame(rows)


def _float_file(path):
    if Path(path).suffix == ".tflite":
        return litert.content(path)
    import tensorflow as tf

    try:
        return quantize.convert(tf.keras.models.load_model(path, compile=False))
    except (OSError, ValueError, TypeError) as error:
        raise SensitivityError(f"model={str(path)!r} cannot be loaded as a Keras model: {error}") from error


def _arrays(path, parameter):
    try:
        with np.load(path) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError) as error:
        raise SensitivityError(
            f"{parameter}={str(path)!r} is no .npz file: save one with numpy.savez(x=...)."
        ) from error
    if "x" not in arrays or not np.issubdtype(arrays["x"].dtype, np.floating):
        raise SensitivityError(f"{parameter}={str(path)!r} must hold x, float32 samples as the model takes them.")
    return arrays["x"].astype("float32"), arrays.get("y")


def _formats(mode, name, form):
    if mode == ALL:
        return {"*": form}
    return {name: form} if mode == ALONE else {"*": form, name: None}


def _damage(exact, variant, images, answers):
    outputs = litert.predict(variant, images)
    change = stats.paired_difference(exact.argmax(axis=-1) == answers, outputs.argmax(axis=-1) == answers)
    ends_in_softmax = (exact >= 0).all() and np.allclose(exact.sum(axis=-1), 1, atol=1e-3)
    log_p, log_q = (_log_probabilities(answer, ends_in_softmax) for answer in (exact, outputs))
    return {
        "sqnr_db": affine.sqnr(exact, outputs),
        "kl": float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()),
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
        files.write(Path(cache), f"# {key}\n" + pd.DataFrame(rows.values(), columns=COLUMNS).to_csv(index=False))
