"""Are two pictures of one identity? A similarity above a threshold says yes: how often rightly, and how often falsely.

Pairs share pictures, and pictures share identities: a thousand pictures make half a million pairs, which do not say as much
as half a million trials. So what counts once is an identity, with all of its pairs (Bolle, Ratha and Pankanti 2004, *Error
analysis of pattern recognition systems: the subsets bootstrap*): `stats.score` and `stats.score_difference` leave identities
out. In a simulation with 60 identities (`benchmarks/verification.py`) those intervals held the truth in 92% to 99% of 400 draws,
24 times, and in 95.3% on average.
"""

import numpy as np

from helpers.base.errors import InputError
from helpers.evidence.stats import OfSet

REACH = 8  # times as many pairs as may be accepted falsely are looked at, to begin with


def threshold(vectors, who, false_accepts=0.01):
    """The similarity above which at most a share `false_accepts` of the pairs of different identities lie: a number.

    vectors, who: as in `true_accepts`, with what it raises.
    """
    pairs = _Pairs(vectors, who, false_accepts)
    return float(pairs.thresholds(np.ones((1, pairs.identities)))[0])


def true_accepts(vectors, who, false_accepts=0.01, threshold=None):
    """The share of the pairs of one identity that are accepted, as an `OfSet` over identities.

    vectors: float (n, numbers), of any length other than 0, compared by their cosines. who: int or str (n,), the identity of
    each. false_accepts: the share of the pairs of different identities that may be; the threshold follows from it anew with
    every set of identities. threshold: a similarity above which a pair is accepted, where it was set before, such as
    `threshold(...)` of other identities; its own chance is not in the interval.
    Raises InputError for data that do not fit, and for a rate that so few pairs cannot show.
    """
    if threshold is not None and not np.isfinite(threshold):
        raise InputError(f"threshold={threshold!r} must be a similarity, as threshold(vectors, who) gives it.")
    pairs = _Pairs(vectors, who, false_accepts if threshold is None else None)

    def of(weights):
        ends = np.full(len(weights), threshold) if threshold is not None else pairs.thresholds(weights)
        return pairs.true_share(weights, ends)

    return OfSet(pairs.identities, of, pairs.width)


def false_accepts(vectors, who, threshold):
    """The share of the pairs of different identities above a threshold, as an `OfSet` over identities; vectors, who: as in
    `true_accepts`."""
    pairs = _Pairs(vectors, who, None)
    return OfSet(pairs.identities, lambda weights: pairs.false_share(weights, threshold), pairs.width)


class _Pairs:
    """All pairs of some vectors, the most similar first."""

    def __init__(self, vectors, who, rate):
        vectors, who = np.asarray(vectors, float), np.asarray(who)
        if vectors.ndim != 2 or who.shape != (len(vectors),) or len(vectors) < 2:
            raise InputError(f"vectors has shape {vectors.shape} and who {who.shape}: give (n, numbers) and (n,).")
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(length).all() or not length.all():
            raise InputError("vectors holds some of no length, or NaN: a cosine needs a direction; leave them out.")
        _, of, self.counts = np.unique(who, return_inverse=True, return_counts=True)
        self.identities, self.rate = len(self.counts), rate
        if self.identities < 2 or self.counts.max() < 2:
            raise InputError(
                "who must name two identities or more, and one of them twice: a pair of each kind is needed."
            )
        unit = vectors / length
        one, other = np.triu_indices(len(unit), 1)
        near = (unit @ unit.T)[one, other]
        same = of[one] == of[other]
        order = np.argsort(-near[same], kind="stable")
        self.same, self.same_of = near[same][order], of[one[same]][order]
        strange = ~same
        order = np.argsort(-near[strange], kind="stable")
        self.strange = near[strange][order]
        self.one, self.other = of[one[strange]][order], of[other[strange]][order]
        if rate is not None and not (0 < rate < 1 and rate * len(self.strange) >= 1):
            raise InputError(
                f"false_accepts={rate!r} must lie in (0, 1), and above one of the {len(self.strange):,} pairs of different "
                "identities: give more pictures, or a larger rate."
            )
        self.width = len(self.same) + (len(self.strange) if rate is None else self._reach(rate))

    def _reach(self, rate):
        return min(len(self.strange), int(REACH * rate * len(self.strange)) + REACH)

    def thresholds(self, weights):
        """By how often identities count, (times, identities): the least similarity that keeps the rate, (times,)."""
        allowed, looked = self.rate * self._total(weights), self._reach(self.rate)
        while True:
            sums = np.cumsum(weights[:, self.one[:looked]] * weights[:, self.other[:looked]], axis=1)
            over = sums > allowed[:, None] * (1 + 1e-12)
            if looked == len(self.strange) or over.any(axis=1).all():
                return np.where(over.any(axis=1), self.strange[over.argmax(axis=1)], -np.inf)
            looked = min(len(self.strange), REACH * looked)

    def true_share(self, weights, ends):
        counted = np.cumsum(weights[:, self.same_of], axis=1)
        many = np.searchsorted(-self.same, -ends, side="left")  # those above, of a falling row
        accepted = np.where(many > 0, counted[np.arange(len(weights)), np.maximum(many, 1) - 1], 0)
        return accepted / np.maximum(counted[:, -1], 1e-300)

    def false_share(self, weights, end):
        many = np.searchsorted(-self.strange, -end, side="left")
        accepted = (weights[:, self.one[:many]] * weights[:, self.other[:many]]).sum(axis=1)
        return accepted / np.maximum(self._total(weights), 1e-300)

    def _total(self, weights):
        """The pairs of different identities, as often as they count."""
        pictures = weights * self.counts
        return (pictures.sum(axis=1) ** 2 - (pictures**2).sum(axis=1)) / 2
