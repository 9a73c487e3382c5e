"""Quantiles of the distributions behind the intervals, and Wilson's interval, in plain Python: scipy would be more than a third of what a
gate installs, and of the time in which it starts. The tests hold each against scipy's."""

import functools
import math
import statistics
from fractions import Fraction

import numpy as np

MOST_TERMS, MOST_STEPS = 100_000, 200
MANY = 10_000  # degrees of freedom, from which three terms of a series leave an error of 1e-14
PRECISE = 1e-15  # relative, of a term that changes nothing any more
NEAR = 1e-8  # relative, of a step of Newton's behind which the next would be the square of it


def normal(p):
    """The p-quantile of the standard normal distribution, p in (0, 1): float."""
    return statistics.NormalDist().inv_cdf(p)


@functools.lru_cache(4096)
def student(p, freedom):
    """The p-quantile of Student's t with so many degrees of freedom, p in (0, 1), freedom above 0, not only whole ones: float.

    Newton's method on the distribution function, from the normal quantile: the function is concave above 0, so that the steps come
    nearer from one side."""
    if p < 0.5:
        return -student(1 - p, freedom)
    if p == 0.5:
        return 0.0
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    z = normal(p)
    if freedom >= MANY:  # Abramowitz and Stegun 1964, 26.7.5; logarithms of the gamma function cancel there
        first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + first / freedom + second / freedom**2 + third / freedom**3
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi * freedom) / 2
    t = z
    for _ in range(MOST_STEPS):
        density = math.exp(scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = ((1 - p) - beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2) / density
        t -= step
        if abs(step) < NEAR * t:
            break
    return t


def beta(a, b, x):
    """The regularized incomplete beta function I_x(a, b), for x in [0, 1]: float. By its continued fraction (Abramowitz and Stegun 1964,
    26.5.8), from the end where it converges fast, evaluated as Lentz (1976) does."""
    if x in (0, 1):
        return float(x)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    above, below = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    product = below
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = product
        for term in (even, odd):
            above, below = 1 + term / above, 1 / (1 + term * below)
            product *= above * below
        if abs(product / before - 1) < PRECISE:
            break
    return math.exp(front) * product / a


def wilson(successes, n, confidence):
    """Wilson's score interval of a share (Wilson 1927): (low, high) of `successes` of n."""
    z, share = normal((1 + confidence) / 2), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def of_median(values, confidence):
    """The interval of the median from order statistics, which holds whatever the distribution is: (low, high), or None for too few
    values. values: float (n,)."""
    n, ordered = len(values), np.sort(values)
    least, below, place = Fraction((1 - confidence) / 2) * 2**n, 0, 0
    while (
        below := below + math.comb(n, place)
    ) < least:  # of n values this many or fewer lie below the median too rarely
        place += 1
    return None if place == 0 else (float(ordered[place - 1]), float(ordered[n - place]))


def standard_error(values):
    """Of the mean of values, float (n,), n at least 2."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def skewness(values):
    """The third moment about the mean, in units of the standard deviation: float; 0 for values that are all the same, to rounding."""
    apart = values - values.mean()
    square = float((apart**2).mean())
    if square <= (np.finfo(float).eps * float(values.mean())) ** 2:
        return 0.0
    return float((apart**3).mean() / square**1.5)
