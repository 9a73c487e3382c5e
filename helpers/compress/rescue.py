"""A per-tensor int8 `.tflite` that works, of any float one: the cures of a collapse, one after another, until it is near enough.

    saved = rescue.rescue(blob, calibration, selection)     # no labels
    saved.file, saved.table

Many processors have one scale for a whole kernel, under which networks collapse that lose nothing with a scale for each channel. The
cures come in the order of what they cost: STEPS. Each is measured on selection data and stays if the answers come nearer to those
of float32. Those that are FREE go on until the file is surely within the limit, with the whole interval; all others are tried only
as long as it is not within the limit at all. Biases are corrected early: their shifts would hide what the steps behind bring.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from helpers.base.errors import InputError, StructureError
from helpers.compress import (
    outliers,
    own_data,
    requantize,
    sensitivity,
    tflite_equalization,
    tflite_graph,
    tflite_training,
)
from helpers.compress.tflite_plan import opened
from helpers.evidence import stats
from helpers.tflite import flatbuffer, heads, inputs, litert, tasks

PER_TENSOR, PER_CHANNEL = requantize.Format(per_channel=False), requantize.Format()
NOTHING = "per_tensor"  # the file before any step
# Step -> what it does. Those of EXACT leave the function of the float file as it is.
STEPS = {
    "cleared": "weights that read a channel which is always the same are zero",
    "corrected": "biases make up for what rounding does to the mean of each channel, from here on: the float function changes by that",
    "equalized": "channels are scaled so that rounding in layers and between them adds least noise",
    "migrated": "channels with large activations move into the weights that read them",
    "capped": "channels are scaled through ReLU6 as well, with a cap for each: an operator more",
    "gated": "channels are scaled through swish as well, with a product before its sigmoid",
    "per_channel": "the layers that lose most have a scale for each channel",
    "float": "the layers that lose most stay in float32",
    "trained": "trained to answer as float32, without labels",
}
FREE = ("cleared", "corrected", "equalized", "migrated")  # the file keeps its operators, and its speed
EXACT = ("cleared", "equalized", "capped", "gated", "migrated")
TOLERANCE = 1e-4  # share of the largest answer, by which float32 may round otherwise
LIMIT = 0.01
CALIBRATED, SELECTED, CORRECTED, SWEPT, TRIED = 200, 1000, 64, 200, 32  # samples, at most, that are used for each
TRAINING_STEPS, LEARNING_RATE = 100, 1e-4
WORTH = 0.9  # share of the damage that a step may leave, if it makes the file slower
TINY = 1e-30


@dataclass(frozen=True)
class Rescued:
    """file: bytes of the best that was found. reached: whether it is within the limit on selection data. table: a row for float32,
    one for no step, and one for each step that was tried, with the columns of `rescue`. judged: the task, in words. last: the row that
    the file is of. named: output tensor of each layer with a scale for each channel, or in float32 -> its Format, or None. expected:
    whether changes are what the float model's own probabilities let expect."""

    file: bytes
    reached: bool
    table: pd.DataFrame
    judged: str
    last: str
    named: dict
    expected: bool


@dataclass(frozen=True)
class _State:
    """A float file, and how it is to be quantized: bytes, formats of some layers as `requantize.apply` takes them, ranges, and the
    samples by which its biases are corrected, or None."""

    model: bytes
    formats: dict
    ranges: dict
    corrected_by: dict | None = None

    def quantized(self):
        formats = {requantize.EVERYTHING: PER_TENSOR, **self.formats}
        if self.corrected_by is None:
            return requantize.apply(self.model, formats, self.ranges)
        graph = tflite_graph.Graph(self.model)
        file = requantize.apply(graph.file, formats, self.ranges)
        graph.rounding_as(file).correct_biases(*(self.corrected_by[name] for name in graph.inputs))
        return requantize.apply(graph.written(), formats, self.ranges)


def rescue(model, calibration, selection, labels=None, limit=LIMIT, purpose=None, without=(), progress=iter, seed=0):
    """Make a per-tensor int8 file of a float `.tflite` (bytes or path) that answers nearly as it does: `Rescued`.

    calibration: samples as the model takes them, (n, ...), or name of an input -> such an array: they set the ranges, correct biases
    and train. selection: others, by which steps are judged; labels: theirs, as the task takes them, or None. limit: by how much the
    score may fall, as a share. Without labels it is what a classifier's own probabilities say of the answers that change (an
    answer that float32 gives 0.5 and another that it gives 0.4 are expected to cost 0.1), and for other tasks what the score
    loses where the float file's own answers are the truth. purpose: a `heads.Purpose`. without: names of STEPS that are not to be
    tried. progress: wraps the list of steps, as tqdm does. seed: of random samples and of training.
    Steps of EXACT are verified: the float file before and behind answers the same, to TOLERANCE, for calibration samples and for
    random ones; one that does not is not taken.
    Columns of the table: kept; change of the score with low and high (the worst output's); same (share of the same answers, NaN
    where answers are numbers), damage (the task's, its mean), bytes, kernels (how many there are), one_scale (how many of them have one
    scale, counted in the file), in_float (operators that compute in float32), shift (the largest change of a float answer, as a share of the
    largest answer; NaN for a step that is not exact), seconds, note.
    Raises InputError for an unusable or a quantized file, one without layers of weights, and samples that do not fit.
    """
    check_settings(limit, without)
    file, _, _ = opened(model)
    sensitivity.weight_layers(file)
    calibration, selection = (_named(file, each) for each in (calibration, selection))
    ladder = _Ladder(file, calibration, selection, labels, limit, purpose, seed)
    for name in progress([NOTHING, *(step for step in STEPS if step not in without)]):
        if not (ladder.sure if name in FREE else ladder.reached):
            ladder.take(name)
    table = pd.DataFrame.from_dict(ladder.rows, orient="index")
    return Rescued(
        ladder.file, ladder.reached, table, ladder.judged, ladder.last, ladder.state.formats, ladder.expected
    )


def check_settings(limit, without):
    """Raises InputError for a limit or names of steps that `rescue` does not take."""
    unknown = [name for name in without if name not in STEPS]
    if unknown:
        raise InputError(f"without={unknown[0]!r} is no step: choose of {', '.join(STEPS)}.")
    if not 0 <= limit < 1:
        raise InputError(f"limit={limit!r} must be a share in [0, 1): 0.01 is 1 point.")


def _named(file, samples):
    """Samples by the names of a file's inputs: an array is that of the only one. Raises InputError for other names."""
    names, found = list(flatbuffer.signature_names(file, "inputs").values()), inputs.by_name(samples)
    if len(names) == len(found) == 1:
        return dict(zip(names, found.values(), strict=True))
    if set(names) - set(found):
        raise InputError(f"samples hold {', '.join(found)}: give an array for each of {', '.join(names)}.")
    return {name: found[name] for name in names}


class _Ladder:
    """The steps as they are taken: what stands, and the rows of the table."""

    def __init__(self, file, calibration, selection, labels, limit, purpose, seed):
        self.calibration, self.selection, self.limit, self.seed = calibration, selection, limit, seed
        self.state = _State(file, {}, requantize.calibrate(file, calibration))
        self.exact = litert.run(file, selection, batch=litert.BATCH)
        self.heads = heads.heads(self.exact, labels, purpose)
        self.purpose, self.judged = purpose or heads.Purpose(), "; ".join(map(str, self.heads))
        self.expected = any(
            not each.labelled and each.task.likely(each.answers, each.answers) is not None for each in self.heads
        )
        random = np.random.default_rng(seed)
        self.tried = [
            own_data.part(calibration, slice(TRIED)),
            _random_like(own_data.part(calibration, slice(TRIED)), random),
        ]
        self.rows, self.file, self.last, self.reached, self.sure = {}, None, None, False, False
        self.rows["float32"] = {"kept": True, **self.measured(file), "shift": np.nan, "seconds": np.nan, "note": ""}

    def take(self, name):
        """Try a step; it stays if it brings the answers nearer to those of float32."""
        started = time.monotonic()
        try:
            state, row = self._tried(name)
        except InputError as why:  # there is nothing to do for this step, or no way to do it
            if name == NOTHING:
                raise
            state, row = None, {"shift": np.nan, "note": str(why)}
        row["kept"] = state is not None and (name == NOTHING or self._better(name, row))
        if row["kept"]:
            self.file, self.state, self.last = row.pop("file"), state, name
            self.reached, self.sure = self.within(row), row["low"] >= -self.limit
        row.pop("file", None)
        self.rows[name] = row | {"seconds": time.monotonic() - started}

    def _better(self, name, row):
        """What makes a file slower must bring it within the limit, or at least much nearer to it."""
        less = row["damage"] / max(self.rows[self.last]["damage"], TINY)
        return less < 1 and (name in FREE or self.within(row) or less < WORTH)

    def _tried(self, name):
        """What a step makes of the state, and its row, with the file. Raises InputError where it cannot be taken."""
        state, note = (self.state, "") if name == NOTHING else getattr(self, f"_{name}")()
        shift = self.shift(state.model) if name in EXACT else np.nan
        if shift > TOLERANCE:
            raise StructureError(f"the float file would answer otherwise, by {shift:.1g} of its largest answer")
        states = [(state, note)]
        if name in EXACT and state.corrected_by is None and "damage" in self.rows.get("corrected", {}):
            # What did not pay before may pay now.
            states.append((replace(state, corrected_by=self._few()), f"{note}, biases corrected"))
        found = []
        for each, told in states:
            file = each.quantized()
            _check_scales(file, each)
            found.append((each, {**self.measured(file), "shift": shift, "note": told, "file": file}))
        return min(found, key=lambda pair: pair[1]["damage"])

    def within(self, row):
        return row["change"] >= -self.limit

    def measured(self, file):
        """What is told of a file in the table."""
        found = litert.run(file, self.selection, batch=litert.BATCH)
        changes, same, damage = [], [], 0.0
        for head in self.heads:
            answers = head.of(found)
            changes.append(_change(head, answers))
            agreed = head.task.same(head.answers, answers)
            same.append(np.nan if agreed is None else float(np.mean(agreed)))
            damage += float(np.mean(head.task.damage(head.answers, answers)))
        worst = min(changes, key=lambda change: change.value)
        kernels = litert.kernels_in(file)
        return {
            "change": worst.value,
            "low": worst.low,
            "high": worst.high,
            "same": float(np.nanmin(same)) if not np.isnan(same).all() else np.nan,
            "damage": damage,
            "bytes": len(file),
            "kernels": len(litert.weight_layers(file)),
            "one_scale": int((kernels["scales"].map(len) == 1).sum()),
            "in_float": _in_float(file),
        }

    def shift(self, model):
        """By how much a float file answers otherwise than the one that stands: the worst output's, as a share of its largest answer."""
        worst = 0.0
        for samples in self.tried:
            pairs = zip(*(litert.run(each, samples).values() for each in (self.state.model, model)), strict=True)
            worst = max(worst, *(float(np.abs(one - other).max() / (np.abs(one).max() or 1)) for one, other in pairs))
        return worst

    def _moved(self, made, what):
        file, table = made
        if not len(table):
            raise StructureError("there is nothing to change")
        return replace(self.state, model=file, ranges=requantize.calibrate(file, self.calibration)), what(table)

    def _few(self):
        return own_data.part(self.calibration, slice(CORRECTED))

    def _cleared(self):
        return self._moved(
            tflite_equalization.clear_constant(self.state.model), lambda table: f"{_many(table)} always the same"
        )

    def _equalized(self):
        return self._moved(
            tflite_equalization.equalize(self.state.model, self._few()), lambda table: f"{_many(table)} scaled"
        )

    def _capped(self):
        return self._opened("MINIMUM", "ReLU6", capped=True)

    def _gated(self):
        return self._opened("MUL", "swish", gated=True)

    def _opened(self, kind, activation, **passing):
        """Equalized through an activation as well, which then has one operator of a kind more."""
        file, table = tflite_equalization.equalize(self.state.model, self._few(), **passing)
        added, before = (int((litert.operators(each).op == kind).sum()) for each in (file, self.state.model))
        if added == before:
            raise StructureError(f"there is no {activation} that a factor would have to pass")
        more = _counted(added - before, "operator")
        return self._moved((file, table), lambda table: f"{_many(table)} scaled, {more} more")

    def _migrated(self):
        return self._moved(outliers.migrate(self.state.model, self.calibration), lambda table: f"{_many(table)} scaled")

    def _corrected(self):
        return replace(self.state, corrected_by=self._few()), "of every layer, as it is quantized"

    def _per_channel(self):
        return self._protected(PER_CHANNEL, "with a scale for each channel")

    def _float(self):
        return self._protected(None, "in float32")

    def _protected(self, form, how):
        """As few layers as will do, those first that do most damage alone; a quarter of them at the most."""
        order, layers = self._order(), len(litert.weight_layers(self.state.model))
        most = max(1, layers // 4)
        best = None
        for many in _rising(min(most, len(order))):
            state = replace(self.state, formats={**self.state.formats, **dict.fromkeys(order["name"][:many], form)})
            row = self.measured(state.quantized())
            if best is None or row["damage"] < best[0]:
                best = row["damage"], state, many
            if self.within(row):
                break
        _, state, many = best
        told = ", ".join(order["layer"][: min(many, 4)]) + (", …" if many > 4 else "")
        return state, f"{many} of {layers} {how}: {told}"

    def _order(self):
        """The layers, a row each, those first that do most damage alone: layer, name (of its output)."""
        table = sensitivity.sweep(
            self.state.model,
            self.calibration,
            own_data.part(self.selection, slice(SWEPT)),
            form=PER_TENSOR,
            labels=self._masks(),
            modes=(sensitivity.ALONE,),
            purpose=self._damaged(),
            ranges=self.state.ranges,
        )
        return sensitivity.order(table, per_byte=False)

    def _damaged(self):
        """The Purpose by which the same damage is measured as here, where nobody has labels."""
        asked, found = self.purpose.task, {head.name: head.task.name for head in self.heads}
        if self.purpose.metric:  # whose damage is that of numbers
            asked = dict.fromkeys(self.heads[0].task.shapes, tasks.Regression.name)
        elif not isinstance(asked, str):
            asked = found.get("") or found | (asked or {})
        return replace(self.purpose, metric=None, task=asked, informed=True)

    def _masks(self):
        """The labels of the samples that are swept, where they alone say on which axis an output has its classes; else None."""
        labelled = [head for head in self.heads if head.labelled and isinstance(head.task, tasks.Segmentation)]
        told = {head.name: head.truth[:SWEPT] for head in labelled}
        return told.get("") if len(self.heads) == 1 else told or None

    def _trained(self):
        formats = {requantize.EVERYTHING: PER_TENSOR, **self.state.formats}
        aware = tflite_training.quantization_aware(self.state.model, formats=formats, ranges=self.state.ranges)
        order = np.random.default_rng(self.seed).permutation(own_data.number(self.calibration))
        chosen, fit = np.split(order, [max(1, len(order) // 5)])
        arrays = [[self.calibration[name][part] for name in aware.graph.inputs] for part in (fit, chosen)]
        taught, kept = (each if len(each) > 1 else each[0] for each in arrays)
        tflite_training.train(
            aware, taught, steps=TRAINING_STEPS, learning_rate=LEARNING_RATE, seed=self.seed, selection=kept
        )
        return replace(
            self.state, model=aware.float32(), corrected_by=None
        ), f"{TRAINING_STEPS} steps on {len(fit):,} samples"


def _many(table):
    return f"{_counted(len(table), 'channel')} of {_counted(table['tensor'].nunique(), 'tensor')}"


def _counted(number, what):
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _rising(number):
    """1, 2, 4, … and last the number itself."""
    found = [2**each for each in range(number.bit_length()) if 2**each < number]
    return [*found, number]


def _change(head, answers):
    """Of the score of a head: by its labels; or what to expect, if float32 is as often right as it says; or by its own answers."""
    likely = None if head.labelled else head.task.likely(head.answers, answers)
    if likely is not None:
        return stats.score_difference(head.task.likely(head.answers, head.answers), likely)
    return stats.score_difference(head.scores, head.task.scores(answers, head.truth))


def _random_like(samples, random):
    """Samples that no model was made for, as large as given ones: real numbers at random, others from anywhere among the given."""
    found = {}
    for name, array in samples.items():
        if array.dtype.kind == "f":
            size = 2 * max(float(array.std()), 1e-3)
            found[name] = random.normal(float(array.mean()), size, array.shape).astype(array.dtype)
        else:
            found[name] = random.permutation(array.ravel()).reshape(array.shape)
    return found


def _in_float(file):
    """How many operators of a file work on real numbers, those left out that turn them into integers or back."""
    table = litert.operators(file)
    return int(((table["input"] == "float32") & ~table["op"].isin(["QUANTIZE", "DEQUANTIZE"])).sum())


def _check_scales(file, state):
    """Raises StructureError unless every kernel of the file has one scale, but for the layers that are named."""
    kernels = litert.kernels_in(file)
    several = kernels[kernels["scales"].map(len) > 1]["name"]
    named = [name for name, form in state.formats.items() if form is not None]
    strange = [name for name in several if not any(name.startswith(each) for each in named)]
    if strange:
        raise StructureError(f"the kernel of {strange[0]} has several scales")
