"""Verdicts: a bound is judged by its whole interval, conditions combine as the rules say, and a rule is fixed by its hash."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base.errors import InputError
from helpers.evidence import verdicts
from helpers.evidence.stats import Estimate
from helpers.evidence.verdicts import (
    AT_LEAST,
    AT_MOST,
    CONFIRMED,
    DEPENDS,
    NOT_TESTABLE,
    REFUTED,
    UNDECIDED,
    Bound,
    Claim,
    Need,
)

SIDES = (AT_LEAST, AT_MOST)


def between(low, high, trainings=None):
    return Estimate((low + high) / 2, low, high, "", trainings)


def bound(number, side=AT_LEAST, margin=0.0, **more):
    return Bound(number, f"the {number}", side, margin, "a reason", **more)


def claim(*numbers, can=False, **more):
    """A claim with a condition for each number, each at least 0."""
    return Claim("here", "it holds", {f"in {number}": (bound(number),) for number in numbers}, can, **more)


# --- one bound


@pytest.mark.parametrize(
    "side, low, high, outcome",
    [
        (AT_LEAST, 0.2, 0.4, True),
        (AT_LEAST, 0.2, 0.2, True),
        (AT_LEAST, 0.1, 0.2, None),  # an end on the margin: the interval holds it
        (AT_LEAST, 0.1, 0.1999, False),
        (AT_LEAST, 0.1, 0.3, None),
        (AT_MOST, 0.1, 0.2, True),
        (AT_MOST, 0.2, 0.4, None),
        (AT_MOST, 0.2001, 0.4, False),
        (AT_MOST, 0.1, 0.3, None),
    ],
)
def test_a_bound_is_judged_by_its_whole_interval(side, low, high, outcome):
    found, told = bound("x", side, 0.2).outcome({"x": between(low, high)})
    assert found is outcome
    assert told.endswith({True: "holds", False: "fails", None: "open"}[outcome])


@pytest.mark.parametrize("side, value, outcome", [(AT_LEAST, 1, True), (AT_LEAST, 0.99, False), (AT_MOST, 1.01, False)])
def test_a_number_without_an_interval_is_exact(side, value, outcome):
    assert bound("x", side, 1).outcome({"x": Estimate(value)})[0] is outcome


def test_a_bound_is_open_on_too_few_trainings():
    over_five = bound("x", trainings=5)
    for trainings in (None, 1, 4):
        found, told = over_five.outcome({"x": between(0.5, 1, trainings)})
        assert found is None and "it takes 5 trainings" in told
    assert over_five.outcome({"x": between(0.5, 1, 5)})[0] is True


def test_a_bound_is_open_where_what_it_needs_is_missing():
    needy = bound("x", needs=(Need("lost", 0.01, "there is too little to win"),))
    found, told = needy.outcome({"x": between(0.5, 1), "lost": between(0.0, 0.009)})
    assert found is None and "open, there is too little to win" in told
    assert needy.outcome({"x": between(0.5, 1), "lost": Estimate(0.01)})[0] is True


# --- a claim

TRUE, FALSE, OPEN = between(1, 2), between(-2, -1), between(-1, 1)


@pytest.mark.parametrize(
    "first, second, everywhere, somewhere",
    [
        (TRUE, TRUE, CONFIRMED, CONFIRMED),
        (TRUE, FALSE, DEPENDS, CONFIRMED),
        (FALSE, FALSE, REFUTED, REFUTED),
        (TRUE, OPEN, UNDECIDED, CONFIRMED),
        (FALSE, OPEN, UNDECIDED, UNDECIDED),
        (OPEN, OPEN, UNDECIDED, UNDECIDED),
    ],
)
def test_conditions_combine(first, second, everywhere, somewhere):
    for one, other in ((first, second), (second, first)):
        numbers = {"a": one, "b": other}
        assert claim("a", "b").judge(numbers)[0] == everywhere
        assert claim("a", "b", can=True).judge(numbers)[0] == somewhere


def test_depends_names_both_conditions_with_their_numbers():
    verdict, because = claim("a", "b").judge({"a": TRUE, "b": FALSE})
    assert verdict == DEPENDS
    assert because == (
        "in a: the a 1.5 [1, 2], claimed at least 0: holds; in b: the b -1.5 [-2, -1], claimed at least 0: fails"
    )


@pytest.mark.parametrize("second, verdict", [(TRUE, CONFIRMED), (FALSE, REFUTED), (OPEN, UNDECIDED)])
def test_the_bounds_of_a_condition_hold_together(second, verdict):
    both = Claim("here", "it holds", {"": (bound("a"), bound("b"))})
    assert both.judge({"a": TRUE, "b": second})[0] == verdict


def test_what_is_needed_makes_a_claim_testable():
    asked = claim("a", needs=(Need("arm", 1, "this is no ARM processor"),))
    assert asked.judge({"a": TRUE, "arm": Estimate(0)}) == (NOT_TESTABLE, "this is no ARM processor")
    assert asked.judge({"a": TRUE, "arm": Estimate(1)})[0] == CONFIRMED


def test_a_claim_without_conditions_says_what_would_test_it():
    asked = Claim("here", "it holds", test_by="a GPU", beside=(("size", "the file has", "kB"),))
    assert asked.judge({"size": Estimate(2000)}) == (NOT_TESTABLE, "the file has 2 kB; a GPU")
    assert asked.rule() == "not testable here: a GPU"


# --- what intervals promise

ends = st.floats(-1, 1)


def around(truth, draw):
    """An interval that holds the truth, and one within it that does too."""
    outer = truth - abs(draw[0]), truth + abs(draw[1])
    inner = truth - abs(draw[0]) * draw[2], truth + abs(draw[1]) * draw[2]
    return Estimate(truth, *outer), Estimate(truth, *inner)


@given(
    st.lists(
        st.tuples(ends, st.sampled_from(SIDES), ends, st.tuples(ends, ends, st.floats(0, 1))), min_size=1, max_size=4
    ),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_more_data_never_turn_undecided_into_a_wrong_verdict(drawn, can, together):
    """Where every interval holds the truth, a verdict is that of the truth or undecided, and a decided one stays."""
    bounds = {str(place): bound(str(place), side, margin) for place, (_, side, margin, _) in enumerate(drawn)}
    conditions = {"": tuple(bounds.values())} if together else {f"in {name}": (it,) for name, it in bounds.items()}
    asked = Claim("here", "it holds", conditions, can)
    truths = {str(place): Estimate(truth) for place, (truth, *_) in enumerate(drawn)}
    pairs = {str(place): around(truth, draw) for place, (truth, _, _, draw) in enumerate(drawn)}
    true = asked.judge(truths)[0]
    few = asked.judge({name: pair[0] for name, pair in pairs.items()})[0]
    more = asked.judge({name: pair[1] for name, pair in pairs.items()})[0]
    assert few in (true, UNDECIDED)
    assert more in (true, few)


# --- the catalogue


def example(asked, holds):
    """Numbers on the claim's side of every margin, plainly, or on the other side."""
    numbers = {name: Estimate(1.0, trainings=5) for name in asked.numbers}
    for need in asked.needs:
        numbers[need.number] = Estimate(need.at_least)
    for together in asked.conditions.values():
        for it in together:
            numbers |= {need.number: Estimate(need.at_least) for need in it.needs}
            sign = (1 if it.side == AT_LEAST else -1) * (1 if holds else -1)
            far = it.margin + sign * (abs(it.margin) + 1)
            numbers[it.number] = Estimate(far, far - 0.1, far + 0.1, trainings=5)
    return numbers


@pytest.mark.parametrize("name", verdicts.catalogue())
def test_every_rule_can_confirm_and_refute(name):
    asked = verdicts.catalogue()[name]
    if not asked.conditions:
        assert asked.judge(example(asked, True))[0] == NOT_TESTABLE and asked.test_by
        return
    for holds, verdict in ((True, CONFIRMED), (False, REFUTED)):
        table = verdicts.judge(example(asked, holds), name)
        assert table.loc[name, "verdict"] == verdict
        assert table.loc[name, "statement"] == asked.statement


@pytest.mark.parametrize("name", verdicts.catalogue())
def test_a_rule_in_words_names_each_number_side_margin_and_reason(name):
    asked = verdicts.catalogue()[name]
    told = asked.rule()
    for together in asked.conditions.values():
        for it in together:
            assert f"`{it.number}`) is {it.side} {it.margin_told()} ({it.why})" in told
            value = it.margin_told().split()[0].replace(",", "").rstrip("%")
            shown = {"points": 0.01, "kB": 1e3}.get(it.form, 0.01 if it.form.endswith("%") else 1)
            assert float(value) * shown == pytest.approx(it.margin), "its words round the margin away"
    assert asked.section and asked.statement


class Watched(dict):
    """A mapping that remembers which of its entries were read."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def test_judging_reads_the_numbers_it_needs_and_no_others():
    asked = verdicts.catalogue()["C10"]
    numbers = Watched({"other": None} | example(asked, True))
    verdicts.judge(numbers, "C10")
    assert numbers.read == set(asked.numbers)


def test_several_claims_are_judged_in_the_order_asked():
    numbers = example(verdicts.catalogue()["C22a"], False) | example(verdicts.catalogue()["C01"], True)
    table = verdicts.judge(numbers, "C22a", "C01")
    assert table["verdict"].to_dict() == {"C22a": REFUTED, "C01": CONFIRMED}
    assert verdicts.judge(numbers).empty


def test_an_unknown_claim_lists_the_known_ones():
    with pytest.raises(InputError, match="claim='C99' is unknown: there are C01, C02"):
        verdicts.judge({}, "C99")


def test_missing_numbers_are_listed():
    with pytest.raises(InputError, match=r"claim C01 needs the numbers delta_top1.pruned, sparsity.kernel, which"):
        verdicts.judge({}, "C01")


def hinted():
    """Time decides it, on the right machine; instructions are a hint."""
    need = Need("machine", 1, "this is another machine")
    time = dataclasses.replace(bound("time", margin=2.5), needs=(need,))
    more = {"hints": (bound("count", margin=2.5),), "beside": (("size", "its size", ".1f"),)}
    return Claim("here", "it is fast", {"": (time,)}, **more)


def test_a_number_may_be_missing_where_its_need_is_not_met():
    asked = hinted()
    assert asked.missing({}) == ["time", "machine"] and asked.missing({"machine": Estimate(1.0)}) == ["time"]
    assert asked.missing({"machine": Estimate(0.0)}) == []
    verdict, because = asked.judge({"machine": Estimate(0.0)})
    assert verdict == UNDECIDED and because == "the time, claimed at least 2.5: open, this is another machine"


@pytest.mark.parametrize(
    ("count", "told"), [(3.0, "speaks for the claim"), (1.7, "speaks against it"), (None, "says neither")]
)
def test_a_hint_is_told_and_decides_nothing(count, told):
    hint = {"count": between(2.0, 3.0) if count is None else Estimate(count)}
    verdict, because = hinted().judge({"machine": Estimate(0.0), **hint})
    assert verdict == UNDECIDED and because.endswith(f"claimed at least 2.5, {told}"), because
    for time, wanted in ((3.0, CONFIRMED), (2.0, REFUTED)):
        numbers = {"machine": Estimate(1.0), "time": Estimate(time), "size": Estimate(4.0), **hint}
        verdict, because = hinted().judge(numbers)
        assert verdict == wanted and told in because and "its size 4.0" in because
    assert "A hint that decides nothing: the count (`count`) at least 2.5 (a reason)." in hinted().rule()


# --- fixed before the data


def test_the_hash_is_of_everything_that_a_rule_says():
    asked = claim("a", needs=(Need("arm", 1, "none"),))
    changed = [
        dataclasses.replace(asked, statement="it does not"),
        dataclasses.replace(asked, can=True),
        dataclasses.replace(asked, needs=()),
        dataclasses.replace(asked, hints=(bound("c"),)),
        *(
            dataclasses.replace(asked, conditions={"in a": (dataclasses.replace(bound("a"), **{field: value}),)})
            for field, value in {
                "margin": 0.001,
                "side": AT_MOST,
                "why": "another",
                "number": "b",
                "trainings": 5,
            }.items()
        ),
    ]
    assert len({asked.hash, *(it.hash for it in changed)}) == 1 + len(changed)
    assert asked.hash == claim("a", needs=(Need("arm", 1, "none"),)).hash
