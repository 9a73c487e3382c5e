"""Verdicts: each rule reaches each of its verdicts, turns where it says it does, and reads only the numbers it names."""

import re

import pytest

from helpers.base.errors import InputError
from helpers.evidence import verdicts
from helpers.evidence.stats import Estimate
from helpers.evidence.verdicts import CONFIRMED, DEPENDS, NOT_TESTABLE, REFUTED


def about(value, half=0.005):
    return Estimate(value, value - half, value + half)


def between(low, high):
    return Estimate((low + high) / 2, low, high)


# claim, its numbers in the order of `needs`, the verdict, what the reason must say
CASES = [
    ("C01", [between(-0.02, 0.01), 0.8], CONFIRMED, "80% sparsity costs 0.5 points .* at most the 2 points"),
    ("C01", [between(-0.05, -0.021), 0.8], REFUTED, "costs 3.6 points .*2.1 to 5.0.* more than the 2 points"),
    ("C01", [between(-0.05, -0.02), 0.8], DEPENDS, "judge on more test images"),
    ("C01", [between(-0.021, 0.01), 0.8], DEPENDS, "judge on more test images"),
    ("C02", [between(-0.4, -0.051), *[between(0.001, 0.02)] * 3], CONFIRMED, "costs 23 points"),
    ("C02", [between(-0.05, 0.0), *[between(-0.02, 0.0)] * 3], REFUTED, "costs 2 points"),
    ("C02", [between(-0.4, -0.051), *[between(0.0, 0.02)] * 3], DEPENDS, "training decides, not the ramp"),
    ("C02", [between(-0.4, -0.051), between(0.001, 0.02), *[between(0.0, 0.02)] * 2], DEPENDS, "gains 1.1 points"),
    ("C02", [between(-0.05, 0.0), *[between(0.001, 0.02)] * 3], DEPENDS, "harder target"),
    ("C04", [0.0, 0.0, 1.0, about(1.0)], REFUTED, "does not convert"),
    ("C04", [1.0, 1.0, 1.1, between(0.901, 1.0)], CONFIRMED, "100% of its answers"),
    ("C04", [1.0, 1.0, 1.11, between(0.901, 1.0)], DEPENDS, "1.1 times as large.*call strip_pruning first"),
    ("C04", [1.0, 1.0, 1.0, between(0.7, 0.89)], DEPENDS, "slower"),
    ("C05", [1.0, 800, 400, between(0.9, 1.19), between(1.21, 2)], CONFIRMED, "2.0 times.*only whole blocks run"),
    ("C05", [1.0, 800, 400, between(0.9, 1.09), between(1.1, 2)], CONFIRMED, "is that of the dense model$"),
    ("C05", [1.0, 800, 401, between(0.9, 1.09), between(1.11, 2)], DEPENDS, "1.00 times the dense file"),
    ("C05", [1.0, 800, 400, between(0.9, 1.21), between(1.21, 2)], DEPENDS, "gzip shrinks it 2.0 times"),
    ("C05", [1.0, 800, 400, between(0.7, 0.9), between(1.21, 2)], DEPENDS, "gzip shrinks it"),
    ("C05", [1.0, 800, 400, between(1.21, 1.3), between(1.21, 2)], REFUTED, "it runs faster"),
    ("C21a", [0.049, 0.051, between(-0.019, 0.0)], CONFIRMED, "5 points short.*was not measured"),
    ("C21a", [0.05, 0.3, between(-0.019, 0.0)], DEPENDS, "within 5 points"),
    ("C21a", [0.0, 0.05, between(-0.019, 0.0)], DEPENDS, "5 points short"),
    ("C21a", [0.0, 0.3, between(-0.02, 0.0)], DEPENDS, "-1.0 points"),
    ("C22a", [1.0], REFUTED, "NameError"),
    ("C22a", [0.0], CONFIRMED, "as printed"),
    ("C22b", [between(-0.05, -0.011)], REFUTED, "it takes logits for probabilities"),
    ("C22b", [between(-0.009, 0.01)], CONFIRMED, "the printed loss costs -0.1 points"),
    ("C22b", [between(-0.05, -0.01)], DEPENDS, "the printed loss costs 3.0 points"),
    ("C07", [100, 27, 1000, 270], CONFIRMED, "0.27 of float32's bytes for MobileNetV2, 0.27 for the MLP"),
    ("C07", [100, 31, 1000, 310], REFUTED, "0.31 of float32's bytes"),
    ("C07", [100, 28, 1000, 250], DEPENDS, "spends the rest on scales"),
    ("C07", [100, 30, 1000, 310], DEPENDS, "spends the rest on scales"),
    ("C08", [between(-0.02, 0.0), 600, 0.01], CONFIRMED, "costs 1.0 points .* without training"),
    ("C08", [between(-0.02, 0.0), 601, 0.0], REFUTED, "without training"),
    ("C08", [between(-0.06, -0.021), 9, 0.0], REFUTED, "costs 4.0 points"),
    ("C08", [between(-0.021, 0.0), 9, 0.0], DEPENDS, "2.1"),
    ("C08", [between(-0.02, 0.0), 9, -0.011], DEPENDS, "the largest set is -1.1 points away"),
    ("C09a", [between(-0.1, -0.051)], CONFIRMED, "costs 7.5 points"),
    ("C09a", [between(-0.1, -0.05)], DEPENDS, "its own scale"),
    ("C10", [between(-0.01, 0.0), between(-0.01, 0.02)], CONFIRMED, r"minus float32: -0.5 points .*-1\.0 to \+0\.0"),
    ("C10", [between(-0.03, -0.011)] * 2, REFUTED, "-2.0 points"),
    ("C10", [between(-0.011, 0.0), between(0.0, 0.02)], DEPENDS, r"\+1\.0$"),
    ("C10", [between(-0.03, -0.011), between(-0.03, -0.01)], DEPENDS, "-2.0"),
    ("C11", [between(2.5, 3.0), 0.0], NOT_TESTABLE, "no ARM processor"),
    ("C11", [between(2.5, 3.0), 1.0], CONFIRMED, "at least 2.5 times"),
    ("C11", [between(2.0, 2.49), 1.0], REFUTED, "less than 2.5 times"),
    ("C11", [between(2.4, 2.6), 1.0], DEPENDS, "time more rounds"),
    ("C09b", [between(-0.77, -0.73), between(-0.01, 0.002)], CONFIRMED, "costs 75.0 points"),
    ("C09b", [between(-0.06, -0.04), between(-0.01, 0.002)], DEPENDS, "costs 5.0 points"),
    ("C09b", [between(-0.05, -0.01), between(-0.01, 0.002)], REFUTED, "costs 3.0 points"),
    ("C13", [between(0.01, 0.02), between(-0.01, 0.01)], CONFIRMED, "1.5 points"),
    ("C13", [between(-0.01, 0.02), between(-0.01, 0.01)], DEPENDS, "0.5 points"),
    ("C13", [between(-0.02, -0.01), between(-0.01, 0.01)], REFUTED, "-1.5 points"),
    ("C12", [0.98, 0.97, 0.96], CONFIRMED, "98.0% of float32's accuracy, the full rate at 97.0%"),
    ("C12", [0.979, 0.99, 0.99], REFUTED, "97.9%"),
    ("C17", [0.5, about(0.0)], NOT_TESTABLE, "halves the file .0.50."),
    ("C20", [about(0.0), about(-0.1), about(-0.1)], CONFIRMED, r"float16 \+0\.0, int8 -10\.0"),
    ("C20", [about(-0.006), about(-0.1), about(-0.1)], REFUTED, "-0.6"),
    ("C20", [about(-0.1), about(-0.1), between(-0.02, 0.01)], DEPENDS, "too wide to exclude a loss"),
    (
        "C06",
        [about(2), about(1), about(1.5), 60, 100],
        CONFIRMED,
        r"\(60% of the multiply-accumulates\).*1.50 times as fast",
    ),
    ("C06", [about(1.1), about(1), about(1.1), 60, 100], REFUTED, "1.10 times as fast"),
    ("C06", [about(2), about(1), between(1.1, 1.5), 60, 100], DEPENDS, "1.10 to 1.50"),
    ("C06", [about(2), about(1.9), about(1.5), 60, 100], DEPENDS, "single weights removed 1.90 times"),
    ("C18", [102e6, 9.3e6, about(8), about(4), about(-0.01)], CONFIRMED, r"102 MB \(97 MiB\) become 9.3 MB.*8.0 times"),
    ("C18", [102e6, 9.3e6, about(8), about(3), about(-0.01)], DEPENDS, "3.0 times as fast as float32 in XNNPACK"),
    ("C18", [102e6, 9.3e6, about(8), about(4), about(-0.05)], DEPENDS, "costs a trained ResNet-8 5.0 points"),
    ("C18", [102e6, 12e6, about(8), about(4), about(0.0)], REFUTED, "become 12.0 MB"),
    ("C18", [102e6, 9.3e6, about(3), about(2), about(0.0)], REFUTED, "3.0 times"),
    ("C14", [53, *[between(1, 5)] * 6], CONFIRMED, "of 53 layers"),
    ("C14", [53, *[between(1, 5)] * 3, *[between(6, 30)] * 3], REFUTED, "classifier number 18 .6, 30."),
    ("C14", [53, *[between(1, 7)] * 3, *[between(5, 30)] * 3], DEPENDS, "number 4 .1, 7."),
    ("C15", [between(0.002, 0.01)] * 4, CONFIRMED, r"worth \+0.6 points"),
    ("C15", [between(-0.01, 0.0)] * 4, REFUTED, "-0.5 points .-1.0, .0.0. with 4-bit weights"),
    ("C15", [between(0.001, 0.01), *[between(-0.01, 0.0)] * 3], DEPENDS, "in QAT"),
    (
        "C16",
        [1.0, between(0.001, 0.01), about(0.0)],
        CONFIRMED,
        "trainable=False, which most would write, does not freeze",
    ),
    ("C16", [0.0, between(-0.01, 0.009), about(0.0)], REFUTED, "one point is excluded"),
    ("C16", [0.0, between(-0.01, 0.01), about(0.0)], DEPENDS, r"-1.0 to \+1.0"),
    ("C21b", [between(-0.8, -0.7), between(-0.07, 0.0)], CONFIRMED, "falls at one layer.*was not measured"),
    ("C21b", [between(-0.8, -0.7), between(-0.08, 0.0)], DEPENDS, "costs 75 points"),
    ("C19", [0, 2, 1, 1, 1, 0, 30], CONFIRMED, "in 30 s .* asks for more; of 3 planted faults it rejects 3"),
    ("C19", [0, 2, 1, 1, 0, 0, 30], REFUTED, "rejects 2"),
    ("C19", [0, 0, 1, 1, 1, 2, 30], REFUTED, "decides nevertheless.*fail 2 times"),
    ("C19", [2, 2, 1, 1, 1, 0, 30], DEPENDS, "in 30 s"),
    ("C19", [0, 2, 1, 1, 1, 0, 121], DEPENDS, "in 121 s"),
    ("C03", [0.0, 1.0], CONFIRMED, "no mask was updated; .* error that names the callback"),
    ("C03", [0.0, 0.0], CONFIRMED, "without a word"),
    ("C03", [0.01, 0.0], REFUTED, "still reached 1% zeros"),
]


def named(claim, values):
    return dict(zip(verdicts.catalogue()[claim].needs, values, strict=True))


@pytest.mark.parametrize("claim, values, verdict, because", CASES)
def test_each_rule_turns_where_it_says(claim, values, verdict, because):
    table = verdicts.judge(named(claim, values), claim)
    assert table.index.tolist() == [claim]
    assert table.loc[claim, "statement"] == verdicts.catalogue()[claim].statement
    assert table.loc[claim, "verdict"] == verdict
    assert re.search(because, table.loc[claim, "because"])


def test_the_cases_cover_every_claim():
    missing = verdicts.catalogue().keys() - {claim for claim, *_ in CASES}
    assert not missing, "add cases for each verdict of their rules"


class Watched(dict):
    """A mapping that remembers which of its entries were read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("claim, values, verdict, because", CASES)
def test_judging_reads_the_numbers_it_needs_and_no_others(claim, values, verdict, because):
    needed = named(claim, values)
    others = {need: None for other in verdicts.catalogue().values() for need in other.needs} | {"top1.float32": None}
    numbers = Watched(others | needed)
    assert verdicts.judge(numbers, claim).loc[claim, "verdict"] == verdict
    assert numbers.read == set(needed)


def test_several_claims_are_judged_in_the_order_asked():
    numbers = named("C22a", [1.0]) | named("C01", [between(-0.02, 0.01), 0.8])
    table = verdicts.judge(numbers, "C22a", "C01")
    assert table["verdict"].to_dict() == {"C22a": REFUTED, "C01": CONFIRMED}
    assert verdicts.judge(numbers).empty


def test_a_float_is_exact():
    assert verdicts.judge(named("C01", [-0.02, 0.8]), "C01").loc["C01", "verdict"] == CONFIRMED
    assert verdicts.judge(named("C01", [-0.0201, 0.8]), "C01").loc["C01", "verdict"] == REFUTED


def test_an_unknown_claim_lists_the_known_ones():
    with pytest.raises(InputError, match="claim='C99' is unknown: there are C01, C02"):
        verdicts.judge({}, "C99")


@pytest.mark.parametrize("claim", verdicts.catalogue())
def test_missing_numbers_are_listed(claim):
    needs = verdicts.catalogue()[claim].needs
    with pytest.raises(InputError) as refused:
        verdicts.judge({needs[0]: 1.0}, claim) if len(needs) > 1 else verdicts.judge({}, claim)
    assert f"claim {claim} needs the numbers" in str(refused.value)
    assert all(need in str(refused.value) for need in needs[1:])
