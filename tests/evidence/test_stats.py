"""Intervals: against published values, against scipy's own, and by simulation of what "95%" promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from helpers.base.errors import InputError
from helpers.evidence import stats

Z = scipy_stats.norm.ppf(0.975)


def share(right, total):
    return np.arange(total) < right


def table(both, gained, lost, neither):
    """Two judged models, baseline and candidate, with these counts of agreement and disagreement."""
    baseline = np.repeat([True, False, True, False], [both, gained, lost, neither])
    candidate = np.repeat([True, True, False, False], [both, gained, lost, neither])
    return baseline, candidate


def tables():
    counts = st.lists(st.integers(0, 60), min_size=4, max_size=4).filter(any)
    return counts.map(lambda numbers: table(*numbers))


def width(estimate):
    return estimate.high - estimate.low


# --- how an estimate prints


def test_an_estimate_prints_with_its_interval_and_takes_a_format():
    assert str(stats.Estimate(0.94321, 0.93, 0.95499)) == "0.943 [0.930, 0.955]"
    assert f"{stats.Estimate(0.94321, 0.93, 0.95499):.1%}" == "94.3% [93.0%, 95.5%]"
    assert f"{stats.Estimate(2.5):.2f}" == "2.50"


@pytest.mark.parametrize(
    "estimate, spec, told",
    [
        (stats.Estimate(0.00512, -0.001, 0.0114), "points", "+0.5 points [-0.1, +1.1]"),
        (stats.Estimate(-0.03), "points", "-3.0 points"),
        (stats.Estimate(941_234, 900_000, 1_250_499), "kB", "941 kB [900, 1,250]"),
        (stats.Estimate(12_345_678.0), "kB", "12,346 kB"),
        (stats.Estimate(12_345_678, 9_000_000, 1_234_567_890), "MB", "12.3 MB [9.0, 1,234.6]"),
        (stats.Estimate(60_000), "MB", "0.1 MB"),
    ],
)
def test_an_estimate_is_told_in_points_and_in_bytes(estimate, spec, told):
    assert f"{estimate:{spec}}" == told


@pytest.mark.parametrize("spec", ["point", "kb", "GB", ".1f points"])
def test_another_form_is_as_unknown_as_to_a_number(spec):
    with pytest.raises(ValueError, match=r"[Ii]nvalid format spec|Unknown format code"):
        format(stats.Estimate(0.5, 0.4, 0.6), spec)


# --- a proportion


@pytest.mark.parametrize(
    "right, total, low, high",  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(right, total, low, high):
    found = stats.proportion(share(right, total))
    assert (found.value, found.unit) == (right / total, "share")
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
@settings(deadline=None)
def test_wilsons_ends_are_where_the_score_test_just_rejects(counts):
    right, total = counts
    found = stats.proportion(share(right, total))
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in {found.low, found.high} - {0.0, 1.0}:
        assert abs(found.value - end) == pytest.approx(Z * np.sqrt(end * (1 - end) / total), rel=1e-6)


def test_a_proportion_over_seeds_is_their_mean():
    correct = np.array([share(90, 100), share(80, 100)])
    found = stats.proportion(correct)
    assert found.value == 0.85
    assert found.low < 0.85 < found.high


# --- the difference of two models on the same examples


@pytest.mark.parametrize(
    "counts, low, high",
    [
        # Bonett and Price (2012), examples 1 and 4, to the digits of the tests of R's package esci
        ((60, 22, 50, 68), -0.2198621, -0.05736562),
        ((158, 290, 515, 1134), -0.1333205, -0.08106726),
        # the example of ci.prop.ps in Bonett's own R package, statpsych
        ((12, 26, 4, 6), 0.2548067, 0.6251933),
    ],
)
def test_paired_difference_gives_the_published_intervals(counts, low, high):
    found = stats.paired_difference(*table(*counts))
    assert (found.value, found.unit) == ((counts[1] - counts[2]) / sum(counts), "share")
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize(
    "gained, lost, total, most",
    [(0.03, 0.06, 300, 0.97), (0.05, 0.05, 500, 0.97), (0.2, 0.1, 100, 0.97), (0.005, 0.005, 500, 1)],
)
def test_its_95_percent_interval_covers_the_truth_95_percent_of_the_time(gained, lost, total, most):
    agreeing = (1 - gained - lost) / 2
    drawn = np.random.default_rng(0).multinomial(total, [agreeing, gained, lost, agreeing], size=2000)
    found = [stats.paired_difference(*table(*counts)) for counts in drawn]
    covered = np.mean([estimate.low <= gained - lost <= estimate.high for estimate in found])
    assert 0.93 <= covered <= most  # where models hardly ever disagree, it errs on the side of width


@given(tables())
@settings(deadline=None)
def test_it_contains_the_observed_difference_and_stays_in_range(judged):
    found = stats.paired_difference(*judged)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.value == pytest.approx(judged[1].mean() - judged[0].mean())


@given(tables())
@settings(deadline=None)
def test_swapping_the_models_mirrors_it(judged):
    there, back = stats.paired_difference(*judged), stats.paired_difference(*judged[::-1])
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-12)


@given(st.integers(1, 2000))
@settings(deadline=None)
def test_two_models_that_never_disagree_are_not_proven_equal(total):
    found = stats.paired_difference(share(total // 2, total), share(total // 2, total))
    assert found.value == 0
    assert found.low == pytest.approx(-found.high)
    assert width(found) > 0


def test_more_confidence_is_wider():
    judged = table(80, 5, 10, 5)
    assert width(stats.paired_difference(*judged, confidence=0.99)) > width(stats.paired_difference(*judged))


# --- several seeds


def seeds_apart(*accuracies, examples=400):
    """One row a seed: the same examples, right in this share of them, at random."""
    random = np.random.default_rng(0)
    return np.array([random.random(examples) < accuracy for accuracy in accuracies])


def test_seeds_that_differ_widen_the_interval():
    candidate = seeds_apart(0.95, 0.85, 0.75)
    baseline = np.ones_like(candidate)
    found = stats.paired_difference(baseline, candidate)
    assert found.value == pytest.approx(candidate.mean() - 1)
    assert width(found) > 2 * width(stats.paired_difference(baseline.ravel(), candidate.ravel()))


def test_the_same_seed_thrice_is_no_more_evidence_than_once():
    baseline, candidate = table(800, 40, 90, 70)
    once = stats.paired_difference(baseline, candidate)
    thrice = stats.paired_difference(np.tile(baseline, (3, 1)), np.tile(candidate, (3, 1)))
    assert thrice.value == pytest.approx(once.value)
    assert width(thrice) == pytest.approx(width(once), rel=0.1)


def test_seeds_are_mirrored_by_a_swap_and_counted():
    baseline, candidate = seeds_apart(0.9, 0.9), seeds_apart(0.8, 0.85)
    there, back = stats.paired_difference(baseline, candidate), stats.paired_difference(candidate, baseline)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))
    assert there.trainings == 2


def test_one_seed_has_the_interval_of_its_examples_and_says_so():
    baseline, candidate = seeds_apart(0.9), seeds_apart(0.8)
    found, plain = stats.paired_difference(baseline, candidate), stats.paired_difference(baseline[0], candidate[0])
    assert (found.low, found.high, found.trainings) == (plain.low, plain.high, 1)
    assert f"{found:points}" == f"{plain:points}, one seed"
    assert stats.proportion(candidate).trainings == 1


def test_by_hand_where_only_seeds_vary():
    """Every example alike: Student's t over the means of the seeds."""
    found = stats.proportion(np.array([[True] * 9, [False] * 9, [True] * 9]))
    half = 4.302653 * np.std([1, 0, 1], ddof=1) / np.sqrt(3)
    # Two right and two wrong examples are counted beside the nine; it ends at 0 and at 1.
    assert (9 * 2 / 3 + 2) / 13 - half * 9 / 13 < 0 and (found.low, found.high) == (0, 1)


def test_seeds_that_agree_on_every_example_are_as_sure_as_one():
    """The examples are a sample still: no width of zero."""
    right = np.ones((5, 400), bool)
    once, often = stats.paired_difference(right[0], right[0]), stats.paired_difference(right, right)
    assert (once.low, once.high) == pytest.approx((often.low, often.high), rel=0.02) and once.high > 0.006
    all_right = stats.proportion(right)
    p, n = 402 / 404, 404  # Agresti and Coull 1998
    assert (all_right.value, all_right.high) == (1, 1)
    assert all_right.low == pytest.approx(p - Z * np.sqrt(p * (1 - p) / n), abs=2e-4)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("apart", [0.0005, 0.002])
def test_an_interval_over_seeds_that_nearly_agree_covers_the_truth(seeds, apart):
    random, held = np.random.default_rng(0), 0
    for _ in range(600):
        chance = random.beta(0.3, 0.3 * (1 - apart) / apart, 400)
        gains, loses = (random.random((2, seeds, 400)) < chance) & (random.random(400) < 0.5)
        found = stats.paired_difference(loses & ~gains, gains & ~loses)
        held += found.low <= 0 <= found.high
    assert held / 600 >= 0.93


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_an_interval_over_seeds_covers_the_truth(seeds, spread):
    """spread: of the seeds' means, in units of what the choice of examples moves the mean."""
    random, examples, held = np.random.default_rng(0), 400, 0
    for _ in range(600):
        lost, gained = random.beta(0.3, 2.7, examples), random.beta(0.3, 5.7, examples)  # examples are not equally hard
        moved = random.normal(0, spread * np.sqrt(0.1375 / examples), (seeds, 1))
        loses = random.random((seeds, examples)) < np.clip(lost * (1 - moved / 0.1), 0, 1)
        gains = random.random((seeds, examples)) < gained
        found = stats.paired_difference(loses & ~gains, gains & ~loses)
        held += found.low <= 0.05 - 0.1 <= found.high
    assert held / 600 >= 0.93 - 2 * np.sqrt(0.93 * 0.07 / 600)  # within what 600 draws can tell


# --- the spread over seeds


def test_the_ratio_of_spreads_is_pitmans_and_morgans():
    one = np.arange(100) < np.array([[90], [80], [85], [70], [95]])
    other = np.arange(100) < np.array([[88], [84], [86], [83], [90]])
    found = stats.spread_ratio(one, other)
    assert found.value == pytest.approx(np.std([90, 80, 85, 70, 95]) / np.std([88, 84, 86, 83, 90]))
    assert found.trainings == 5
    for end in (
        found.low,
        found.high,
    ):  # at its ends their test just rejects: sum and difference, one scaled, correlate
        a, b = one.mean(axis=1), other.mean(axis=1) * end
        assert scipy_stats.pearsonr(a + b, a - b).pvalue == pytest.approx(0.05, rel=1e-6)
    swapped = stats.spread_ratio(other, one)
    assert (swapped.low, swapped.high) == pytest.approx((1 / found.high, 1 / found.low))


@pytest.mark.parametrize("right", [1, 3, 5, 7, 10])
def test_seeds_that_are_all_equally_right_vary_by_one_example_at_most(right):
    """Of three accuracies of 0.1 numpy's variance is 3e-34."""
    one, other = np.tile(np.arange(10) < right, (3, 1)), np.arange(10) < np.array([[1], [3], [6]])
    least = np.std([0, 0, 0.1], ddof=1)
    found, swapped = stats.spread_ratio(one, other), stats.spread_ratio(other, one)
    assert found.value == pytest.approx(least / np.std([0.1, 0.3, 0.6], ddof=1)) == pytest.approx(1 / swapped.value)
    assert found.low < found.value < found.high
    both = stats.spread_ratio(one, one)
    assert both.value == 1 and both.low < 1 < both.high  # which decides nothing


# --- mean and median of repetitions


def test_a_mean_has_students_interval():
    found = stats.mean([1, 2, 3], unit="ms")
    half = 4.302653 / np.sqrt(3)  # t with 2 degrees of freedom; the standard deviation is 1
    assert (found.value, found.unit) == (2, "ms")
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-6)


def test_a_single_repetition_has_no_interval():
    assert stats.mean([2.5]) == stats.Estimate(2.5)


def test_ratios_are_averaged_as_logarithms():
    found = stats.geometric_mean([2, 0.5, 4, 0.25])
    assert found.value == pytest.approx(1) and found.low == pytest.approx(1 / found.high)
    wide = stats.geometric_mean([0.1, 10])
    assert 0 < wide.low < wide.value == pytest.approx(1)
    assert stats.geometric_mean([1, 1, 1]) == stats.Estimate(1, 1, 1)
    assert stats.geometric_mean([2.5]).value == pytest.approx(2.5) and stats.geometric_mean([2.5]).low is None


def test_the_medians_interval_is_made_of_order_statistics():
    found = stats.median(range(1, 21))
    assert (found.value, found.low, found.high) == (10.5, 6, 15)  # 5 or fewer of 20 coins: 2.07%
    assert (stats.median(range(6)).low, stats.median(range(6)).high) == (0, 5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=60))
@settings(deadline=None)
def test_the_medians_interval_holds_it_and_consists_of_measured_values(values):
    found = stats.median(values)
    assert found.low <= found.value <= found.high
    assert {found.low, found.high} <= set(values)


def test_the_medians_interval_covers_the_truth():
    drawn = np.random.default_rng(0).exponential(size=(1000, 31))
    found = [stats.median(values) for values in drawn]
    covered = np.mean([estimate.low <= np.log(2) <= estimate.high for estimate in found])
    assert covered >= 0.94


# --- refusals

RIGHT = share(5, 10)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: stats.proportion([]), r"correct is float64 of shape \(0,\)"),
        (lambda: stats.proportion(np.ones(3)), "correct is float64"),
        (lambda: stats.proportion(np.ones((2, 2, 2), bool)), r"correct is bool of shape \(2, 2, 2\)"),
        (lambda: stats.paired_difference(RIGHT.astype(int), RIGHT), "baseline is int64"),
        (lambda: stats.paired_difference(RIGHT, RIGHT.astype(int)), "candidate is int64"),
        (lambda: stats.paired_difference(RIGHT, RIGHT[:9]), r"baseline has shape \(10,\) and candidate \(9,\)"),
        (lambda: stats.mean([]), r"values=\[\]"),
        (lambda: stats.spread_ratio(RIGHT, RIGHT), "at least 3 seeds"),
        (lambda: stats.spread_ratio(np.stack([RIGHT] * 2), np.stack([RIGHT] * 2)), "at least 3 seeds"),
        (lambda: stats.geometric_mean([1, 0]), "values holds 0: ratios must be above 0"),
        (lambda: stats.mean(["fast"]), r"values=\['fast'\]"),
        (lambda: stats.mean([1, float("nan")]), r"values=\[1.0, nan\]"),
        (lambda: stats.median([1, 2, 3, 4, 5]), "values has 5 entries, too few for a 95% interval"),
        (lambda: stats.proportion(RIGHT, confidence=95), "confidence=95"),
        (lambda: stats.paired_difference(RIGHT, RIGHT, confidence=95), "confidence=95"),
        (lambda: stats.mean([1, 2], confidence=1.0), "confidence=1.0"),
        (lambda: stats.median(range(9), confidence=float("nan")), "confidence=nan"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_quantity_of_a_whole_set_has_the_interval_of_its_samples():
    """Of a mean, which needs no jackknife, it is that of Student's t; a difference is paired; a part is by itself."""
    random = np.random.default_rng(0)
    values = [random.normal(size=500), random.normal(0.2, 1, 500)]
    one, other = (stats.OfSet(500, lambda weights, of=of: weights @ of / weights.sum(axis=1)) for of in values)
    for found, wanted in (
        (stats.score(one), stats.mean(values[0])),
        (stats.score_difference(one, other), stats.mean(values[1] - values[0])),
    ):
        assert found.value == pytest.approx(wanted.value)
        assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.1)
    assert stats.score(one[np.arange(500) < 80]).value == pytest.approx(values[0][:80].mean())
    same = stats.score_difference(one, one)
    assert same.value == 0 and same.low < 0 < same.high
    single = one[np.arange(500) < 1]
    assert stats.score(single) == stats.Estimate(pytest.approx(values[0][0]), unit="share")
    assert stats.score_difference(single, single).low < -0.5  # one sample tells next to nothing


@pytest.mark.parametrize("apart", [-1.0, -0.5, -1e-12])
def test_two_that_always_differ_by_the_same_are_known_to_differ(apart):
    """Such as a detector that finds nothing, beside one that is always right."""
    before, after = (
        stats.OfSet(200, lambda weights, at=at: np.full(len(weights), at)) for at in (1.0, np.float64(1.0) + apart)
    )
    found = stats.score_difference(before, after)
    assert found.value == pytest.approx(apart) and -1 <= found.low <= found.value < found.high < apart + 0.02


def test_a_baseline_of_many_candidates_is_left_out_of_once():
    values, asked = np.random.default_rng(0).normal(size=(3, 90)), []

    def counted(number):
        return lambda weights: asked.append(number) or weights @ values[number] / weights.sum(axis=1)

    baseline, *candidates = (stats.OfSet(90, counted(number)) for number in range(3))
    first, second = (stats.score_difference(baseline, each) for each in candidates)
    assert stats.score_difference(baseline, candidates[0]) == first != second
    assert asked.count(0) == asked.count(1) == asked.count(2) == 2  # of all samples, and without each group


def test_real_scores_are_judged_by_students_t_with_their_skewness():
    random = np.random.default_rng(0)
    before, change = random.normal(size=400), -np.exp(random.normal(0, 1, 400)) / 10
    found, plain = stats.score_difference(before, before + change), stats.mean(change)
    assert found.value == pytest.approx(plain.value) and plain.value - found.low > found.high - plain.value
    alike = stats.score_difference(before, before)
    assert alike.value == 0 and alike.low < 0 < alike.high
    with pytest.raises(InputError, match="judge the same samples"):
        stats.score_difference(before, before[:9])


@pytest.mark.parametrize("n", [3, 10, 100])
def test_differences_that_are_alike_lie_in_their_interval(n):
    found = stats.score_difference(np.ones(n), np.zeros(n))
    assert found.low <= found.value <= found.high
    found = stats.score_difference(np.zeros(5), np.array([0.5, 0.6, 0.5, 0.6, 0.5]))
    assert found.low <= found.value <= found.high


def test_scores_that_differ_by_roundings_alone_have_an_interval():
    found = stats.score(np.array([1.0, 1 - 2**-53] * 50))
    assert found.low == pytest.approx(1) and found.high == pytest.approx(1)
