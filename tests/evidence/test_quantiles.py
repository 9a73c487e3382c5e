"""Every quantile against scipy's, which the lab has but a gate need not have."""

import numpy as np
import pytest
from scipy import special
from scipy import stats as oracle

from helpers.evidence import quantiles

LEVELS = (0.001, 0.025, 0.3, 0.5, 0.75, 0.9, 0.975, 0.995, 0.99995)


@pytest.mark.parametrize("p", LEVELS)
def test_the_normal_quantile(p):
    assert quantiles.normal(p) == pytest.approx(oracle.norm.ppf(p), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("freedom", [0.8, 1, 1.5, 2, 2.7, 3, 4, 9, 29.3, 199, 999, 9_999, 10_000, 1_000_000])
def test_the_quantile_of_t(freedom):
    found = [quantiles.student(p, freedom) for p in LEVELS]
    assert found == pytest.approx(oracle.t.ppf(LEVELS, freedom), rel=1e-10, abs=1e-15)


def test_the_incomplete_beta_function():
    a, b, x = np.meshgrid([0.5, 1, 3.3, 50, 4_000], [0.5, 2, 17, 900], [0, 1e-6, 0.2, 0.5, 0.77, 0.999, 1])
    found = [quantiles.beta(*each) for each in zip(a.ravel(), b.ravel(), x.ravel(), strict=True)]
    assert found == pytest.approx(special.betainc(a, b, x).ravel(), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 1_000, 60_000])
@pytest.mark.parametrize("share", [0, 0.03, 0.5, 0.9, 1])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_interval_of_wilson(n, share, confidence):
    successes = round(share * n)
    wanted = oracle.binomtest(successes, n).proportion_ci(confidence, "wilson")
    assert quantiles.wilson(successes, n, confidence) == pytest.approx((wanted.low, wanted.high), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_interval_of_the_median(confidence):
    for n in [*range(1, 40), 60, 101, 3_001]:
        values = np.random.default_rng(n).normal(size=n)
        test = oracle.quantile_test(values, q=float(np.median(values)), p=0.5)
        wanted, found = test.confidence_interval(confidence), quantiles.of_median(values, confidence)
        if found is None:
            assert np.isnan(wanted.low) or np.isnan(wanted.high), n
        else:
            assert found == (wanted.low, wanted.high), n


def test_spread_and_skewness():
    values = np.random.default_rng(0).exponential(size=37)
    assert quantiles.standard_error(values) == pytest.approx(oracle.sem(values), rel=1e-14)
    assert quantiles.skewness(values) == pytest.approx(oracle.skew(values), rel=1e-13)
    assert quantiles.skewness(np.full(9, 0.1)) == 0.0
