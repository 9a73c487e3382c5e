"""What is common to all tasks: how a model's answers are compared with the truth, or with those of another model.

Answers are arrays by the name of an output, float32 (n, ...).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from helpers.evidence.stats import OfSet


@dataclass(frozen=True)
class Task:
    """One task of one output, or of several together. shapes: of its outputs, name -> shape of one sample's answer.

    measure: the field's short name of a score's mean; told: in words. unit: of the damage. discrete: whether two models can give
    the same answer. options: what may be set beside the name.
    """

    name: ClassVar[str]
    measure: ClassVar[str]
    told: ClassVar[str]
    unit: ClassVar[str] = "squared difference of the outputs, in units of their variance"
    discrete: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()
    shapes: dict = field(default_factory=dict)

    def misfit(self):
        """Why these outputs are none of this task, or None."""

    def truth(self, y, n, label="y"):
        """Labels of n samples in this task's own form. Raises InputError, with a cure, for what says something else."""
        raise NotImplementedError

    def own(self, answers):
        """The truth by a model's own answers, where nobody knows a better one."""
        raise NotImplementedError

    def settled(self, answers, truth):
        """This task with what follows from the baseline's answers, so that every model is judged alike."""
        return self

    def scores(self, answers, truth):
        """Bool or float (n,), or a `stats.OfSet`."""
        raise NotImplementedError

    def same(self, one, other):
        """Which samples two models give the same answer: bool (n,), or the share of it, float (n,); None if not discrete."""

    def alike(self, one, other):
        """Which answers of one file, by two processors, are the same for this task, as `same`; where there is no same, those that
        differ by no more than ALIKE."""
        same = self.same(one, other)
        return self.damage(one, other) <= ALIKE if same is None else same

    def damage(self, exact, answers):
        """By how much answers differ from those of the float model, without labels: float (n,), 0 where they are the same."""
        return sum(noise(exact[name], answers[name]) for name in self.shapes) / len(self.shapes)

    def likely(self, exact, answers):
        """How likely each of some answers is right, by the float model's own probabilities: float (n,); None where it gives none."""

    def uninformed(self, answers, truth):
        """What a model scores that does not look at the samples: as `scores`, those of these answers given to other samples; or their
        mean, where that can be known; None where nobody knows."""
        return self.scores(answers, truth[others(len(truth))])

    def advice(self, answers, truth):
        """What to look for where answers score no more than that."""
        return (
            "are the labels in the order of the samples and of the outputs, and not all the same, and are the samples scaled as "
            "the model takes them?"
        )

    def groups(self, truth):
        """The class of each sample, (n,); None where a sample belongs to none."""

    @property
    def output(self):
        """The name of the only output."""
        [name] = self.shapes
        return name

    @property
    def shape(self):
        return self.shapes[self.output]


ALIKE = 0.01  # of the variance: by so much answers of one file may differ between two processors, a tenth of a standard deviation


def others(n):
    """For each of n samples another one, drawn at random: a rule, such as half of them further on, would find the same label again
    where labels follow a rule of their own."""
    order, found = np.random.default_rng(0).permutation(n), np.empty(n, int)
    found[order] = np.roll(order, 1)
    return found


def only(task, fits, wanted):
    """Why a task has not one output of a shape that fits, in words; None if it has."""
    if len(task.shapes) != 1:
        return f"it has {len(task.shapes)} outputs, one is needed"
    return None if fits(task.shape) else f"its output has shape {(1, *task.shape)}, {wanted} is needed"


def spread(y):
    """Variance over the samples: of each number in a row; of all places together, by channel, where there are more axes. 0 for what
    never changes, such as 0.1, whose mean is rounded."""
    axes = _together(y)
    return np.where(np.ptp(y, axis=axes) > 0, y.var(axis=axes), 0.0)


def sizes(y):
    """The mean square of numbers, 1 where all are 0; of those apart that `spread` has apart."""
    found = (y.astype(float) ** 2).mean(axis=_together(y))
    return np.where(found > 0, found, 1.0)


def _together(y):
    return 0 if y.ndim <= 2 else tuple(range(y.ndim - 1))


def size(y):
    """The mean square of numbers, the unit of errors where they have no variance; 1 where all are 0."""
    return float((y.astype(float) ** 2).mean()) or 1.0


def finite(answers):
    """Which samples' answers, (n, ...), hold neither NaN nor infinity: bool (n,)."""
    return np.isfinite(answers).reshape(len(answers), -1).all(axis=1)


def noise(exact, found):
    """Squared difference of each sample in units of the exact answers' variance, or, if they never change, of their mean square:
    float (n,)."""
    n = len(exact)
    error = ((found.astype(float) - exact) ** 2).reshape(n, -1).mean(axis=1)
    return error / (float(spread(exact.astype(float)).mean()) or size(exact))


def sqnr(exact, found):
    """Signal-to-quantization-noise ratio in dB of answers, by name of an output: the worst output's, as an `OfSet` over samples;
    150 dB stand for no noise at all."""
    pairs = [(exact[name].reshape(len(exact[name]), -1), found[name].reshape(len(found[name]), -1)) for name in exact]
    sums = [
        ((one.astype(float) ** 2).sum(axis=1), ((one.astype(float) - other) ** 2).sum(axis=1)) for one, other in pairs
    ]

    def of(weights):
        powers = [(weights @ signal, weights @ noise) for signal, noise in sums]
        ratios = [  # nothing that stays nothing is without noise
            np.where((signal == 0) & (noise == 0), 1e15, signal / np.maximum(noise, 1e-15 * signal + 1e-300))
            for signal, noise in powers
        ]
        return np.clip(10 * np.log10(np.maximum(np.min(ratios, axis=0), 1e-300)), -150, 150)

    return OfSet(len(pairs[0][0]), of)
