"""What the commands do with a file of the user's: prune its channels, find its sensitive layers; and what they tell of it."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import ground_truth, repository
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, channels, own_model, quantize, requantize, sensitivity
from helpers.networks import checkpoints
from helpers.networks.opening import first_line
from helpers.tflite import inputs, litert, measure, runner


def prune_file(path, output, ratio, calibration=None, code=None, signature=None, **choices):
    """Write the narrow model of a file that `own_model.load` takes to `output`, a `.keras` file of Keras 2, and a row for each
    group to the `.csv` beside it.

    ratio and choices: as in `channels.prune`; calibration: path of an `.npz` file with x, for criterion "activation".
    Returns (the table of the groups; name -> reason of the layers that stay whole; a frame of totals with before, after,
    low, high: parameters, macs, bytes and milliseconds of the float32 `.tflite`, and latency_ratio, whose "after" is before
    / after with its 95% interval; what cannot be counted is left out).
    Raises InputError for unusable files, StructureError for a model without Keras layers, and what `channels.prune` and
    `repository.write` raise; nothing is written before all else has worked.
    """
    path, output = Path(path), Path(output)
    if output.suffix != ".keras":
        raise StructureError(f"output={str(output)!r} must be a .keras file.")
    if output.resolve() == path.resolve():
        raise StructureError(f"output={str(output)!r} is the model itself: name another file.")
    samples = None if calibration is None else inputs.samples(calibration, "calibration")[0]
    own = own_model.load(path, code, signature)
    if own.keras is None:
        raise StructureError(f"model={str(path)!r}: {own.skipped}")
    only = choices.get("only", "*")
    narrowed = channels.prune(own.keras, ratio, calibration=samples, **choices)
    table = channels.compare(own.keras, narrowed, only)
    totals = _totals(own.keras, narrowed)
    content = checkpoints.packed(narrowed)
    repository.write(output.with_suffix(".csv"), table.to_csv(index=False))
    repository.write(output, content)
    return table, channels.left_whole(own.keras, only), totals


def analyse_file(path, calibration, judged, form, cache, progress=iter, **opened):
    """`sensitivity.sweep` for a classifier that `own_model.load(path, **opened)` takes, and arrays in `.npz` files: x, float32
    (samples, ...), and y, labels, if known.

    Raises InputError for files that cannot be used.
    """
    samples, _ = inputs.samples(calibration, "calibration")
    images, labels = inputs.samples(judged, "test")
    own = own_model.load(path, **opened)
    own.check_classifier()
    if labels is not None:
        answers = litert.predict(own.file, images).argmax(axis=-1)
        measure.check_informed(answers, ground_truth.labels(labels, len(images), own.classes), "model")
    return sensitivity.sweep(own.file, samples, images, labels, form, cache, progress, known=own.layers)


def convert_file(path, output, recipe, calibration=None, per_channel=True, **opened):
    """Write a model, as `own_model.load(path, **opened)` takes it, to `output` as a `.tflite` by a recipe.

    calibration: path of an `.npz` with x, or an array for each of several inputs under its name; the integer recipes need
    it, and it is what the two files are compared on. per_channel: as in `quantize.convert`.
    Returns (the Model; a row for each output: name, sqnr_db against float32, same: share of samples with the same largest
    answer; None without calibration samples). Raises InputError; nothing is written before all else has worked.
    """
    output = Path(output)
    if output.suffix != ".tflite":
        raise InputError(f"output={str(output)!r} must end in .tflite.")
    if output.resolve() == Path(path).resolve():
        raise InputError(f"output={str(output)!r} is the model itself: name another file.")
    known = [name for name in quantize.RECIPES if name != "qat"]  # that one is for a model in training, not for a file
    if recipe not in known:
        raise InputError(f"recipe={recipe!r} is unknown: choose one of {', '.join(known)}.")
    own = own_model.load(path, **opened)
    samples = None if calibration is None else _arrays(calibration, own)
    file = _by_recipe(own, recipe, samples, per_channel)
    _check_survives(file, recipe, own)
    table = None if samples is None else _compared(own, file, samples)
    repository.write(output, file)
    return own, table


def _arrays(path, own):
    """Calibration samples for a model: float32 (n, ...) for one input, else name -> array."""
    names = ["x"] if len(own.inputs) == 1 else [end.name for end in own.inputs]
    if len(names) == 1 and own.inputs[0].dtype == "float32":
        found = {"x": inputs.samples(path, "calibration")[0]}
    else:
        found = inputs.named(path, "calibration", names)
    for end, name in zip(own.inputs, names, strict=True):
        given = found[name].shape[1:]
        if len(given) != len(end.shape) or any(
            of not in (None, size) for of, size in zip(end.shape, given, strict=True)
        ):
            raise InputError(
                f"calibration={str(path)!r} holds {name} of shape {found[name].shape}: this model takes {end}."
            )
    if len(names) == 1 and own.inputs[0].dtype == "float32":
        return found["x"]
    return {end.name: found[name].astype(end.dtype) for end, name in zip(own.inputs, names, strict=True)}


def _by_recipe(own, recipe, samples, per_channel):
    if recipe == "float32":
        return own.file
    if own.graph is not None:
        try:
            return quantize.convert(own.graph, recipe, samples, per_channel=per_channel)
        except InputError:
            raise
        except Exception as error:  # the converter's own, of many classes
            raise InputError(
                f"recipe={recipe!r} cannot be made of {own.name} ({first_line(error)}): choose another, such as int8 or dynamic."
            ) from error
    forms = {"int8": requantize.Format(8, 8, per_channel), "int16x8": requantize.Format(8, 16, per_channel)}
    if recipe not in forms:
        raise InputError(
            f"recipe={recipe!r} needs a Keras model or a SavedModel: of a .tflite there is int8 or int16x8."
        )
    if samples is None or isinstance(samples, dict):
        raise InputError(f"recipe={recipe!r} needs calibration samples of one float32 input (--calibration data.npz).")
    return requantize.apply(own.file, {"*": forms[recipe]}, requantize.calibrate(own.file, samples))


def _check_survives(file, recipe, own):
    """Some files that the converter makes stop whatever process runs them (16-bit activations with a layer normalization), so
    one inference is tried in another process first."""
    with tempfile.TemporaryDirectory() as folder:
        repository.write(Path(folder) / "model.tflite", file)
        answer = runner.run({"task": "memory", "model": "model.tflite", "threads": 1}, folder)
    if answer.get("kind") == "crashed":
        raise InputError(
            f"recipe={recipe!r} makes a file of {own.name} that stops LiteRT ({answer['error']}): choose another, such as int8 "
            "or dynamic."
        )


def _compared(own, file, samples):
    named = samples if isinstance(samples, dict) else {own.inputs[0].name: samples}
    exact, rough = (litert.run(each, named) for each in (own.file, file))
    rows = {}
    for place, (name, wanted) in enumerate(exact.items()):
        got = list(rough.values())[place]
        same = wanted.reshape(len(wanted), -1).argmax(axis=1) == got.reshape(len(got), -1).argmax(axis=1)
        rows[name] = {"sqnr_db": affine.sqnr(wanted, got), "same": same.mean()}
    return pd.DataFrame.from_dict(rows, orient="index")


def told(totals):
    """What `prune_file` measured, a line each, for people."""
    names = {
        "parameters": "Parameters",
        "macs": "Multiply-accumulates",
        "bytes": "Bytes of the float32 .tflite",
    }
    lines = [
        f"{names[row.Index]}: {row.before:,.0f} -> {row.after:,.0f} ({row.after / row.before:.0%})"
        for row in totals.itertuples()
        if row.Index in names
    ]
    if "latency_ratio" in totals.index:
        faster = totals.loc["latency_ratio"]
        lines.append(
            f"Latency, one thread: {totals.before.milliseconds:.3g} -> {totals.after.milliseconds:.3g} ms, "
            f"{faster.after:.2f} times as fast [{faster.low:.2f}, {faster.high:.2f}]"
        )
    return lines


def _totals(wide, narrowed):
    rows = {"parameters": [wide.count_params(), narrowed.count_params()]}
    with contextlib.suppress(StructureError):  # not every layer can be counted
        rows["macs"] = [channels.macs(wide), channels.macs(narrowed)]
    variants = {"before": quantize.convert(wide), "after": quantize.convert(narrowed)}
    rows["bytes"] = [len(file) for file in variants.values()]
    totals = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"]).astype(float)
    ends = litert.interpreter(variants["before"]).get_input_details()
    if len(ends) == 1 and (ends[0]["shape_signature"][1:] > 0).all():
        x = np.random.default_rng(0).normal(size=(1, *ends[0]["shape"][1:])).astype(np.float32)
        times = measure.latency(variants, "before", x)
        totals.loc["milliseconds", ["before", "after"]] = list(times.milliseconds)
        totals.loc["latency_ratio", ["before", "after"]] = list(times.ratio)
        totals.loc["latency_ratio", ["low", "high"]] = times.loc["after", ["low", "high"]]
    return totals
