"""What the gate asks of a compressed model: the policy, and each check with its three outcomes.

A check passes or fails only when the whole interval of what was measured lies on one side of its limit; otherwise it is
undecided. A check of accuracy then says how many more examples would decide it, assuming that answers go on being gained
and lost at the rates seen so far.

That number is for planning. An interval is right for one look at a number of examples that was fixed beforehand; who adds
examples and judges again until the check passes lets chance try again each time, and a candidate that loses a little more than
the limit gets through several times as often as by one look (exercise 06.4 counts how often). So fix the number first and judge
once. After an undecided check collect new examples, as many as it would have taken in all, and judge on those alone, once.
"""

import dataclasses
import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from helpers.base.errors import InputError
from helpers.evidence import stats
from helpers.evidence.stats import Estimate

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
FEW = 30  # samples, of which the range of the scores says little
MOST_EXAMPLES = 1_000_000  # beyond that, more examples are no advice


@dataclass(frozen=True)
class Check:
    """One question to the candidate: outcome (PASS, FAIL or UNDECIDED), what was measured, the limit, and why."""

    name: str
    outcome: str
    measured: Estimate | None
    limit: float | None
    because: str


@dataclass(frozen=True)
class Policy:
    """What a candidate must keep; None is not asked. Drops are shares of the task's score (top-1, R², …) below the
    baseline's, so that 0.02 is two points. Speedup is the baseline's latency over the candidate's; sizes and memory are
    bytes; agreement is the share of samples to which both give the same answer. min_sqnr, in dB, and max_damage, in the task's
    units, compare the outputs with the baseline's and need no labels. Raises InputError, naming the key, for a value that
    makes no sense.
    """

    max_drop: float | None = 0.02
    min_speedup: float | None = None
    max_size: int | None = None
    max_peak_memory: int | None = None
    min_agreement: float | None = None
    max_class_drop: float | None = None
    max_slice_drop: float | None = None
    min_sqnr: float | None = None
    max_damage: float | None = None

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            whole, (low, high) = name in ("max_size", "max_peak_memory"), _RANGES.get(name, (0, 1))
            kind = int if whole else (int, float)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high
            ):
                kind = "whole" if whole else "finite"
                allowed = f"{kind} number of {low:g} or more" if name in _RANGES else f"number in [{low:g}, {high:g}]"
                example = "; 0.02 is 2 points" if name.endswith("drop") else ""
                raise InputError(f"{name}={value!r} must be a {allowed}{example}.")

    def limited(self, texts):
        """This policy with some limits as typed, "max_drop=0.02", laid over; an empty value asks no more ("max_drop=").

        Raises InputError for an unknown name, one that comes twice, or a value that is no number or makes no sense.
        """
        known, changes = [field.name for field in dataclasses.fields(self)], {}
        for text in texts:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not equals or name not in known or name in changes:
                cause = "comes twice" if name in changes else "is no limit" if equals else "has no value"
                raise InputError(f"limit={text!r} {cause}: write NAME=VALUE, each name once, of {', '.join(known)}.")
            try:
                changes[name] = None if not value else int(value) if value.lstrip("+-").isdigit() else float(value)
            except ValueError:
                raise InputError(f"limit={text!r} is no number: write it as in max_drop=0.02.") from None
        return dataclasses.replace(self, **changes)

    @classmethod
    def read(cls, path):
        """A policy from a YAML file of `key: value` lines, each key once. Raises InputError, naming file and key."""
        try:
            text = Path(path).read_text()
            content, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise InputError(f"policy={str(path)!r} cannot be read ({cause}): give a YAML file.") from error
        if not isinstance(content, dict):
            raise InputError(f"policy={str(path)!r} must hold lines such as `max_drop: 0.02`.")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in content if name not in known]
        if unknown:
            raise InputError(f"policy={str(path)!r} has an unknown key {unknown[0]!r}: use {', '.join(known)}.")
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]  # of which YAML would silently take the last
        if twice:
            raise InputError(f"policy={str(path)!r} has the key {twice[0]!r} more than once: say which value holds.")
        try:
            return cls(**content)
        except InputError as error:
            raise InputError(f"policy={str(path)!r}: {error}") from None


_RANGES = {
    name: (0, sys.float_info.max) for name in ("min_speedup", "max_size", "max_peak_memory", "min_sqnr", "max_damage")
}


def counted(number, what):
    """'1 sample', '2,000 samples'."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def at_least(name, estimate, limit, because, advice="", fail_on=None):
    """The check that a quantity is at least `limit`. fail_on: a wider Estimate, if failing takes more than passing.

    because: what was measured, in words; advice: what would decide, used if nothing does.
    """
    if _low(estimate) >= limit:
        return Check(name, PASS, estimate, limit, because)
    if _high(fail_on or estimate) < limit:
        return Check(name, FAIL, estimate, limit, because)
    return Check(name, UNDECIDED, estimate, limit, f"{because}; {advice}" if advice else because)


def sampled(check):
    """The check of a mean over samples: a single one, which has no interval, decides nothing."""
    if check.measured.low is not None:
        return check
    return dataclasses.replace(
        check, outcome=UNDECIDED, because=f"{check.because}; one sample decides nothing: give more"
    )


def at_most(name, estimate, limit, because, advice=""):
    """The check that a quantity is at most `limit`."""
    turned = at_least(name, Estimate(-estimate.value, -_high(estimate), -_low(estimate)), -limit, because, advice)
    return dataclasses.replace(turned, measured=estimate, limit=limit)


def drop(baseline, candidate, limit, name="accuracy drop"):
    """The check that a score falls by at most `limit`. baseline, candidate: of the samples, as `stats.score` takes them."""
    change = _change(baseline, candidate)
    decided = at_least(name, change, -limit, f"{change:points}")
    return _with_advice(decided, baseline, candidate)


def _change(baseline, candidate, confidence=stats.CONFIDENCE):
    """`stats.score_difference`; of numbers never surer than that many right and wrong answers would be, since few samples that all lose a
    little say nothing of the rare one that loses all. It loses 1 where scores are shares, or few; else the range of nine tenths of them."""
    change = stats.score_difference(baseline, candidate, confidence)
    if isinstance(baseline, stats.OfSet) or baseline.dtype == candidate.dtype == bool:
        return change
    scores = np.append(baseline, candidate).astype(float)
    shares = scores.min() >= 0 and scores.max() <= 1
    most = 1.0 if shares or len(baseline) < FEW else float(np.ptp(np.quantile(scores, (0.05, 0.95))))
    unsure = stats.paired_counts(0, 0, len(baseline), confidence)
    return dataclasses.replace(
        change,
        low=min(_low(change), change.value + most * unsure.low),
        high=max(_high(change), change.value + most * unsure.high),
    )


def agreement(same, limit, name="agreement"):
    """The check that at least the share `limit` of the answers are the baseline's. same: which ones, bool (n,), or to what
    share, float (n,)."""
    share = stats.score(same)
    if same.dtype != bool:  # never surer than of answers, as in `_change`
        unseen = 1 - stats.proportion(np.ones(len(same), bool)).low
        low, high = min(_low(share), share.value - unseen), max(_high(share), share.value + unseen)
        share = dataclasses.replace(share, low=max(low, 0.0), high=min(high, 1.0))
    because = f"{np.sum(same):,.0f} of {len(same):,} answers are the baseline's"
    decided = at_least(name, share, limit, because)
    if decided.outcome != UNDECIDED:
        return decided
    if same.dtype == bool:
        needed = _needed(lambda n: stats.proportion(np.arange(n) < round(n * same.mean())), same.size, limit)
    else:
        needed = _needed(_narrower(share, same.size), same.size, limit)
    return dataclasses.replace(decided, because=f"{decided.because}; {_advice(needed, same.size)}")


def worst_group(name, baseline, candidate, groups, limit, of=""):
    """The check that a score falls by at most `limit` in each group, so that an average hides no collapse.

    groups: (n,), such as the labels. of: what stands behind the check's name. With many groups some look bad by chance, so a
    group fails only beyond its Bonferroni interval (95% for all groups together). To pass, each needs but its own 95% interval:
    if any group were truly worse than the limit, that one would have to pass by chance.
    """
    found, groups = [], np.asarray(groups)
    names = np.unique(groups)
    together = 1 - (1 - stats.CONFIDENCE) / len(names)
    for group in names:
        part = groups == group
        pair = baseline[part], candidate[part]
        change = _change(*pair)
        jointly = _change(*pair, together)
        because = f"{name} {group}: {change:points}, {counted(part.sum(), 'example')}"
        decided = at_least(f"worst {name} drop{of}", change, -limit, because, fail_on=jointly)
        found.append((decided, pair, group))
    order = {FAIL: 0, UNDECIDED: 1, PASS: 2}
    undecided = [group for decided, _, group in found if decided.outcome == UNDECIDED]
    worst, pair, group = min(found, key=lambda it: (order[it[0].outcome], it[0].measured.value, it[0].measured.low))
    worst = _with_advice(worst, *pair, f" of {name} {group}", together)
    if worst.outcome == UNDECIDED and len(undecided) > 1:
        others = ", ".join(map(str, undecided[:10])) + (" …" if len(undecided) > 10 else "")
        worst = dataclasses.replace(worst, because=f"{worst.because} (undecided: {others})")
    return worst


def _with_advice(check, baseline, candidate, group="", to_fail=stats.CONFIDENCE):
    """to_fail: the confidence that failing takes, where it is more than passing does."""
    if check.outcome != UNDECIDED:
        return check
    n, forecasts = len(baseline), []
    for confidence in (stats.CONFIDENCE, to_fail):
        if isinstance(baseline, np.ndarray) and baseline.dtype == bool:
            rates = np.mean(candidate & ~baseline), np.mean(baseline & ~candidate)
            forecasts.append(functools.partial(_paired, rates, confidence))
        else:
            forecasts.append(_narrower(_change(baseline, candidate, confidence), n))
    needed = _needed(forecasts[0], n, check.limit, forecasts[1])
    return dataclasses.replace(check, because=f"{check.because}; {_advice(needed, n, group)}")


def _paired(rates, confidence, number):
    """The difference on so many examples, gained and lost at the rates seen so far."""
    return stats.paired_counts(*(number * rate for rate in rates), number, confidence)


def _narrower(found, n):
    """What an Estimate over n samples would be over more: number -> Estimate, narrower by the square root."""

    def of(number):
        less = math.sqrt(n / number)
        ends = (found.value + less * (end - found.value) for end in (_low(found), _high(found)))
        return Estimate(found.value, *ends)

    return of


def _needed(estimate, n, limit, failing=None):
    """The least number of examples at which `estimate(number)` lies above the limit, or `failing(number)`, the same one unless
    failing takes more, below it; or None."""

    def decides(number):
        return estimate(number).low >= limit or (failing or estimate)(number).high < limit

    low, high = n, n
    while not decides(high):
        if high >= MOST_EXAMPLES:
            return None
        low, high = high, min(2 * high, MOST_EXAMPLES)
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _advice(needed, n, group=""):
    if needed is None:
        return f"too close to the limit for {MOST_EXAMPLES:,} examples to decide"
    more = max(1, needed - n)
    digits = max(0, len(str(more)) - 2)
    return f"about {counted(math.ceil(more / 10**digits) * 10**digits, 'more example')}{group} would decide"


def _low(estimate):
    return estimate.value if estimate.low is None else estimate.low


def _high(estimate):
    return estimate.value if estimate.high is None else estimate.high
