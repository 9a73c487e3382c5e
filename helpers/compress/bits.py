"""How many bits each layer of a float `.tflite` gets, under a budget of bytes or of accuracy.

A plan gives each layer a format: name of a layer -> key of `formats`. `Trials` makes the files of plans and measures them on
samples to choose by, each once. `sweep` changes one layer of the int8 file at a time; `search` takes these damages for additive,
finds by integer programming the plan with the least of it under the budget, measures its file, corrects the damages by what it
found, and so on; at last it changes one layer or two at a time, until nothing improves.

Additive damages under a budget are a knapsack with one choice for each layer, as in Hubara et al. 2021 (*Accurate post training
quantization with small calibration sets*, section 4), who solve it once.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, sparse

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import requantize, sensitivity
from helpers.compress.budget import Budget  # noqa: F401 - handed out
from helpers.compress.kernels_held import held
from helpers.tflite import litert

FLOAT, INT8, INT4 = "float32", "int8", "int4"
ONE_SCALE = ", one scale"
TRIES = 100  # files that a search measures after the sweep
STEPS = 16  # sizes of a front
PATIENCE = 25  # of them in a row that do not improve
NARROW = 0.01  # share of the bytes to which a search for points is exact
DOUBT = 0.5  # share of a layer's damage by which it may be another in company; and of a whole file's, a fifth of that
LEAST = 2e-3  # the same, of what did no damage at all, in units of the damage
SECONDS = 5.0  # for one integer program; all that were seen took less than a tenth of one


def formats(activations=8, scales="both", blocks=()):
    """The formats that a layer may have: name -> `requantize.Format`, or None for float32.

    activations: as in a Format, 8 bits by default. scales: "channel" for kernels with a scale for each output channel, "tensor" for
    one scale, or "both": 24 bytes a channel are not written with one scale, which in a small layer are more than 4 bits save. blocks:
    such as (32, 64): dense layers of 4 bits in dynamic range with a scale for each block.
    Raises InputError for other scales.
    """
    if scales not in ("both", "channel", "tensor"):
        raise InputError(f"scales={scales!r} must be both, channel or tensor.")
    found = {INT4: 4, INT8: 8}
    named = {name: requantize.Format(bits, activations, scales != "tensor") for name, bits in found.items()}
    if scales == "both":
        named |= {f"{name}{ONE_SCALE}": requantize.Format(bits, activations, False) for name, bits in found.items()}
    named |= {f"{INT4}, blocks of {size}": requantize.Format(4, requantize.DYNAMIC, block=size) for size in blocks}
    return named | {FLOAT: None}


class Trials:
    """The files of plans for one float model, made and measured each once.

    model: a float `.tflite`. calibration: sets the ranges of activations; images, labels, purpose: what plans are measured on, all as
    `sensitivity.sweep` takes them. forms: as `formats` gives them; INT8 is among them, and what all other operators get. known: as in
    `litert.weight_layers`.
    layers: frame, a row each: layer, op, name (of an output tensor), weights; operators that share a kernel are one layer. choices:
    layer -> the formats that there are kernels for, as files show. heads: a list of `heads.Head`. calls: how many files were measured.
    Raises what `sensitivity.sweep` raises.
    """

    def __init__(self, model, calibration, images, labels=None, forms=None, known=(), purpose=None):
        self.model, self.forms = litert.content(model), formats() if forms is None else forms
        table = sensitivity.weight_layers(self.model, known)
        stored = held(self.model)
        first = ~stored["kernel"].duplicated()
        self.layers = table[first].drop(columns="dtype").reset_index(drop=True)
        self._names = {
            layer: list(table["name"][stored["kernel"] == kernel])
            for layer, kernel in zip(self.layers["layer"], stored["kernel"][first], strict=True)
        }
        self._places = np.flatnonzero(first)
        static = any(form and form.activations in (8, 16) for form in self.forms.values())
        self.ranges = requantize.calibrate(self.model, calibration) if static else None
        self.heads, self._numbers = sensitivity.judge(self.model, images, labels, purpose)
        self._sizes, self._measured = {}, {}
        self.choices = {layer: [] for layer in self.layers["layer"]}
        for name in self.forms:
            self._find_kernels(name, stored["inputs"][first].tolist())
        lacking = [layer for layer, forms in self.choices.items() if INT8 not in forms]
        if lacking:
            raise InputError(
                f"layer {lacking[0]} has no kernel of 8 bits with one scale in dynamic range: take a scale for each channel (without "
                "--per-tensor), or 8 bits of activations."
            )
        self.calls = 0

    def _find_kernels(self, name, inputs):
        """Which layers have a kernel for a format: of those that could, the ones that get it. Elsewhere INT8 stays, silently."""
        form, fits = self.forms[name], []
        for layer, op, of in zip(self.layers["layer"], self.layers["op"], inputs, strict=True):
            dense = op == "FULLY_CONNECTED" and form is not None and form.block and of % form.block == 0
            # LiteRT's depthwise kernel in dynamic range reads a scale for each channel, and answers NaN where there is one.
            wrong = op == requantize.DEPTHWISE and bool(form) and not form.per_channel
            wrong = wrong and form.activations == requantize.DYNAMIC
            if (dense or not (form and form.block)) and not wrong:
                fits.append(layer)
        if fits:
            found = self.held(self.file(dict.fromkeys(fits, name)))
            for layer, dtype, scales in zip(self.layers["layer"], found["dtype"], found["scales"], strict=True):
                one = bool(form) and not form.per_channel
                right = dtype == (f"int{form.weights}" if form else FLOAT) and (scales == 1 or not one)
                if layer in fits and right:
                    self.choices[layer].append(name)

    def uniform(self, form):
        """The plan with the same format everywhere; 8 bits for a layer that has no kernel for it."""
        tried = (form, INT8 + ONE_SCALE if form.endswith(ONE_SCALE) else INT8, INT8)
        return {layer: next(each for each in tried if each in choices) for layer, choices in self.choices.items()}

    def file(self, plan):
        """The bytes of a plan's `.tflite`; input and output are float32. Layers that it does not name have 8 bits."""
        chosen = {name: self.forms[form] for layer, form in plan.items() if form != INT8 for name in self._names[layer]}
        return requantize.apply(self.model, {requantize.EVERYTHING: self.forms[INT8], **chosen}, self.ranges)

    def held(self, file):
        """`kernels_held.held` of a file, for these layers."""
        return held(file).iloc[self._places].reset_index(drop=True)

    def size(self, plan):
        """The bytes of a plan's file: how many."""
        key = self._key(plan)
        if key not in self._sizes:
            self._sizes[key] = len(self.file(plan))
        return self._sizes[key]

    def measure(self, plan):
        """bytes of a plan's file, and name of each of `sensitivity.NUMBERS` -> number."""
        key = self._key(plan)
        if key not in self._measured:
            file = self.file(plan)
            self._sizes[key] = len(file)
            self._measured[key] = {"bytes": len(file), **self._numbers(file)}
            self.calls += 1
        return self._measured[key]

    def measured(self):
        """Every plan that was measured: a frame with a row each, bytes and the numbers; front: whether no other file is as small and
        does less damage; and plan."""
        table = pd.DataFrame(self._measured.values())
        table = table.assign(plan=[dict(zip(self.choices, key, strict=True)) for key in self._measured])
        table = table.sort_values(["bytes", "damage"], kind="stable").reset_index(drop=True)
        least = table["damage"].cummin()
        return table.assign(front=table["damage"].lt(least.shift(fill_value=np.inf)))

    def _key(self, plan):
        return tuple(plan[layer] for layer in self.layers["layer"])


def sweep(trials, progress=iter):
    """What each format does to each layer while all others have 8 bits: a frame with a row for each of `choices`: layer, op, weights,
    format, and bytes, damage and change against the int8 file. progress: wraps the list of layers, as tqdm does."""
    base, rows = trials.uniform(INT8), []
    start = trials.measure(base)
    for layer in progress(list(trials.layers.itertuples())):
        for form in trials.choices[layer.layer]:
            row = trials.measure({**base, layer.layer: form})
            differs = {name: row[name] - start[name] for name in ("bytes", "damage", "change")}
            about = {"layer": layer.layer, "op": layer.op, "weights": layer.weights, "format": form}
            rows.append(about | differs)
    return pd.DataFrame(rows)


def first_guess(table, limit):
    """The plan with the least sum of damages whose bytes sum up to `limit` at most, both against int8, by integer programming
    (HiGHS, by `scipy.optimize.milp`). table: as `sweep` gives it. None if there is none."""
    layers = list(dict.fromkeys(table["layer"]))
    of = table["layer"].map({layer: number for number, layer in enumerate(layers)}).to_numpy()
    one = sparse.csr_array((np.ones(len(table)), (of, np.arange(len(table)))))
    constraints = [
        optimize.LinearConstraint(one, 1, 1),
        optimize.LinearConstraint(table["bytes"].to_numpy(float)[None], -np.inf, limit),
    ]
    damage = table["damage"].to_numpy(float)
    with runtime_env.quiet():  # HiGHS now and then writes the name of one of its functions
        found = optimize.milp(
            damage / (np.abs(damage).max() or 1.0),
            integrality=np.ones(len(table)),
            bounds=optimize.Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": SECONDS, "mip_rel_gap": 1e-3},
        )
    if found.x is None:
        return None
    chosen = table[found.x > 0.5]
    return dict(zip(chosen["layer"], chosen["format"], strict=True))


class Additive:
    """Damages of layers that add up to those of files: at first the sweep's, then corrected by every file that was measured.

    A Gaussian prior around the sweep's damages, whose deviation is DOUBT of each, and files' damages that are known to a fifth of
    it: their posterior mean (Rasmussen and Williams 2006, *Gaussian processes for machine learning*, equation 2.11).
    """

    def __init__(self, trials, table):
        self.trials, self.table = trials, table
        self._column = {place: number for number, place in enumerate(zip(table["layer"], table["format"], strict=True))}
        self._start = trials.measure(trials.uniform(INT8))
        self._prior = table["damage"].to_numpy(float)
        self._variance = (DOUBT * np.abs(self._prior) + LEAST) ** 2
        self._rows, self._damages, self.damages = [], [], self._prior

    def knows(self, plan):
        """Whether a plan has no other formats than the table."""
        return self._column.keys() >= plan.items()

    def learn(self, plan):
        """Measure a plan, correct the damages by it, and return its numbers."""
        numbers = self.trials.measure(plan)
        row = np.zeros(len(self._prior))
        row[[self._column[place] for place in plan.items()]] = 1
        self._rows.append(row)
        self._damages.append(numbers["damage"])
        rows, damages = np.array(self._rows), np.array(self._damages)
        noise = np.diag((DOUBT / 5 * damages + LEAST) ** 2)
        off = damages - self._start["damage"] - rows @ self._prior
        weights = np.linalg.solve((rows * self._variance) @ rows.T + noise, off)
        self.damages = self._prior + self._variance * (rows.T @ weights)
        return numbers

    def guess(self, limit):
        """`first_guess` by the damages as they are known now, of a file of at most `limit` bytes; None if there is none. Bytes of
        neighbours in float32 do not quite add up, so that the file itself is weighed."""
        table, room = self.table.assign(damage=self.damages), limit - self._start["bytes"]
        for _ in range(10):
            plan = first_guess(table, room)
            if plan is None or self.trials.size(plan) <= limit:
                return plan
            room -= self.trials.size(plan) - limit
        return None

    def swaps(self, plan, room):
        """Plans that differ in one layer or two, and take at most `room` bytes more, those first that should do least damage."""
        now = np.array([plan[layer] == form for layer, form in self._column])
        layers = self.table["layer"].to_numpy()
        at = {layer: number for layer, number in zip(layers[now], np.flatnonzero(now), strict=True)}
        old = np.array([at[layer] for layer in layers])
        moves = np.flatnonzero(~now)
        gained = (self.damages - self.damages[old])[moves]
        added = (self.table["bytes"].to_numpy() - self.table["bytes"].to_numpy()[old])[moves]
        found = [(gained[i], (i,)) for i in np.flatnonzero(added <= room)]
        both = gained[:, None] + gained[None]
        fits = (added[:, None] + added[None] <= room) & (layers[moves][:, None] != layers[moves][None])
        fits &= added[:, None] > room  # the first does not fit alone, else they are two steps
        found += [(both[i, j], (i, j)) for i, j in np.argwhere(fits)]
        found.sort()
        forms = self.table["format"].to_numpy()
        for _, places in found:
            yield {**plan, **{layers[moves[place]]: forms[moves[place]] for place in places}}


@dataclass(frozen=True)
class Found:
    """plan, its file and its numbers; guess: numbers of the first guess; files: how many were measured, the sweep's included;
    reached: whether the budget is kept."""

    plan: dict
    file: bytes
    numbers: dict
    guess: dict
    files: int
    reached: bool = True


def limit_of(trials, table, budget):
    """The bytes that a budget of bytes, or of a share, allows. Raises InputError for fewer than any plan's file has."""
    whole = trials.size(trials.uniform(INT8))
    limit = budget.bytes if budget.bytes is not None else int(budget.share * whole)
    least = trials.size(smallest(table))
    if limit < least:
        raise InputError(
            f"budget={limit:,} bytes are too few: the smallest file that there are kernels for has {least:,}, "
            f"{np.ceil(1000 * least / whole) / 10:.1f}% of int8's {whole:,}."
        )
    return limit


def smallest(table):
    """The plan of the smallest file."""
    first = table.sort_values("bytes", kind="stable").drop_duplicates("layer")
    return dict(zip(first["layer"], first["format"], strict=True))


def trace(trials, table, steps=STEPS):
    """Measure the plans of the integer program at so many sizes from the smallest file to the largest of one format, each once more
    after it was corrected: then `Trials.measured` shows the front at all sizes."""
    additive, forms = Additive(trials, table), dict.fromkeys(table["format"])
    largest = max(trials.size(trials.uniform(form)) for form in forms)
    for limit in np.geomspace(trials.size(smallest(table)), largest, steps):
        for _ in range(2):
            additive.learn(additive.guess(round(limit)) or smallest(table))


def search(trials, table, budget, tries=TRIES, starts=lambda limit: ()):
    """The plan of least damage within a budget of bytes; or of least bytes within a budget of points, by the samples of the trials: a
    Found. table: as `sweep` gives it, or those of its rows whose formats may be chosen. tries: how many files to measure at most;
    it stops when nothing improves. starts: bytes -> plans to begin from besides, of which None and those that are too large are left out.

    Where no file that was found loses so few points, it is the one that loses least, and `reached` is False.
    Raises InputError for a budget of fewer bytes than any file has, which it names.
    """
    additive = Additive(trials, table)
    if budget.points is not None:
        return _for_points(additive, budget.points, tries, starts)
    plan, guess = _within(additive, limit_of(trials, table, budget), tries, starts)
    return Found(plan, trials.file(plan), trials.measure(plan), guess, trials.calls)


def _within(additive, limit, tries, starts):
    """The best plan that so many tries find for so many bytes, and the numbers of the first guess."""
    trials = additive.trials
    end = trials.calls + tries
    plan = additive.guess(limit) or smallest(additive.table)
    guess = numbers = additive.learn(plan)
    seen = [plan]
    for other in (*map(trials.uniform, dict.fromkeys(additive.table["format"])), *starts(limit)):
        if other and additive.knows(other) and trials.size(other) <= limit:
            found = additive.learn(other)
            plan, numbers = (other, found) if found["damage"] < numbers["damage"] else (plan, numbers)
    while trials.calls < end:
        step = additive.guess(limit)
        if step is None or step in seen:
            break
        seen.append(step)
        found = additive.learn(step)
        plan, numbers = (step, found) if found["damage"] < numbers["damage"] else (plan, numbers)
    return _improved(additive, plan, limit, end), guess


def _improved(additive, plan, limit, end):
    """A plan after the swaps that lessen the damage, at most PATIENCE in a row of which do not."""
    trials, failed, seen = additive.trials, 0, []
    numbers = trials.measure(plan)
    while failed < PATIENCE and trials.calls < end:
        step = next((step for step in additive.swaps(plan, limit - numbers["bytes"]) if step not in seen), None)
        if step is None:
            break
        seen.append(step)
        found = additive.learn(step)
        better = found["damage"] < numbers["damage"] and found["bytes"] <= limit
        plan, numbers, failed = (step, found, 0) if better else (plan, numbers, failed + 1)
    return plan


def _for_points(additive, points, tries, starts):
    """The smallest file that loses no more, by halving of the bytes between one that does and one that does not."""
    trials, least, guess = additive.trials, -points / 100 - 1e-12, None
    end = trials.calls + tries
    ends = smallest(additive.table), trials.uniform(INT8), trials.uniform(FLOAT)
    for plan in filter(additive.knows, ends):
        additive.learn(plan)
    limits = [trials.size(ends[0]), trials.measured()["bytes"].max()]
    steps = np.log2(np.log(limits[1] / limits[0]) / NARROW)
    while limits[1] > (1 + NARROW) * limits[0] and trials.calls < end:
        middle = int(np.sqrt(limits[0] * limits[1]))
        plan, first = _within(additive, middle, max(2, int(tries / steps)), starts)
        guess = guess or first
        good = expected(trials.measured(), trials.measure(plan)) >= least
        limits = [limits[0], middle] if good else [middle, limits[1]]
    tried = trials.measured()
    tried = tried[[additive.knows(plan) for plan in tried["plan"]]]
    right = tried[[expected(tried, row) >= least for row in tried.to_dict("records")]]
    best = right.iloc[0] if len(right) else tried.sort_values(["change", "bytes"], ascending=[False, True]).iloc[0]
    plan, numbers = best["plan"], trials.measure(best["plan"])
    return Found(plan, trials.file(plan), numbers, guess or numbers, trials.calls, len(right) > 0)


def expected(tried, numbers):
    """By how much the score of a file changes, the luck of its choice left out: of hundreds of files the one that seems to lose least
    has lost more on other samples. What files of its damage lose, by isotonic regression over all that were tried (as
    `Trials.measured` has them); or what it loses itself, if that is more."""
    order = np.argsort(tried["damage"].to_numpy(), kind="stable")
    damage = tried["damage"].to_numpy()[order]
    usual = optimize.isotonic_regression(tried["change"].to_numpy()[order], increasing=False).x
    return min(numbers["change"], float(np.interp(numbers["damage"], damage, usual)))
