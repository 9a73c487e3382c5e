"""True accepts at a rate of false ones: by hand, by brute force, under weights; intervals; and what is refused."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.evidence import stats, verification


def at(*degrees):
    """Vectors of such directions, of several lengths."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, len(degrees) + 1)[:, None]


def drawn(identities=30, pictures=4, noise=0.8, seed=0):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, 1, 8))
    vectors = centres + noise * random.normal(size=(identities, pictures, 8))
    return vectors.reshape(-1, 8), np.repeat(np.arange(identities), pictures)


def by_hand(vectors, who, rate, times=None):
    """Every pair by itself, those of identities that count several times as often."""
    times, pairs = np.ones(who.max() + 1) if times is None else times, []
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for one in range(len(unit)):
        for other in range(one + 1, len(unit)):
            same = who[one] == who[other]
            count = times[who[one]] if same else times[who[one]] * times[who[other]]
            pairs.append((float(unit[one] @ unit[other]), same, count))
    strange = [(near, count) for near, same, count in pairs if not same]
    total = sum(count for _, count in strange)
    candidates = sorted({near for near, _ in strange} | {-2.0})
    end = next(each for each in candidates if sum(n for near, n in strange if near > each) <= rate * total + 1e-9)
    same = [(near, count) for near, same, count in pairs if same]
    return end, sum(n for near, n in same if near > end) / sum(n for _, n in same)


def test_five_pictures_by_hand():
    """Two of one identity are 10 degrees apart, two of another 35. Of 8 pairs of strangers the nearest is 20 apart, then 30: where
    one of the 8 may be accepted, all nearer than 30 are."""
    vectors, who, whole = at(0, 10, 30, 65, 180), ["a", "a", "b", "b", "c"], np.ones((1, 3))
    assert verification.threshold(vectors, who, 1 / 8) == pytest.approx(np.cos(np.radians(30)))
    accepts = verification.true_accepts(vectors, who, 1 / 8)
    assert len(accepts) == 3 and accepts.of(whole) == 0.5
    looser = np.cos(np.radians(36))
    assert verification.true_accepts(vectors, who, threshold=looser).of(whole) == 1
    assert verification.false_accepts(vectors, who, looser).of(whole) == 2 / 8


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.1, 0.6])
def test_it_is_what_brute_force_says(rate):
    vectors, who = drawn(12, 3)
    end, share = by_hand(vectors, who, rate)
    assert verification.threshold(vectors, who, rate) == pytest.approx(end)
    found = verification.true_accepts(vectors, who, rate)
    assert found.of(np.ones((1, 12)))[0] == pytest.approx(share)
    weights = np.random.default_rng(1).integers(0, 4, (5, 12)).astype(float)
    expected = [by_hand(vectors, who, rate, row)[1] for row in weights]
    assert found.of(weights) == pytest.approx(expected)


def test_a_threshold_of_the_rate_gives_the_same_and_keeps_it():
    vectors, who = drawn(60)
    end, whole = verification.threshold(vectors, who, 0.01), np.ones((1, 60))
    anew, kept = verification.true_accepts(vectors, who, 0.01), verification.true_accepts(vectors, who, threshold=end)
    assert anew.of(whole) == kept.of(whole)
    assert 0.008 < verification.false_accepts(vectors, who, end).of(whole)[0] <= 0.01


def test_equal_similarities_are_accepted_together_or_not_at_all():
    vectors = np.repeat(at(0, 90), 3, axis=0)
    who = [0, 0, 1, 1, 2, 2]  # of identity 1 one picture looks like those of 0, the other like those of 2
    assert verification.threshold(vectors, who, 0.2) == pytest.approx(1)
    assert verification.true_accepts(vectors, who, 0.2).of(np.ones((1, 3))) == 0


def test_intervals_hold_the_truth():
    """benchmarks/verification.py has more draws, and two sizes, rates and noises."""
    held, random = [], np.random.default_rng(0)
    vectors = (random.normal(size=(2000, 1, 8)) + 0.6 * random.normal(size=(2000, 4, 8))).reshape(-1, 4, 8)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    strange = (unit[:, 0] @ unit[:, 0].T)[np.triu_indices(2000, 1)]
    same = np.einsum("ian,ibn->iab", unit, unit)[:, *np.triu_indices(4, 1)]
    true = (same > np.quantile(strange, 0.99)).mean()
    for _ in range(150):
        chosen = vectors[random.choice(2000, 60, replace=False)].reshape(-1, 8)
        found = stats.score(verification.true_accepts(chosen, np.repeat(np.arange(60), 4), 0.01))
        held.append(found.low <= true <= found.high)
    assert np.mean(held) > 0.88


def test_what_cannot_be_told_is_refused():
    vectors, who = drawn(4, 2)
    for wrong, message in (
        ((vectors, who[:5]), r"vectors has shape \(8, 8\) and who \(5,\)"),
        ((vectors * 0, who), "of no length"),
        ((vectors, np.zeros(8, int)), "two identities or more"),
        ((vectors, np.arange(8)), "one of them twice"),
        ((vectors, who, 0.01), "above one of the 24 pairs"),
        ((vectors, who, 1.5), r"must lie in \(0, 1\)"),
    ):
        with pytest.raises(InputError, match=message):
            verification.true_accepts(*wrong)
    with pytest.raises(InputError, match="threshold=nan must be a similarity"):
        verification.true_accepts(vectors, who, threshold=float("nan"))
    verification.true_accepts(vectors, who, 0.05)  # a larger rate is the cure
    verification.true_accepts(*drawn(20, 4), 0.01)  # and so are more pictures
