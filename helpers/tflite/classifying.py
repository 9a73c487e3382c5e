"""Tasks whose answers are classes: one of several, yes or no, several labels, or one for each place."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from helpers.base import ground_truth
from helpers.base.errors import InputError
from helpers.tflite.scoring import Task, only

SMALLEST = 1 / 512  # an int8 softmax tells nothing below half a step of 1/256
FLOOR = 1 / 8  # and what all classes are raised to adds up to no more than this
VOID = 255  # the label of a place that counts for nothing, as is -1


class Classes(Task):
    """What these tasks share: `own` gives classes, of which a sample's is right or wrong."""

    unit: ClassVar[str] = "KL divergence of the outputs, nats"
    discrete: ClassVar[bool] = True

    def scores(self, answers, truth):
        return self.own(answers) == truth

    def same(self, one, other):
        return self.own(one) == self.own(other)


@dataclass(frozen=True)
class Classification(Classes):
    """One class a sample, the largest output. Score: whether it is right (top-1). Damage: Kullback-Leibler divergence, nats."""

    name: ClassVar[str] = "classification"
    measure: ClassVar[str] = "top1"
    told: ClassVar[str] = "accuracy"

    def misfit(self):
        return only(self, lambda shape: len(shape) == 1 and shape[0] >= 2, "(1, classes) with 2 classes or more")

    def truth(self, y, n, label="y"):
        return ground_truth.labels(y, n, self.shape[0], label)

    def own(self, answers):
        return answers[self.output].argmax(axis=-1)

    def likely(self, exact, answers):
        given, found = self.own(answers), exact[self.output]
        likely = found if is_distribution(found) else np.exp(_log_probabilities(found, False))
        return likely[np.arange(len(given)), given].astype(float)

    def uninformed(self, answers, truth):
        # What permuted labels leave; for a model that always names one class, that class's share of the labels.
        given = self.own(answers)
        return float(sum((given == label).mean() * (truth == label).mean() for label in np.unique(truth)))

    def damage(self, exact, answers):
        return divergence(exact[self.output], answers[self.output])

    def groups(self, truth):
        return truth


@dataclass(frozen=True)
class Binary(Classes):
    """Yes or no, by one output. Score: whether it is right. Damage: divergence of the two probabilities, nats.

    threshold: above it is yes: 0.5 for probabilities, 0 for logits; found by the baseline's answers, unless it is given.
    """

    name: ClassVar[str] = "binary"
    measure: ClassVar[str] = "accuracy"
    told: ClassVar[str] = "accuracy"
    options: ClassVar[tuple[str, ...]] = ("threshold",)
    threshold: float | None = None

    def misfit(self):
        return only(self, lambda shape: int(np.prod(shape)) == 1, "one number")

    def truth(self, y, n, label="y"):
        return _yes_or_no(np.asarray(y).reshape(-1) if np.ndim(y) else np.asarray(y), (n,), label)

    def own(self, answers):
        return answers[self.output].reshape(-1) > _middle(self, answers)

    def settled(self, answers, truth):
        return replace(self, threshold=_middle(self, answers))

    def damage(self, exact, answers):
        pair = (each[self.output].reshape(-1, 1) for each in (exact, answers))
        return _divergences(*pair)

    def groups(self, truth):
        return truth.astype(int)


@dataclass(frozen=True)
class MultiLabel(Binary):
    """Several labels a sample, each yes or no. Score: F1 of the sample's labels, 1 where none is there and none is given."""

    name: ClassVar[str] = "multi-label"
    measure: ClassVar[str] = "f1"
    told: ClassVar[str] = "F1"

    def misfit(self):
        return only(self, lambda shape: len(shape) == 1 and shape[0] >= 2, "(1, labels) with 2 labels or more")

    def truth(self, y, n, label="y"):
        return _yes_or_no(np.asarray(y), (n, *self.shape), label)

    def own(self, answers):
        return answers[self.output] > _middle(self, answers)

    def scores(self, answers, truth):
        given = self.own(answers)
        both, either = (given & truth).sum(axis=1), given.sum(axis=1) + truth.sum(axis=1)
        return np.where(either == 0, 1.0, 2 * both / np.maximum(either, 1))

    def same(self, one, other):
        return (self.own(one) == self.own(other)).all(axis=1)

    def damage(self, exact, answers):
        return _divergences(exact[self.output], answers[self.output])

    def groups(self, truth):
        return None


@dataclass(frozen=True)
class Segmentation(Classes):
    """A class for each place. Score: intersection over union, its mean over the classes that are in the sample's truth or
    answer. Damage: divergence, its mean over the places. Labels of -1 and 255 count for nothing.

    axis: of the classes, the last or the first after the samples (as PyTorch has them). With one output a place is yes or no.
    """

    name: ClassVar[str] = "segmentation"
    measure: ClassVar[str] = "iou"
    told: ClassVar[str] = "IoU"
    options: ClassVar[tuple[str, ...]] = ("threshold",)
    threshold: float | None = None
    axis: int = -1

    def misfit(self):
        return only(self, lambda shape: len(shape) >= 2, "(1, places, …, classes)")

    @property
    def classes(self):
        return max(2, self.shape[self.axis if self.axis < 0 else self.axis - 1])

    def truth(self, y, n, label="y"):
        y = np.asarray(y)
        wanted = [(n, *_without(self.shape, axis)) for axis in (self.axis, 1)]
        if y.ndim == len(self.shape) + 1:
            if y.shape[-1] == 1 and y.shape[:-1] in wanted:
                y = y[..., 0]
            elif y.shape[1] == 1:
                y = y[:, 0]
        if y.shape != wanted[0]:
            either = " or ".join(dict.fromkeys(map(str, wanted)))
            cure = (
                ", or say --task regression, which compares number with number; if these are classes already, give --metric FILE.py:FUNCTION"
                if y.shape[1:] == self.shape
                else ""
            )
            raise InputError(f"{label} has shape {y.shape}: give the class of each place, {either}{cure}.")
        if y.dtype.kind == "f" and (y == np.round(y)).all():
            y = y.astype(int)
        if y.dtype.kind not in "iub":
            raise InputError(f"{label} is {y.dtype}: give the class of each place as integers, as in y.astype(int).")
        y = y.astype(np.int64)
        if self.classes == 2 and VOID in y and np.isin(y, (0, VOID)).all():
            raise InputError(
                f"{label} holds 0 and {VOID} alone, and {VOID} counts for nothing here: write yes as 1, as in y // {VOID}; or, where "
                "it does mean nothing, as -1."
            )
        y = np.where((y == VOID) & (self.classes <= VOID), -1, y)
        if y.min() < -1 or y.max() >= self.classes:
            raise InputError(f"{label} has classes from {y.min()} to {y.max()}: the model has 0 to {self.classes - 1}.")
        empty = (y < 0).reshape(n, -1).all(axis=1)
        if empty.any():
            raise InputError(
                f"{label} names no class at all in {empty.sum()} samples: leave them out, keep = (y >= 0)."
            )
        return y

    def oriented(self, y, values=None):
        """With the axis that the labels say the classes are on; where their shape fits both, that of which the answers are right more
        often."""
        first, last = _without(self.shape, 1), _without(self.shape, -1)
        fits = y.shape[1:] in (first, (*first, 1), (1, *first)), y.shape[1:] in (last, (*last, 1))
        if all(fits) and values is not None:
            right = [(values.argmax(axis=axis).ravel() == y.ravel()).mean() for axis in (1, -1)]
            return replace(self, axis=1) if right[0] > right[1] else self
        return replace(self, axis=1) if fits == (True, False) else self

    def told_by(self, values):
        """With the axis that the answers themselves say the classes are on: (n, places, …, classes) or (n, classes, places, …). Raises
        InputError where neither is likelier."""
        if is_distribution(values):
            return self
        sides = values.shape[1:]
        if is_distribution(np.moveaxis(values, 1, -1)) or sides[0] == 1 < sides[-1]:
            return replace(self, axis=1)
        if sides[-1] == 1:
            return self
        square = [len(sides) > 2 and len(set(places)) == 1 for places in (sides[:-1], sides[1:])]  # as most places are
        if square == [False, True]:
            return replace(self, axis=1)
        # Without a square the last axis is theirs only where it is far shorter.
        if square == [True, False] or (square == [False, False] and 2 * sides[-1] <= min(sides[:-1])):
            return self
        raise InputError(
            f"answers have shape {sides}, whose classes may be on the first axis or on the last: add labels, y, which tell."
        )

    def own(self, answers):
        found = answers[self.output]
        if found.shape[self.axis] == 1:
            return (np.take(found, 0, axis=self.axis) > _middle(self, answers)).astype(np.int64)
        return found.argmax(axis=self.axis)

    def settled(self, answers, truth):
        return replace(self, threshold=_middle(self, answers))

    def scores(self, answers, truth):
        given, n = self.own(answers), len(truth)
        given, truth = given.reshape(n, -1), truth.reshape(n, -1)
        known, total, there = truth >= 0, np.zeros(n), np.zeros(n)
        for each in range(self.classes):
            one, other = (given == each) & known, truth == each
            union = (one | other).sum(axis=1)
            total += np.where(union, (one & other).sum(axis=1) / np.maximum(union, 1), 0)
            there += union > 0
        return total / there

    def same(self, one, other):
        return (self.own(one) == self.own(other)).reshape(len(one[self.output]), -1).mean(axis=1)

    def damage(self, exact, answers):
        pair = [np.moveaxis(each[self.output], self.axis, -1) for each in (exact, answers)]
        n = len(pair[0])
        if pair[0].shape[-1] == 1:
            return _divergences(*(each.reshape(n, -1) for each in pair)) / pair[0][0].size
        found = divergence(*(each.reshape(-1, each.shape[-1]) for each in pair))
        return found.reshape(n, -1).mean(axis=1)


def is_distribution(values):
    """Whether values (..., classes) are probabilities: none below 0, and their sum 1."""
    return bool((values >= 0).all() and np.allclose(values.sum(axis=-1), 1, atol=1e-3))


def divergence(exact, found):
    """Kullback-Leibler divergence of answers (n, classes), logits or probabilities, from the exact ones: float (n,), nats."""
    probabilities = is_distribution(exact)
    log_p, log_q = (_log_probabilities(answer, probabilities) for answer in (exact, found))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def _log_probabilities(outputs, probabilities):
    least = min(SMALLEST, FLOOR / outputs.shape[-1])
    logits = np.log(np.maximum(outputs, least)) if probabilities else outputs.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _divergences(exact, found):
    """Divergence of yes-or-no answers (n, labels), probabilities or logits, summed over the labels: float (n,), nats."""
    if are_probabilities(exact):
        bounded = (np.clip(each, SMALLEST, 1 - SMALLEST) for each in (exact, found))
        logits = [np.log(each / (1 - each)) for each in bounded]
    else:
        logits = [each.astype(np.float64) for each in (exact, found)]
    (yes, no), (yes_found, no_found) = ((-np.logaddexp(0, -each), -np.logaddexp(0, each)) for each in logits)
    return (np.exp(yes) * (yes - yes_found) + np.exp(no) * (no - no_found)).sum(axis=-1)


def are_probabilities(values):
    """Whether all values lie in [0, 1]."""
    return bool(values.min() >= 0 and values.max() <= 1)


def _middle(task, answers):
    if task.threshold is not None:
        return task.threshold
    return 0.5 if are_probabilities(answers[task.output]) else 0.0


def _yes_or_no(y, shape, label):
    if y.shape != shape:
        raise InputError(f"{label} has shape {y.shape}: give {shape}, a 0 or 1 each.")
    if y.dtype.kind not in "iufb" or not np.isin(y, (0, 1)).all():
        cure = f": give {label.split()[-1]} - 1" if y.dtype.kind in "iuf" and np.isin(y, (1, 2)).all() else ""
        raise InputError(f"{label} holds other values than 0 and 1{cure or ', such as ' + repr(y.ravel()[0].item())}.")
    return y == 1


def _without(shape, axis):
    """A sample's shape less the axis of the classes, counted with the axis of the samples."""
    place = len(shape) - 1 if axis < 0 else axis - 1
    return shape[:place] + shape[place + 1 :]
