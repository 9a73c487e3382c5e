"""Intervals for what the lab measures, all at 95% unless told otherwise. Thin over scipy."""

from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from helpers.base.errors import InputError

CONFIDENCE = 0.95
# Forms of an Estimate beside Python's own: factor, format of the number, unit behind it.
_FORMS = {"points": (100, "+.1f", " points"), "kB": (1e-3, ",.0f", " kB"), "MB": (1e-6, ",.1f", " MB")}


@dataclass(frozen=True)
class Estimate:
    """A measured number with the ends of its interval, all in `unit`; the ends are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __format__(self, spec):
        """As a number with its interval in brackets. spec: what Python knows (".1%"); or "points", of a share: "+0.5 points
        [-0.1, +1.1]"; or "kB", "MB", of bytes."""
        scale, spec, unit = _FORMS.get(spec, (1, spec or ".3f", ""))
        told = f"{scale * self.value:{spec}}{unit}"
        return told if self.low is None else f"{told} [{scale * self.low:{spec}}, {scale * self.high:{spec}}]"

    def __str__(self):
        return format(self)


def proportion(correct, confidence=CONFIDENCE):
    """Share of true entries, such as top-1 accuracy, with its interval.

    bool (examples,): Wilson's score interval (Wilson 1927). bool (seeds, examples): mean over the seeds with the
    pigeonhole bootstrap, as in `paired_difference`. Raises ValueError when it has another form or is empty.
    """
    _check(confidence)
    correct = _booleans(correct, "correct")
    if correct.ndim == 2:
        return _pigeonhole(correct.astype(float), confidence)
    test = scipy_stats.binomtest(int(correct.sum()), correct.size)
    interval = test.proportion_ci(confidence, method="wilson")
    return Estimate(test.statistic, interval.low, interval.high, "share")


def paired_difference(baseline, candidate, confidence=CONFIDENCE):
    """Accuracy of `candidate` minus accuracy of `baseline` on the same examples, with its interval.

    One row of examples, bool (examples,): adjusted Wald interval of Bonett and Price (2012, eq. 3), which stays
    sensible when the two never disagree. Several training seeds, bool (seeds, examples): mean over the seeds, with
    the pigeonhole bootstrap (Owen 2007), which resamples seeds and examples independently and so counts both
    sources of chance.
    Raises ValueError when shapes differ or are empty.
    """
    _check(confidence)
    baseline, candidate = _pair(baseline, candidate)
    if baseline.ndim == 2:
        return _pigeonhole(candidate.astype(float) - baseline, confidence)
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

    2 and 1/2 average to 1, and no bound falls below 0. Raises ValueError for a value of 0 or below.
    """
    values = _numbers(values)
    if (values <= 0).any():
        raise InputError(f"values holds {values.min():g}: ratios must be above 0.")
    logs = mean(np.log(values), unit, confidence)
    bounds = (None if end is None else float(np.exp(end)) for end in (logs.value, logs.low, logs.high))
    return Estimate(*bounds, unit)


def median(values, unit="", confidence=CONFIDENCE):
    """Median with the distribution-free interval from order statistics; (repetitions,), at least 6 of them."""
    _check(confidence)
    values = _numbers(values)
    interval = scipy_stats.quantile_test(values, q=float(np.median(values)), p=0.5).confidence_interval(confidence)
    if np.isnan([interval.low, interval.high]).any():
        raise InputError(
            f"values has {values.size} entries, too few for a {confidence:.0%} interval of the median: measure more."
        )
    return Estimate(float(np.median(values)), float(interval.low), float(interval.high), unit)


def _pigeonhole(differences, confidence, resamples=4000):
    seeds, examples = differences.shape
    random = np.random.default_rng(0)
    seed_weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = []
    for weights in seed_weights:
        drawn = np.bincount(random.integers(examples, size=examples), minlength=examples)
        means.append(weights @ (differences @ drawn) / differences.size)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(differences.mean()), float(low), float(high), "share")


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
