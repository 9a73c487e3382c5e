"""How far two models' outputs are apart."""

import numpy as np
import pytest

from helpers.compress import affine
from helpers.evidence import stats
from helpers.tflite import scoring

RANDOM = np.random.default_rng(0)
EXACT = {"a": RANDOM.normal(size=(50, 3)), "b": 100 * RANDOM.normal(size=(50, 2, 2))}


def test_sqnr_is_that_of_the_worst_output():
    found = {"a": EXACT["a"] + 0.1 * RANDOM.normal(size=(50, 3)), "b": EXACT["b"] + RANDOM.normal(size=(50, 2, 2))}
    ratio = stats.score(scoring.sqnr(EXACT, found))
    assert ratio.value == pytest.approx(min(affine.sqnr(EXACT[name], found[name]) for name in EXACT), abs=1e-6)
    assert ratio.low < ratio.value < ratio.high


def test_equal_outputs_have_no_noise_and_dead_ones_nothing_else():
    assert scoring.sqnr(EXACT, EXACT).of(np.ones((1, 50)))[0] == 150
    dead = {name: np.zeros_like(of) for name, of in EXACT.items()}
    assert scoring.sqnr(EXACT, dead).of(np.ones((1, 50)))[0] == pytest.approx(0)


def test_noise_is_in_units_of_the_variance():
    exact = RANDOM.normal(5, 2, (4000, 3))
    assert scoring.noise(exact, exact + 2).mean() == pytest.approx(1, rel=0.1)
    assert scoring.noise(exact, exact).tolist() == [0] * 4000
    constant = np.ones((3, 2))
    assert scoring.noise(constant, constant).tolist() == [0, 0, 0]
    assert scoring.noise(2 * constant, 3 * constant).tolist() == [0.25] * 3  # of the square, where nothing varies
    assert scoring.noise(0 * constant, constant).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1001])
def test_no_sample_is_given_to_itself(n):
    found = scoring.others(n)
    assert sorted(found) == list(range(n)) and (n == 1 or (found != np.arange(n)).all())


def test_an_output_that_stays_silent_has_no_noise():
    silent, heard = np.zeros((9, 3), "float32"), np.ones((9, 3), "float32")
    assert stats.score(scoring.sqnr({"out": silent}, {"out": silent})).value == 150
    assert stats.score(scoring.sqnr({"out": silent}, {"out": heard})).value == -150
    assert stats.score(
        scoring.sqnr({"out": heard, "rare": silent}, {"out": heard + 0.1, "rare": silent})
    ).value == pytest.approx(20, abs=1e-4)
