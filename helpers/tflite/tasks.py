"""What a model is for: classification, regression, segmentation, detection and others, and the user's own.

A task reads the labels that users have (or takes a model's own answers for true), gives each sample a score, the higher the
better, and says by how much two models' answers differ. `TASKS` holds them by name; `choose` takes the one that outputs and
labels fit.
"""

import copy
import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from helpers.base.errors import InputError
from helpers.tflite.classifying import (
    Binary,
    Classification,
    MultiLabel,
    Segmentation,
    are_probabilities,
    is_distribution,
)
from helpers.tflite.detection import Detection
from helpers.tflite.scoring import ALIKE, Task, only, others, size, sizes, spread

AT_ONCE = 256  # samples that are compared at a time


@dataclass(frozen=True)
class Regression(Task):
    """Numbers. Score: one less the squared error in units of the labels' variance, whose mean is the coefficient of
    determination (R², of each number by itself, then their mean; those that never change count, in units of their mean square, only
    where none does, or where nobody knows better than the model itself). Damage: squared difference in units of the variance, of
    each number by itself.
    """

    name: ClassVar[str] = "regression"
    measure: ClassVar[str] = "r2"
    told: ClassVar[str] = "R²"
    by_itself: bool = False

    def misfit(self):
        return only(self, lambda shape: True, "any shape")

    def truth(self, y, n, label="y"):
        y = np.asarray(y)
        if y.dtype.kind not in "fiub":
            raise InputError(f"{label} holds {y.dtype}: a regression needs numbers, as in y.astype('float32').")
        if y.shape not in {(n, *self.shape), (n, *[side for side in self.shape if side != 1])}:
            raise InputError(f"{label} has shape {y.shape}: the model answers with {(n, *self.shape)}.")
        y = y.reshape(n, *self.shape).astype(float)
        if not np.isfinite(y).all():
            raise InputError(f"{label} holds NaN or infinity: leave these samples out.")
        if not spread(y).any():
            raise InputError(f"{label} is the same for all {n} samples: without a spread nothing can be explained.")
        return y

    def own(self, answers):
        return answers[self.output].astype(float)

    def settled(self, answers, truth):
        return replace(self, by_itself=np.array_equal(truth, self.own(answers)))

    def scores(self, answers, truth):
        varies = spread(truth)
        error = (answers[self.output] - truth) ** 2
        if not varies.any():
            return 1 - error.reshape(len(truth), -1).mean(axis=1) / size(truth)
        of = np.broadcast_to(varies, truth.shape[1:])
        constant = of == 0
        counted = ~constant | self.by_itself
        units = np.where(constant, np.broadcast_to(sizes(truth), of.shape), of)
        return 1 - (error / units)[:, counted].mean(axis=1)

    def damage(self, exact, answers):
        return 1 - replace(self, by_itself=True).scores(answers, self.own(exact))

    def uninformed(self, answers, truth):
        return np.zeros(len(truth))  # of one that always answers with the labels' mean


@dataclass(frozen=True)
class Embedding(Task):
    """A vector for each sample, of which similar ones are near (by cosine). Damage: one less the cosine of the two vectors.

    y: what a sample shows, such as whose face: score is whether its nearest neighbour shows the same. Or y: int (pairs, 3), two
    samples and whether they show the same: score of a pair is whether a threshold says so. threshold: of the cosine; that with
    which the baseline is right most often, unless it is given.
    """

    name: ClassVar[str] = "embedding"
    unit: ClassVar[str] = "one less the cosine of the vectors"
    measure: ClassVar[str] = "right"
    told: ClassVar[str] = "accuracy"
    discrete: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("threshold",)
    threshold: float | None = None

    def misfit(self):
        return only(self, lambda shape: len(shape) == 1 and shape[0] >= 2, "(1, numbers)")

    def truth(self, y, n, label="y"):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 3:
            if (
                y.dtype.kind not in "iub"
                or y[:, :2].min() < 0
                or y[:, :2].max() >= n
                or not np.isin(y[:, 2], (0, 1)).all()
            ):
                raise InputError(f"{label} must hold two samples of 0 to {n - 1} and a 0 or 1 in each row.")
            return y.astype(int)
        if y.shape != (n,):
            raise InputError(f"{label} has shape {y.shape}: give ({n},), what each sample shows, or (pairs, 3).")
        kinds, of, counts = np.unique(y, return_inverse=True, return_counts=True)
        if (counts == 1).any():
            raise InputError(
                f"{label} shows {kinds[counts == 1][0]} once only: give two samples of each, or leave it out."
            )
        return of

    def own(self, answers):
        return {"nearest": self.nearest(answers)}

    def nearest(self, answers):
        """The nearest other sample of each, int (n,)."""
        vectors, found = _unit(answers[self.output]), []
        for start in range(0, len(vectors), AT_ONCE):
            near = vectors[start : start + AT_ONCE] @ vectors.T
            near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
            found.append(near.argmax(axis=1))
        return np.concatenate(found)

    def settled(self, answers, truth):
        if self.threshold is not None or isinstance(truth, dict) or truth.ndim == 1:
            return self
        near, same = self.near(answers, truth), truth[:, 2] == 1
        candidates = np.unique(near)
        middles = np.append((candidates[1:] + candidates[:-1]) / 2, [candidates[0] - 1e-6, candidates[-1] + 1e-6])
        right = [((near > each) == same).mean() for each in middles]
        return replace(self, threshold=float(middles[int(np.argmax(right))]))

    def near(self, answers, pairs):
        """The cosine of each pair."""
        vectors = _unit(answers[self.output])
        return (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1)

    def scores(self, answers, truth):
        if isinstance(truth, dict):
            return self.nearest(answers) == truth["nearest"]
        if truth.ndim == 1:
            return truth[self.nearest(answers)] == truth
        return (self.near(answers, truth) > self.threshold) == (truth[:, 2] == 1)

    def uninformed(self, answers, truth):
        if truth.ndim == 1:
            return super().uninformed(answers, truth)
        shuffled = np.column_stack([truth[:, :2], truth[others(len(truth)), 2]])
        return self.scores(answers, shuffled)

    def same(self, one, other):
        return self.nearest(one) == self.nearest(other)

    def alike(self, one, other):
        return self.damage(one, other) <= ALIKE  # among a few samples the nearest says little

    def damage(self, exact, answers):
        return 1 - (_unit(exact[self.output]) * _unit(answers[self.output])).sum(axis=1)


@dataclass(frozen=True)
class Own(Task):
    """A task of the user's: a function of answers, a dict by the outputs' names or the only output's array, and of y as it was
    given, a dict where it has an array for each of some outputs -> the samples' scores, bool or float (n,), the higher the better."""

    name: ClassVar[str] = "own"
    measure: ClassVar[str] = "score"
    told: ClassVar[str] = "score"
    function: object = None

    def truth(self, y, n, label="y"):
        given = {f"y_{name}": each for name, each in y.items()} if isinstance(y, dict) else {label: y}
        for name, each in given.items():
            if len(each) != n:
                raise InputError(f"{name} has {len(each):,} entries for {n:,} samples: give one a sample.")
        return {name: np.asarray(each) for name, each in y.items()} if isinstance(y, dict) else np.asarray(y)

    def own(self, answers):
        raise InputError("--metric needs labels: add y to the data.")

    def uninformed(self, answers, truth):
        return None

    def scores(self, answers, truth):
        n = len(next(iter(answers.values())))
        # Copies, since it may change what it is given, and others judge by the same arrays.
        outputs, truth = copy.deepcopy((answers, truth))
        try:
            found = np.asarray(self.function(outputs if len(self.shapes) > 1 else outputs[self.output], truth))
        except (Exception, SystemExit) as error:  # it is the user's
            raise InputError(
                f"metric fails ({type(error).__name__}: {error}): mend it, or try it on two samples."
            ) from error
        if found.shape != (n,) or found.dtype.kind not in "bfiu" or not np.isfinite(found).all():
            raise InputError(
                f"metric gives {found.dtype} of shape {found.shape}: it must give a finite score for each sample, ({n},)."
            )
        return found if found.dtype == bool else found.astype(float)


KINDS = (Classification, Binary, MultiLabel, Regression, Segmentation, Detection, Embedding)
TASKS = {kind.name: kind for kind in KINDS}


def choose(shapes, answers=None, y=None, asked=None):
    """The task of some outputs. shapes: name -> shape of one sample's answer. answers: of the baseline, and y: labels as
    given, tell tasks of the same shapes apart. asked: "name" or "name:option,option", such as "detection:cxcywh", instead.

    Labels that are no whole numbers, or rows of others than zeros and ones, are numbers; rows of five for each of some boxes are
    boxes. Without labels an output that sums to 1 over its last axis is a class for each place, one number in [0, 1] a yes or no, a row of
    numbers a class for each, and everything else is numbers. Raises InputError where nothing fits.
    """
    if asked:
        task = _asked(asked, shapes)
    else:
        if len(shapes) != 1:
            raise InputError(f"{len(shapes)} outputs need a task each, or one of all: name it, such as detection.")
        [(name, shape)] = shapes.items()
        values = None if answers is None else answers[name]
        y = None if y is None else np.asarray(y)
        task = _fitting(shape, values, y)(shapes)
        if task.name == "regression" and _may_be_classes(values, y):
            raise InputError(
                f"output {name} holds whole numbers, which may be classes, as of a file that ends in ArgMax, or counts: of counts say "
                "--task regression; of classes give --metric FILE.py:FUNCTION, a function (outputs, y) that returns whether each sample "
                "is right, such as outputs.reshape(len(y)) == y."
            )
    why = task.misfit()
    if why:
        raise InputError(f"this is no model of task {task.name}: {why}.")
    if isinstance(task, Segmentation) and y is not None:
        return task.oriented(np.asarray(y), None if answers is None else answers[task.output])
    return task.told_by(answers[task.output]) if isinstance(task, Segmentation) and answers is not None else task


def metric(asked, shapes):
    """The `Own` task of "file.py:function". Raises InputError for a file or function that is not there."""
    file, _, name = asked.rpartition(":")
    if not file.endswith(".py") or not Path(file).is_file():
        raise InputError(f"metric={asked!r} must read FILE.py:FUNCTION, of a file that is there.")
    try:
        spec = importlib.util.spec_from_file_location("users_metric", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is the user's
        raise InputError(f"metric={asked!r} cannot be loaded ({type(error).__name__}: {error}).") from error
    if not callable(getattr(module, name, None)):
        raise InputError(f"metric={asked!r}: {file} has no function {name}.")
    return Own(shapes, getattr(module, name))


def _asked(asked, shapes):
    name, _, rest = asked.partition(":")
    if name not in TASKS:
        raise InputError(f"task={name!r} is unknown: choose one of {', '.join(TASKS)}.")
    settings = {}
    for option in filter(None, rest.split(",")):
        key, _, value = option.partition("=")
        known = TASKS[name].options
        if key not in known:
            raise InputError(f"task={asked!r}: {key!r} is no option of {name}: {', '.join(known) or 'it has none'}.")
        if key == "threshold":
            if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", value):
                raise InputError(f"task={asked!r}: write threshold as a number, as in {name}:threshold=0.5.")
            settings[key] = float(value)
        else:
            settings.update({"objectness": True} if key == "objectness" else {"form": key})
    return TASKS[name](shapes, **settings)


def _fitting(shape, values, y):
    """The kind of task by the shape of one sample's answer, the answers and the labels; the last two may be None."""
    numbers = int(np.prod(shape))
    if y is not None:
        yes_or_no = y.dtype.kind in "fiub" and np.isin(y, (0, 1)).all()
        if numbers == 1:
            return Binary if yes_or_no else Regression
        if len(shape) == 1:
            if y.ndim == 2 and y.shape[1] == numbers:
                several = yes_or_no and (y.sum(axis=1) != 1).any()
                return MultiLabel if several else Classification if yes_or_no else Regression
            return Regression if _are_fractions(y) else Classification
        if len(shape) == 2 and y.ndim == 3 and y.shape[2] == 5 and y.shape[1:] != shape:
            return Detection
        mask = yes_or_no and 1 in (shape[0], shape[-1]) and y[:1].size == numbers
        return Segmentation if mask or y.dtype.kind in "iub" else Regression
    if numbers == 1:
        return Binary if values is not None and are_probabilities(values) else Regression
    if len(shape) == 1:
        return Classification
    return Segmentation if values is not None and is_distribution(values) else Regression


def _may_be_classes(values, y):
    """Whether numbers of a regression, and labels if there are any, are all whole, and not always the same."""
    known = [np.asarray(each, float) for each in (values, y) if each is not None]
    return values is not None and all(np.ptp(each) > 0 and (each == np.round(each)).all() for each in known)


def _are_fractions(y):
    """Whether labels hold numbers that cannot count classes."""
    return y.dtype.kind == "f" and np.isfinite(y).all() and (y != np.round(y)).any()


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
