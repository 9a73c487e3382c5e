"""Intervals for what the lab measures, all at 95% unless told otherwise. Thin over scipy."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from helpers.base.errors import InputError

CONFIDENCE = 0.95
GROUPS, AT_ONCE = 200, 10_000_000  # of a jackknife; weights that are held at once
SAME = 1e-9  # shares that differ by less differ by rounding
# Forms of an Estimate beside Python's own: factor, format of the number, unit behind it.
_FORMS = {"points": (100, "+.1f", " points"), "kB": (1e-3, ",.0f", " kB"), "MB": (1e-6, ",.1f", " MB")}


@dataclass(frozen=True)
class Estimate:
    """A measured number with the ends of its interval, all in `unit`; the ends are None where there is none.

    trainings: of how many trainings, each from a seed of its own, it is the mean; None for what no training was repeated for.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    trainings: int | None = None

    def __format__(self, spec):
        """As a number with its interval in brackets. spec: what Python knows (".1%"); or "points", of a share: "+0.5 points
        [-0.1, +1.1]"; or "kB", "MB", of bytes. Of a single training it says "one seed"."""
        scale, spec, unit = _FORMS.get(spec, (1, spec or ".3f", ""))
        told = f"{scale * self.value:{spec}}{unit}"
        if self.low is not None:
            told += f" [{scale * self.low:{spec}}, {scale * self.high:{spec}}]"
        return f"{told}, one seed" if self.trainings == 1 else told

    def __str__(self):
        return format(self)


def proportion(correct, confidence=CONFIDENCE):
    """Share of true entries, such as top-1 accuracy, with its interval.

    bool (examples,): Wilson's score interval (Wilson 1927). bool (seeds, examples): mean over the seeds, as in
    `paired_difference`. Raises InputError when it has another form or is empty.
    """
    _check(confidence)
    correct = _booleans(correct, "correct")
    if correct.ndim == 2 and len(correct) > 1:
        return _over_seeds(correct.astype(float), [1, 1, 0, 0], confidence)
    if correct.ndim == 2:
        return dataclasses.replace(proportion(correct[0], confidence), trainings=1)
    test = scipy_stats.binomtest(int(correct.sum()), correct.size)
    interval = test.proportion_ci(confidence, method="wilson")
    return Estimate(test.statistic, interval.low, interval.high, "share")


def paired_difference(baseline, candidate, confidence=CONFIDENCE):
    """Accuracy of `candidate` minus accuracy of `baseline` on the same examples, with its interval.

    One row of examples, bool (examples,): adjusted Wald interval of Bonett and Price (2012, eq. 3), which stays
    sensible when the two never disagree. Several training seeds, bool (seeds, examples): mean over the seeds, with an
    interval that counts both sources of chance, other seeds and other examples (see `_over_seeds`). A single seed,
    bool (1, examples), has the interval of its examples alone, and says that it is one.
    Raises InputError when shapes differ or are empty.
    """
    _check(confidence)
    baseline, candidate = _pair(baseline, candidate)
    if baseline.ndim == 2 and len(baseline) > 1:
        return _over_seeds(candidate.astype(float) - baseline, [1, -1], confidence)
    if baseline.ndim == 2:
        return dataclasses.replace(paired_difference(baseline[0], candidate[0], confidence), trainings=1)
    gained, lost = int((candidate & ~baseline).sum()), int((baseline & ~candidate).sum())
    return paired_counts(gained, lost, baseline.size, confidence)


def paired_counts(gained, lost, n, confidence=CONFIDENCE):
    """`paired_difference` on n examples of which `gained` are right in the candidate only, and `lost` in the baseline only.

    Fractions are allowed: a forecast scales counts.
    """
    _check(confidence)
    p_gained, p_lost = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    z = scipy_stats.norm.ppf((1 + confidence) / 2)
    half = z * np.sqrt((p_gained + p_lost - (p_gained - p_lost) ** 2) / (n + 2))
    centre = p_gained - p_lost
    low, high = max(-1.0, float(centre - half)), min(1.0, float(centre + half))
    return Estimate(float(gained - lost) / n, low, high, "share")


@dataclass(frozen=True)
class OfSet:
    """A quantity that belongs to a set of samples and is no mean of theirs, such as average precision.

    samples: how many. of: float (times, samples), how often each sample counts -> float (times,). width: how many numbers that
    takes at a time, if more than samples. Indexed by bool (samples,) it is that of a part.
    """

    samples: int
    of: Callable
    width: int = 0

    @functools.cached_property
    def without_groups(self):
        """It of all samples, and without each of GROUPS random groups of them, (groups,): the same groups for all sets of so many
        samples. A baseline is compared with many candidates, so it is kept."""
        value, groups = float(self.of(np.ones((1, self.samples)))[0]), min(self.samples, GROUPS)
        if groups < 2:
            return value, np.array([])  # without the only one there is nothing
        belongs = np.random.default_rng(0).permutation(np.arange(self.samples) % groups)
        parts = np.array_split(np.arange(groups), -(-groups * max(self.samples, self.width) // AT_ONCE))
        return value, np.concatenate([self.of((belongs != some[:, None]).astype(float)) for some in parts])

    def __len__(self):
        return self.samples

    def __getitem__(self, part):
        places = np.flatnonzero(part)

        def of(weights):
            whole = np.zeros((len(weights), self.samples))
            whole[:, places] = weights
            return self.of(whole)

        return OfSet(len(places), of, max(self.samples, self.width))


def score(scores, confidence=CONFIDENCE):
    """What samples score on average, with its interval: bool (n,), a `proportion`; float (n,), Student's t; or an `OfSet`, a
    jackknife over groups of samples. A single number has no interval. Raises InputError for none, and for numbers that are not
    finite."""
    if isinstance(scores, OfSet):
        return _without_groups([scores], confidence)
    scores = np.asarray(scores)
    if scores.dtype == bool:
        return proportion(scores, confidence)
    return _of_samples(scores, _numbers(scores), confidence)


def score_difference(baseline, candidate, confidence=CONFIDENCE):
    """What `candidate` scores more than `baseline` on the same samples, as `score` takes them, with its interval: that of
    `paired_difference` for right or wrong, Student's t of the samples' differences, or a jackknife that leaves the same samples
    out of both. Two that never differ are not known to be alike: as in `paired_counts` one more is counted as gained and one
    as lost, each by the largest difference that was seen. Raises InputError for different numbers of samples.
    """
    if len(baseline) != len(candidate):
        raise InputError(f"baseline has {len(baseline)} scores and candidate {len(candidate)}: judge the same samples.")
    if isinstance(baseline, OfSet):
        return _without_groups([baseline, candidate], confidence)
    baseline, candidate = np.asarray(baseline), np.asarray(candidate)
    if baseline.dtype == candidate.dtype == bool:
        return paired_difference(baseline, candidate, confidence)
    apart = _numbers(candidate) - _numbers(baseline)
    return _of_samples(apart, np.append(np.abs(apart), 0) if apart.any() else baseline, confidence, paired=True)


def _of_samples(values, seen, confidence, paired=False):
    """Mean of one number a sample with Student's t, corrected for skewness. paired: count beside them one difference up and one
    down, by the range of what was seen."""
    _check(confidence)
    values = _numbers(values)
    most = float(np.ptp(seen)) or 1.0
    counted = np.append(values, [most, -most]) if paired else values
    if counted.size == 1:
        return Estimate(float(values[0]), unit="share")
    error, t = scipy_stats.sem(counted), scipy_stats.t.ppf((1 + confidence) / 2, counted.size - 1)
    # Where a few samples lose much more than the others, the mean is more often too high than too low (Johnson 1978, eq. 2.7).
    skewed = np.nan_to_num(scipy_stats.skew(counted)) if np.ptp(counted) else 0.0  # NaN where only roundings differ
    centre = float(counted.mean() + skewed * error * (1 + 2 * t**2) / (6 * np.sqrt(counted.size)))
    half = float(t * error)
    value = float(values.mean())  # which one pair among alike differences would draw out of its interval
    return Estimate(value, min(value, centre - half), max(value, centre + half), "share")


def _without_groups(sets, confidence):
    """An `OfSet`, or the second of two less the first, with the interval of a jackknife that leaves out one of GROUPS random groups
    of samples after the other (Shao and Wu 1989), and Student's t. A bootstrap's percentiles held the truth in 90% of the cases
    where average precision falls by much, this in 94%."""
    _check(confidence)
    n = len(sets[0])
    value, without = sets[-1].without_groups
    if len(sets) > 1:
        value, without = (one - other for one, other in zip((value, without), sets[0].without_groups, strict=True))
    groups = len(without)
    if len(sets) > 1 and (n < 2 or np.ptp(without) < SAME):  # by how much they always differ, and not that they do not
        unsure = paired_counts(0, 0, n, confidence)
        return Estimate(value, max(-1.0, value + unsure.low), min(1.0, value + unsure.high), "share")
    if n < 2:
        return Estimate(value, unit="share")
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    half = float(error * scipy_stats.t.ppf((1 + confidence) / 2, groups - 1))
    return Estimate(value, value - half, value + half, "share")


def mean(values, unit="", confidence=CONFIDENCE):
    """Mean of a few repetitions (seeds) with Student's t interval; (repetitions,). One value has no interval."""
    _check(confidence)
    values = _numbers(values)
    if values.size == 1:
        return Estimate(float(values[0]), unit=unit)
    centre, error = float(values.mean()), float(scipy_stats.sem(values))
    half = error * scipy_stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return Estimate(centre, centre - half, centre + half, unit)


def geometric_mean(values, unit="", confidence=CONFIDENCE):
    """Mean of a few ratios, through their logarithms, with Student's t interval; (repetitions,), all above 0.

    2 and 1/2 average to 1, and no bound falls below 0. Raises InputError for a value of 0 or below.
    """
    values = _numbers(values)
    if (values <= 0).any():
        raise InputError(f"values holds {values.min():g}: ratios must be above 0.")
    logs = mean(np.log(values), unit, confidence)
    bounds = (None if end is None else float(np.exp(end)) for end in (logs.value, logs.low, logs.high))
    return Estimate(*bounds, unit)


def median(values, unit="", confidence=CONFIDENCE):
    """Median with the distribution-free interval from order statistics; (repetitions,). Raises InputError for fewer than 6."""
    _check(confidence)
    values = _numbers(values)
    interval = scipy_stats.quantile_test(values, q=float(np.median(values)), p=0.5).confidence_interval(confidence)
    if np.isnan([interval.low, interval.high]).any():
        raise InputError(
            f"values has {values.size} entries, too few for a {confidence:.0%} interval of the median: measure more."
        )
    return Estimate(float(np.median(values)), float(interval.low), float(interval.high), unit)


def spread_ratio(baseline, candidate, confidence=CONFIDENCE):
    """Standard deviation over the seeds of `baseline`'s accuracy, divided by that of `candidate`'s, with its interval.

    baseline, candidate: bool (seeds, examples), at least three seeds, trained in pairs. Above 1 the candidate depends less on
    its seed. The interval is that of Pitman (1939) and Morgan (1939) for the variances of two correlated normal samples. Seeds that
    are all equally right are taken to vary by one example in one of them, which is the least that could have been seen.
    Raises InputError for fewer seeds.
    """
    _check(confidence)
    pair = [of.mean(axis=1) for of in _pair(baseline, candidate) if of.ndim == 2]
    if len(pair) != 2 or len(pair[0]) < 3:
        raise InputError(
            f"the spread over seeds needs booleans (seeds, examples) of at least 3 seeds, and has {np.shape(baseline)}."
        )
    seeds, least = len(pair[0]), 1 / np.shape(baseline)[1] ** 2 / len(pair[0])
    variances = [max(np.var(accuracies, ddof=1), least) for accuracies in pair]
    vary = min(map(np.ptp, pair)) >= SAME  # otherwise a variance may be 1e-34 instead of 0
    together = np.corrcoef(*pair)[0, 1] if vary else 0.0
    t = scipy_stats.t.ppf((1 + confidence) / 2, seeds - 2)
    k = 1 + 2 * (1 - together**2) * t**2 / (seeds - 2)
    ratio, ends = variances[0] / variances[1], np.array([k - np.sqrt(k**2 - 1), k + np.sqrt(k**2 - 1)])
    low, high = np.sqrt(ratio * ends)
    return Estimate(float(np.sqrt(ratio)), float(low), float(high), "ratio", seeds)


def _over_seeds(scores, added, confidence):
    """Mean of scores, float (seeds, examples), for other seeds and other examples: a two-way layout with random effects.

    The mean squares of seeds and of examples, less that of their interaction, estimate the variance of the mean (Cornfield and
    Tukey 1956); Satterthwaite (1946) gives the degrees of freedom of Student's t. They are seeds - 1 where seeds vary more
    than examples, and with two seeds, whose spread is hardly known. Resampling the seeds (a bootstrap) does not know that: its
    intervals are too short. added: scores of examples that the interval counts beside, the same in every seed. Where all seeds
    agree on every example, it would have no width without them: so one more is gained and one lost, as in `paired_counts`, or two
    are right and two wrong (Agresti and Coull 1998). A simulation covers the truth in at least 93% of the cases
    (`benchmarks/rules.py`).
    """
    value, seeds = scores.mean(), len(scores)
    scores = np.hstack([scores, np.tile(np.array(added, float), (seeds, 1))])
    examples = scores.shape[1]
    centre, of_seed, of_example = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - of_seed[:, None] - of_example + centre
    by_seed, by_example = examples * np.var(of_seed, ddof=1), seeds * np.var(of_example, ddof=1)
    by_both = (rest**2).sum() / ((seeds - 1) * (examples - 1))
    # The sum may come out smaller than a part, by chance.
    variance = max(by_seed + by_example - by_both, by_seed, by_example)
    freedom = seeds - 1
    if seeds > 2 and by_seed <= by_example:
        squares = (by_seed**2 + by_both**2 / (examples - 1)) / (seeds - 1) + by_example**2 / (examples - 1)
        freedom = max(variance**2 / squares, freedom)
    half = scipy_stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance / scores.size)
    low, high = max(centre - half, min(added)), min(centre + half, max(added))
    return Estimate(float(value), float(low), float(high), "share", seeds)


def _check(confidence):
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must lie in (0, 1): 0.95 is usual.")


def _booleans(array, name):
    array = np.asarray(array)
    if array.size == 0 or array.dtype != bool or array.ndim not in (1, 2):
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: it must be booleans (examples,) or (seeds, examples), at least one."
        )
    return array


def _pair(baseline, candidate):
    baseline, candidate = _booleans(baseline, "baseline"), _booleans(candidate, "candidate")
    if baseline.shape != candidate.shape:
        raise InputError(
            f"baseline has shape {baseline.shape} and candidate {candidate.shape}: judge both on the same examples."
        )
    return baseline, candidate


def _numbers(values):
    try:
        values = np.asarray(values, float).ravel()
    except (TypeError, ValueError):
        raise InputError(f"values={values!r} must be finite numbers, at least one.") from None
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"values={values.tolist()!r} must be finite numbers, at least one.")
    return values
