"""Checks and numbers of every kind of task, from answers alone."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.deploy import answers
from helpers.deploy import policy as limits
from helpers.deploy.policy import FAIL, PASS, UNDECIDED, Policy
from helpers.tflite import heads
from helpers.tflite.heads import Purpose

N = 400
RANDOM = np.random.default_rng(0)
Y = RANDOM.normal(size=N)
BEFORE = {"out": (Y + 0.2 * RANDOM.normal(size=N))[:, None].astype("float32")}


def after(noise):
    return {"out": (BEFORE["out"] + noise * RANDOM.normal(size=(N, 1))).astype("float32")}


def outcomes(candidate, policy, y=Y, slices=None, before=BEFORE):
    [head] = heads.heads(before, y)
    checks, measured = answers.compared(head, candidate, slices, policy)
    return {check.name: check.outcome for check in checks}, measured, checks


def test_a_regression_is_judged_by_its_coefficient_of_determination():
    found, measured, _ = outcomes(after(0.02), Policy(max_drop=0.02))
    assert found == {"R² drop": PASS} and measured["r2.baseline"].value == pytest.approx(0.96, abs=0.01)
    assert set(measured) == {"r2.baseline", "r2.candidate", "delta_r2"}
    assert outcomes(after(0.5), Policy(max_drop=0.02))[0] == {"R² drop": FAIL}


def test_what_is_undecided_says_how_many_more_would_decide():
    found, _, [check] = outcomes(after(0.14), Policy(max_drop=0.02))
    assert found == {"R² drop": UNDECIDED} and "more examples would decide" in check.because


def test_without_labels_the_damage_is_measured_too():
    found, measured, _ = outcomes(after(0.02), Policy(max_drop=0.02, min_sqnr=20, max_damage=0.01), y=None)
    assert found == {"R² drop": PASS, "SQNR": PASS, "damage": PASS}
    assert measured["sqnr"].value == pytest.approx(34, abs=1) and measured["r2.baseline"].value == 1
    assert measured["damage"].value == pytest.approx(-measured["delta_r2"].value, rel=0.01)
    found, *_ = outcomes(after(0.3), Policy(max_drop=None, min_sqnr=20, max_damage=0.01), y=None)
    assert found == {"SQNR": FAIL, "damage": FAIL}


def test_a_detector_that_finds_nothing_is_rejected_without_labels():
    corners = 30.0 * np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(16, 2)
    boxes = np.tile(np.hstack([corners, corners + 20]), (200, 1, 1))
    before = {"out": np.concatenate([boxes, RANDOM.random((200, 16, 2))], -1).astype("float32")}
    [head] = heads.heads(before, None, Purpose("detection"))
    in_shares = {"out": before["out"] / np.array([320] * 4 + [1, 1], "float32")}
    for candidate, outcome in ((before, PASS), (in_shares, FAIL)):
        [check], _ = answers.compared(head, candidate, None, Policy(max_drop=0.02))
        assert check.outcome == outcome


@pytest.mark.parametrize("n", [1, 2, 50])
def test_a_number_that_is_always_the_same_is_judged_by_its_size(n):
    """Such as how many boxes a detector gives: it has no variance to be measured in."""
    before = {"out": np.full((n, 1), 21, "float32")}
    for factor, drop in ((1, 0), (1.01, 1e-4), (0, 1)):
        _, measured, _ = outcomes({"out": before["out"] * np.float32(factor)}, Policy(), None, before=before)
        assert measured["delta_r2"].value == pytest.approx(-drop, rel=1e-3)
        assert measured["damage"].value == pytest.approx(drop, rel=1e-3)


def test_one_sample_decides_nothing():
    one = {name: each[:1] for name, each in BEFORE.items()}
    asked = Policy(max_drop=None, min_sqnr=20, max_damage=0.01)
    found, _, checks = outcomes(one, asked, None, before=one)
    assert found == {"SQNR": UNDECIDED, "damage": UNDECIDED}
    assert all("one sample decides nothing" in check.because for check in checks)


def test_agreement_in_shares_needs_as_many_samples_as_agreement_in_answers():
    for n, outcome in ((1, UNDECIDED), (50, UNDECIDED), (500, PASS)):
        for same in (np.ones(n), np.ones(n, bool)):
            assert limits.agreement(same, 0.99).outcome == outcome
    assert limits.agreement(np.full(500, 0.9), 0.99).outcome == FAIL
    for same in ([0.9951, 0.9953], [0.95, 0.951]):  # however alike two are, a third may be none of it
        assert limits.agreement(np.array(same), 0.99).outcome == UNDECIDED


LOGITS = RANDOM.normal(size=(N, 5)).astype("float32")
ONE_CLASS = LOGITS + np.array([30, 0, 0, 0, 0], "float32")
PLACES = np.tile(ONE_CLASS[:, None, None], (1, 4, 4, 1))


@pytest.mark.parametrize(
    "before, y, asked",
    [
        (ONE_CLASS, None, None),
        (ONE_CLASS, np.zeros(N, int), None),  # all of them right
        (1 / (1 + np.exp(30 - LOGITS[:, :1])), None, "binary"),
        (PLACES, None, "segmentation"),
        (ONE_CLASS - 60, None, "multi-label"),
    ],
)
def test_samples_of_one_answer_decide_nothing(before, y, asked):
    """A file that looks at no sample would be accepted."""
    dead = np.repeat(before[:1], N, axis=0)
    [head] = heads.heads({"out": before}, y, Purpose(asked))
    checks, _ = answers.compared(head, {"out": dead}, None, Policy(max_drop=0.02))
    found = {check.name: check for check in checks}
    assert found.pop("samples tell").outcome == UNDECIDED and [each.outcome for each in found.values()] == [PASS]
    assert "give samples with other answers too" in checks[0].because
    of_size = Policy(max_drop=None, max_size=10**9)  # nothing is asked of the answers
    assert answers.compared(head, {"out": dead}, None, of_size)[0] == []
    more = before.copy()
    more[: N // 2] = (
        -more[: N // 2] if asked == "multi-label" else np.roll(more[: N // 2], 1, axis=-1) if asked != "binary" else 0.9
    )
    [head] = heads.heads({"out": more}, None, Purpose(asked))
    checks, _ = answers.compared(head, {"out": dead}, None, Policy(max_drop=0.02))
    assert [(check.name, check.outcome) for check in checks] == [(checks[0].name, FAIL)] and "drop" in checks[0].name


def test_the_worst_slice_of_numbers():
    slices = np.where(np.arange(N) < 100, "few", "many")
    worse = {
        "out": np.where(slices == "few", 1, 0)[:, None] * after(0.8)["out"]
        + (slices == "many")[:, None] * BEFORE["out"]
    }
    found, _, [check] = outcomes(worse, Policy(max_drop=None, max_slice_drop=0.1), slices=slices)
    assert found == {"worst slice drop": FAIL} and check.because.startswith("slice few: ")


def test_several_outputs_are_checked_each_by_itself():
    kind = RANDOM.integers(0, 3, N)
    before = {**BEFORE, "kind": (4 * np.eye(3)[kind] + RANDOM.normal(size=(N, 3))).astype("float32")}
    candidate = {"out": after(0.5)["out"], "kind": before["kind"]}
    checks, measured = [], {}
    for head in heads.heads(before, {"out": Y, "kind": kind}):
        more, numbers = answers.compared(head, candidate, None, Policy(max_drop=0.02))
        checks, measured = checks + more, measured | numbers
    assert {check.name: check.outcome for check in checks} == {"R² drop of out": FAIL, "accuracy drop of kind": PASS}
    assert {"r2.out.baseline", "delta_top1.kind", "agreement.kind"} <= set(measured)


@pytest.mark.parametrize(
    "policy, slices, message, cured",
    [
        (Policy(min_agreement=0.9), None, r"ask min_sqnr \(dB\) instead", Policy(min_sqnr=20)),
        (Policy(max_class_drop=0.1), None, "ask max_slice_drop, with an array `slice`", Policy(max_slice_drop=0.1)),
        (Policy(), np.zeros(3, int), "slice has 3 words for 400 samples: give one for each", Policy()),
    ],
)
def test_what_a_task_does_not_have_is_refused_with_a_cure_that_works(policy, slices, message, cured):
    with pytest.raises(InputError, match=message):
        outcomes(after(0.02), policy, slices=slices)
    assert set(outcomes(after(0.02), cured, slices=np.zeros(N, int))[0].values()) == {PASS}


def test_pairs_are_judged_a_pair_at_a_time():
    of = RANDOM.integers(0, 20, N)
    centres = RANDOM.normal(size=(20, 8))
    before = {"out": (centres[of] + 0.3 * RANDOM.normal(size=(N, 8))).astype("float32")}
    several = RANDOM.integers(0, N, (3000, 2))
    pairs = np.column_stack([several, of[several[:, 0]] == of[several[:, 1]]])
    [head] = heads.heads(before, pairs, Purpose("embedding"))
    noisy = {"out": before["out"] + 2 * RANDOM.normal(size=(N, 8)).astype("float32")}
    checks, measured = answers.compared(head, noisy, None, Policy(max_drop=0.02))
    assert measured["right.baseline"].value > 0.95 and checks[0].outcome == FAIL
