"""Factors that leave least noise: the derivatives are right, the minimum is one, and better than ranges made alike."""

import numpy as np
import pytest

from helpers.compress import tflite_noise
from helpers.compress.tflite_noise import Term

CHANNELS = 12


def term(seed, side, channels=CHANNELS):
    random = np.random.default_rng(seed)
    return Term(np.exp(random.normal(size=channels)), np.exp(2 * random.normal(size=channels)), side)


def total(terms, logs):
    return sum(each.value(logs)[0] for each in terms)


@pytest.mark.parametrize("side", [1, -1])
def test_derivatives(side):
    logs, each = np.random.default_rng(1).normal(size=CHANNELS), term(0, side)
    for at in range(CHANNELS):
        aside = [logs + sign * 1e-5 * (np.arange(CHANNELS) == at) for sign in (1, -1)]
        measured = (each.value(aside[0])[0] - each.value(aside[1])[0]) / 2e-5
        assert each.value(logs)[1][at] == pytest.approx(measured, rel=1e-4, abs=1e-9)


def test_a_factor_that_all_channels_share_changes_nothing():
    logs = np.random.default_rng(1).normal(size=CHANNELS)
    for side in (1, -1):
        assert term(0, side).value(logs + 3)[0] == pytest.approx(term(0, side).value(logs)[0])


def test_least_noise_is_less_than_that_of_ranges_made_alike():
    made, between, read = term(0, 1), term(1, 1), term(2, -1)
    terms = [made, between, read]
    found = tflite_noise.least(terms, CHANNELS) * np.log(2)
    alike = np.log(read.ranges / made.ranges) / 2
    assert total(terms, found) < 0.9 * min(total(terms, alike), total(terms, np.zeros(CHANNELS)))
    random = np.random.default_rng(3)
    for _ in range(50):  # nothing near it, or far, is better
        assert total(terms, found + random.normal(size=CHANNELS)) > 0.99 * total(terms, found)


def test_two_sides_alone_end_where_equation_11_says():
    """Weights all alike, nothing between: what makes and what reads get ranges that are alike."""
    ranges = np.exp(np.linspace(-3, 3, CHANNELS))
    terms = [Term(np.ones(CHANNELS), ranges, 1), Term(np.ones(CHANNELS), ranges[::-1], -1)]
    found = tflite_noise.least(terms, CHANNELS) * np.log(2)
    one, other = ranges * np.exp(found), ranges[::-1] / np.exp(found)
    assert np.ptp(np.log(one)) < 0.5 * np.ptp(np.log(ranges)) and np.allclose(
        np.log(one), np.log(other)[::-1], atol=0.2
    )


def test_what_carries_nothing_stays_where_it_is():
    nothing = Term(np.zeros(CHANNELS), np.zeros(CHANNELS), 1)
    assert not tflite_noise.least([nothing], CHANNELS).any()
    dead = np.arange(CHANNELS) > 0
    found = tflite_noise.least([Term(dead * 1.0, dead * 2.0, 1), Term(dead * 1.0, dead * 3.0, -1)], CHANNELS)
    assert abs(found[0]) < 0.5 and np.isfinite(found).all()
