"""What the commands do with a file of the user's: prune its channels, convert and train it; and what they tell of it."""

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.base import ground_truth, repository, runtime_env
from helpers.base.errors import InputError, LabError, StructureError, first_line
from helpers.compress import (
    affine,
    channels,
    own_data,
    own_model,
    quantize,
    requantize,
    tflite_pruning,
    tflite_training,
)
from helpers.evidence import stats
from helpers.networks import checkpoints, unflatten
from helpers.tflite import heads, inputs, litert, measure, rewrite, runner

with runtime_env.quiet():
    import tensorflow as tf

KERAS_2 = "The model is a file of Keras 2: fine-tune it with the package tf_keras (tf_keras.models.load_model)."
KERAS_3 = "The model is a file of Keras 3, layer by layer as it was: fine-tune it with keras (keras.models.load_model)."
CALIBRATED = 500  # samples that set the ranges of activations in `train_file`


def prune_file(path, output, ratio, calibration=None, code=None, signature=None, **choices):
    """Write the narrow model of a file that `own_model.load` takes to `output`, a `.keras` file, and a row for each group to
    the `.csv` beside it. The model is of Keras 3 if the file was and `unflatten.narrowed` can make it; else the flat one of
    Keras 2.

    ratio and choices: as in `channels.prune`; calibration: path of an `.npz` file with x, for criterion "activation".
    Returns (the table of the groups; name -> reason of the layers that stay whole; a frame of totals with before, after,
    low, high: parameters, macs, bytes and milliseconds of the float32 `.tflite`, and latency_ratio, whose "after" is before
    / after with its 95% interval; what cannot be counted is left out; notes, a sentence each: which Keras opens the file,
    and what is not as it was).
    Raises InputError for unusable files, StructureError for a model without Keras layers, and what `channels.prune` and
    `repository.write` raise; nothing is written before all else has worked.
    """
    path, output = Path(path), Path(output)
    if output.suffix != ".keras":
        raise StructureError(f"output={str(output)!r} must be a .keras file.")
    if output.resolve() == path.resolve():
        raise StructureError(f"output={str(output)!r} is the model itself: name another file.")
    given = None if calibration is None else inputs.judged(calibration, "calibration")[0]
    own = own_model.load(path, code, signature)
    samples = None if given is None else own_data.fitted(given, own, f"calibration={str(calibration)!r}")
    if own.keras is None:
        raise StructureError(f"model={str(path)!r}: {own.skipped}")
    only = choices.get("only", "*")
    narrowed = channels.prune(own.keras, ratio, calibration=samples, **choices)
    table = channels.compare(own.keras, narrowed, only)
    totals = _totals(own.keras, narrowed)
    made, notes = _as_it_came(own, narrowed)
    content = checkpoints.packed(made)
    repository.write(output.with_suffix(".csv"), table.to_csv(index=False))
    repository.write(output, content)
    return table, channels.left_whole(own.keras, only), totals, notes


def _as_it_came(own, narrowed):
    """The narrow model in the Keras that its file was of, where that can be had, and the notes on it."""
    why = ()
    if not isinstance(own.original, tf.keras.Model):
        try:
            return unflatten.narrowed(own.original, narrowed), (KERAS_3,)
        except StructureError as problem:
            why = (str(problem),)
    return narrowed, (*own.notes, *why, KERAS_2)


def convert_file(path, output, recipe, calibration=None, per_channel=True, **opened):
    """Write a model, as `own_model.load(path, **opened)` takes it, to `output` as a `.tflite` by a recipe.

    calibration: path of an `.npz` with x, or an array for each of several inputs under its name; the integer recipes need
    it, and it is what the two files are compared on. per_channel: as in `quantize.convert`.
    Returns (the Model; a row for each output: name, sqnr_db against float32, task: what its answers look like, as
    `tasks.choose` has it, and same: the share of the same answers in that task, NaN where answers are numbers; None without
    calibration samples). Raises InputError; nothing is written before all else has worked.
    """
    output = Path(output)
    check_output(path, output)
    known = [name for name in quantize.RECIPES if name != "qat"]  # that one is for a model in training, not for a file
    if recipe not in known:
        raise InputError(f"recipe={recipe!r} is unknown: choose one of {', '.join(known)}.")
    own = own_model.load(path, **opened)
    samples = None if calibration is None else own_data.samples(calibration, own, parameter="calibration")[0]
    file = _by_recipe(own, recipe, samples, per_channel)
    _check_survives(file, recipe, own, samples)
    table = None if samples is None else _compared(own, file, samples)
    repository.write(output, file)
    return own, table


@dataclass(frozen=True)
class Lesson:
    """How `train_file` trains. weights: bits of the kernels, 8 or 4, or None to stay in float32; sparsity: a share of zeros or
    a pattern such as "2:4"; teacher: "self", the float file's own answers, or "labels"."""

    weights: int | None = 8
    per_channel: bool = True
    sparsity: str | None = None
    teacher: str = "self"
    steps: int = 100
    learning_rate: float = 3e-4
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.teacher not in ("self", "labels"):
            raise InputError(f"teacher={self.teacher!r} must be self or labels.")


def train_file(path, data, output, lesson=None, test=None, progress=iter, purpose=None, **opened):
    """Train a model, as `own_model.load(path, **opened)` takes it, for its quantized file, and write that to `output`.

    data: path of an `.npz` with x, or an array for each of several inputs under its name, and with y where labels are
    used. A fifth of them is not trained on: the weights that are best there stay. test: another such `.npz`, used once, to
    judge the file; without it, it is judged on that fifth, which flatters it. A killed run goes on, from the file
    `<output>.training.npz`.
    Returns (the Model; a frame with a row for float32, "not trained" (if kernels are rounded) and trained: bytes,
    milliseconds, ratio, over the outputs the worst sqnr_db against float32, and of each task of purpose (a `heads.Purpose`)
    same, the share of float32's answers, or with labels the mean score, such as top1, and delta_top1, an Estimate against
    float32; the samples and labels that it was judged on, the labels None if unknown; the files by their names). Raises
    InputError and StructureError; nothing is written before all else has worked.
    """
    lesson, output = lesson or Lesson(), Path(output)
    check_output(path, output)
    own = own_model.load(path, **opened)
    x, y = _labelled(data, own, "data")
    if lesson.teacher == "labels" and y is None:
        raise InputError(
            f"data={str(data)!r} holds no y: add the labels, or let the float file teach (--teacher self)."
        )
    if lesson.teacher == "labels":
        y = _classes(own, y)
    everything, labels_given = x, y
    x, y, selection, selection_y = _apart(x, y, lesson.seed)
    judged, known = (selection, selection_y) if test is None else _labelled(test, own, "test")
    exact, asked = litert.run(own.file, judged), purpose or heads.Purpose()
    if test is None:  # of all samples, since a fifth may be too few to show that the answers have to do with the labels
        heads.of_file(own.file, everything, labels_given, asked)
        asked = replace(asked, informed=True)
    judges = heads.heads(exact, known, asked)
    aware = _aware(own, x, lesson)
    files = {"float32": own.file}
    if lesson.weights is not None:  # otherwise it is the float file
        files["not trained"] = aware.quantized()
    labels = y if lesson.teacher == "labels" else None
    tflite_training.train(
        aware,
        _in_order(aware, x),
        labels,
        lesson.steps,
        lesson.learning_rate,
        lesson.batch_size,
        lesson.seed,
        _in_order(aware, selection),
        selection_y if labels is not None else None,
        kept=output.with_name(f"{output.name}.training.npz"),
        progress=progress,
    )
    files["trained"] = aware.float32() if lesson.weights is None else aware.quantized()
    table = _judged(files, judged, exact, judges)
    repository.write(output, files["trained"])
    return own, table, judged, known, files


def _aware(own, x, lesson):
    if lesson.weights is None:
        if lesson.sparsity is None:
            raise InputError("weights and sparsity are both left out: say what the file is trained for.")
        aware = tflite_training.in_float(own.file)
    else:
        form = requantize.Format(lesson.weights, 8, lesson.per_channel)
        aware = tflite_training.quantization_aware(own.file, {n: each[:CALIBRATED] for n, each in x.items()}, form)
    if lesson.sparsity is not None:
        tflite_pruning.sparse(aware, lesson.sparsity)
    return aware


def _in_order(aware, samples):
    found = [samples[name] for name in aware.graph.inputs]
    return found[0] if len(found) == 1 else found


def _labelled(path, own, parameter):
    """Samples by the names of a model's inputs, and labels as they are given, or None, of an `.npz`."""
    found, y = own_data.samples(path, own, parameter=parameter)
    return found if isinstance(found, dict) else {own.inputs[0].name: found}, y


def _classes(own, y):
    """Labels that a file can be taught. Raises InputError."""
    if not own.is_classifier() or isinstance(y, dict):
        raise InputError(
            f"{own.name} {own.ends}: labels can teach a classifier; let the float file teach (--teacher self)."
        )
    return ground_truth.labels(y, len(y), own.outputs[0].shape[0])


def _apart(x, y, seed):
    """Four fifths of some samples, and a fifth to choose by."""
    number = len(next(iter(x.values())))
    if number < 10:
        raise InputError(f"data hold {number} samples: a fifth of them chooses which weights stay, so give 10 or more.")
    own_data.check_labels(y, number)
    order = np.random.default_rng(seed).permutation(number)
    fit, chosen = np.sort(order[number // 5 :]), np.sort(order[: number // 5])
    parts = [(own_data.part(x, part), own_data.part(y, part)) for part in (fit, chosen)]
    return *parts[0], *parts[1]


def _judged(files, samples, exact, judged):
    """What `train_file` tells of some files, by what the float one answers and its Heads."""
    rows = {}
    for name, file in files.items():
        found = litert.run(file, samples)
        rows[name] = {"bytes": len(file), "sqnr_db": min(affine.sqnr(exact[each], found[each]) for each in exact)}
        for head in judged:
            answers, suffix = head.of(found), f".{head.name}" if head.name else ""
            same, after = head.task.same(head.answers, answers), head.task.scores(answers, head.truth)
            if same is not None:
                rows[name][f"same{suffix}"] = float(np.mean(same))
            if head.labelled or same is None:
                measure_of = f"{head.task.measure}{suffix}"
                rows[name][measure_of] = stats.score(after).value
                rows[name][f"delta_{measure_of}"] = stats.score_difference(head.scores, after)
    times = measure.latency(files, "float32", samples)
    return pd.DataFrame.from_dict(rows, orient="index").join(times[["milliseconds", "ratio", "low", "high"]])


def check_output(path, output):
    """Raises InputError unless the file to be written, a Path, is a `.tflite`, and another one than the model that is read."""
    if output.suffix != ".tflite":
        raise InputError(f"output={str(output)!r} must end in .tflite.")
    if output.resolve() == Path(path).resolve():
        raise InputError(f"output={str(output)!r} is the model itself: name another file.")


def _by_recipe(own, recipe, samples, per_channel):
    if recipe == "float32":
        return own.file
    if own.graph is not None:
        try:
            file = quantize.convert(own.graph, recipe, samples, per_channel=per_channel)
            return rewrite.with_output_names(file, own.heads)
        except InputError:
            raise
        except Exception as error:  # the converter's own, of many classes
            raise InputError(
                f"recipe={recipe!r} cannot be made of {own.name} ({first_line(error)}): {_instead(own, recipe)}."
            ) from error
    forms = {"int8": requantize.Format(8, 8, per_channel), "int16x8": requantize.Format(8, 16, per_channel)}
    if recipe not in forms:
        raise InputError(
            f"recipe={recipe!r} needs a Keras model or a SavedModel: of a .tflite there is int8 or int16x8."
        )
    if samples is None:
        raise InputError(f"recipe={recipe!r} needs calibration samples (--calibration data.npz).")
    return requantize.apply(own.file, {"*": forms[recipe]}, requantize.calibrate(own.file, samples))


def _check_survives(file, recipe, own, samples):
    """Some files that the converter makes stop whatever process runs them (16-bit activations with a layer normalization), or cannot
    be run, so one inference is tried in another process first."""
    shapes = {}
    if samples is not None:
        named = samples if isinstance(samples, dict) else {own.inputs[0].name: samples}
        shapes = {name: ([1, *np.shape(each)[1:]], str(np.asarray(each).dtype)) for name, each in named.items()}
    with tempfile.TemporaryDirectory() as folder:
        repository.write(Path(folder) / "model.tflite", file)
        answer = runner.run({"task": "memory", "model": "model.tflite", "threads": 1, "shapes": shapes}, folder)
    if answer.get("kind") == "crashed" or ("error" in answer and shapes):
        does = "stops LiteRT" if answer["kind"] == "crashed" else "LiteRT cannot run"
        raise InputError(
            f"recipe={recipe!r} makes a file of {own.name} that {does} ({answer['error']}): {_instead(own, recipe)}."
        )


def _instead(own, recipe):
    """What to do where the converter cannot make a file that runs."""
    another = "choose another, such as " + " or ".join(each for each in ("int8", "dynamic") if each != recipe)
    if own.graph is None or recipe not in ("int8", "int16x8"):
        return another
    return f"{another}; or quantize its float32 file, which is done otherwise (--recipe float32 first, then --recipe {recipe} of that)"


def _compared(own, file, samples):
    named = samples if isinstance(samples, dict) else {own.inputs[0].name: samples}
    exact, rough = (litert.run(each, named) for each in (own.file, file))
    if rough.keys() != exact.keys():  # the converter may have given the outputs other names
        rough = dict(zip(exact, rough.values(), strict=True))
    rows = {}
    for name, wanted in exact.items():
        whole = (
            heads.Purpose("regression") if (wanted == np.round(wanted)).all() else None
        )  # which may be counts or classes
        [head] = heads.heads({name: wanted}, None, whole)
        same = head.task.same(head.answers, head.of(rough))
        rows[name] = {
            "sqnr_db": affine.sqnr(wanted, rough[name]),
            "same": np.nan if same is None else float(np.mean(same)),
            "task": head.task.name,
        }
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
    try:
        variants = {"before": quantize.convert(wide), "after": quantize.convert(narrowed)}
        rows["bytes"] = [len(file) for file in variants.values()]
    except Exception:  # the converter's own, of many classes
        variants = {}
    totals = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"]).astype(float)
    with contextlib.suppress(LabError, RuntimeError):  # not every file that the converter makes can be run
        _add_times(totals, variants)
    return totals


def _add_times(totals, variants):
    if not variants:
        return
    ends = litert.interpreter(variants["before"]).get_input_details()
    if len(ends) == 1 and (ends[0]["shape_signature"][1:] > 0).all():
        times = measure.latency(variants, "before", measure.random_samples(variants["before"], 1))
        totals.loc["milliseconds", ["before", "after"]] = list(times.milliseconds)
        totals.loc["latency_ratio", ["before", "after"]] = list(times.ratio)
        totals.loc["latency_ratio", ["low", "high"]] = times.loc["after", ["low", "high"]]
