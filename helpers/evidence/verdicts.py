"""Claims and the verdicts on them. Nobody writes a verdict by hand: a rule computes it from recorded numbers.

A rule is data: numbers, the side of a margin on which each must lie, why that margin, and under which condition it was
measured. Each number is judged by its whole interval:

- on the claim's side of the margin: the bound holds; on the other side: it fails; the margin inside: it is open;
- a condition holds if all of its bounds hold, fails if one fails, and is open otherwise;
- a claim is *confirmed* if it holds under all conditions, *refuted* if it fails under all, *depends* if it holds under one and
  fails under another, *undecided* otherwise. Of a claim that something *can* happen one condition that holds is enough.

So an interval that holds the margin refutes nothing, and more data never turn *undecided* into the wrong verdict. The claims
stand in `claims`. The hash of a rule is recorded with the numbers: a verdict whose rule is younger than its numbers is marked.
"""

import dataclasses
import hashlib
import importlib
import json
from dataclasses import dataclass

import pandas as pd

from helpers.base.errors import InputError
from helpers.evidence import results
from helpers.evidence.language import ENGLISH
from helpers.evidence.stats import Estimate

CONFIRMED, REFUTED, UNDECIDED, DEPENDS = "confirmed", "refuted", "undecided", "depends"
NOT_TESTABLE = "not testable here"
VERDICTS = (CONFIRMED, REFUTED, DEPENDS, UNDECIDED, NOT_TESTABLE)
AT_LEAST, AT_MOST = "at least", "at most"
OVERRULING = "full"  # the profile whose verdict counts where it has judged: the same data as quick's, and all of them
_OUTCOMES = {True: "holds", False: "fails", None: "open"}


@dataclass(frozen=True)
class Need:
    """A number without which a bound, or a whole claim, is not judged. otherwise: what is said where it is smaller."""

    number: str
    at_least: float
    otherwise: str


@dataclass(frozen=True)
class Bound:
    """One comparison. number: its recorded name. told: what it is. side: of the margin on which the claim puts it. why: this
    margin. form: how both are told, as `Estimate` takes it. trainings: how many the number must rest on, else it is open."""

    number: str
    told: str
    side: str
    margin: float
    why: str
    form: str = ".3g"
    trainings: int = 0
    needs: tuple[Need, ...] = ()

    def lacks(self, numbers):
        """The first need that is not met, or None."""
        return next((need for need in self.needs if numbers[need.number].value < need.at_least), None)

    def outcome(self, numbers, language=ENGLISH):
        """True, False or None, which is open; and what to say of it. Where a need is not met the number may be missing."""
        found, lacks = numbers.get(self.number), self.lacks(numbers)
        claimed = self._claimed(found, language)
        why = ""
        if lacks:
            why = language.say(lacks.otherwise)
        elif (found.trainings or 0) < self.trainings:
            why = language.say("since it takes {trainings} trainings", trainings=self.trainings)
        if why:
            return None, language.say("{claimed}: open, {why}", claimed=claimed, why=why)
        low, high = (found.value, found.value) if found.low is None else (found.low, found.high)
        sign = 1 if self.side == AT_LEAST else -1
        nearest, farthest = sorted((sign * (low - self.margin), sign * (high - self.margin)))
        outcome = True if nearest >= 0 else False if farthest < 0 else None
        told = language.say("{claimed}: {outcome}", claimed=claimed, outcome=language.say(_OUTCOMES[outcome]))
        return outcome, told

    def hinted(self, numbers, language=ENGLISH):
        """What to say of it where it decides nothing."""
        outcome, _ = self.outcome(numbers)
        means = {True: "speaks for the claim", False: "speaks against it", None: "says neither"}[outcome]
        claimed = self._claimed(numbers[self.number], language)
        return language.say("{claimed}, {means}", claimed=claimed, means=language.say(means))

    def margin_told(self, language=ENGLISH):
        return language.number(Estimate(self.margin), self.form)

    def _claimed(self, found, language):
        told = language.say(self.told)
        if found is not None:
            told = language.say("{told} {number}", told=told, number=language.number(found, self.form))
        margin = self.margin_told(language)
        return language.say("{told}, claimed {side} {margin}", told=told, side=language.say(self.side), margin=margin)


@dataclass(frozen=True)
class Claim:
    """A statement of the article's, in our words, and the rule that judges it.

    section: where the article says it. conditions: under which it was measured -> the Bounds that must hold together.
    can: whether it says that something can happen. needs: without which it is not testable here. beside: numbers that are told
    with the reason and judge nothing, as (number, what it is, form). hints: what speaks for the claim or against it without deciding
    it. Numbers of both may be missing. test_by: what would test a claim without conditions.
    """

    section: str
    statement: str
    conditions: dict[str, tuple[Bound, ...]] = dataclasses.field(default_factory=dict)
    can: bool = False
    needs: tuple[Need, ...] = ()
    beside: tuple[tuple[str, str, str], ...] = ()
    test_by: str = ""
    hints: tuple[Bound, ...] = ()

    @property
    def numbers(self):
        """The names of all numbers that the rule reads, in its order."""
        bounds = [bound for together in self.conditions.values() for bound in together]
        needs = [*self.needs, *(need for bound in bounds for need in bound.needs)]
        names = [
            *(bound.number for bound in bounds),
            *(need.number for need in needs),
            *(each[0] for each in self.beside),
            *(hint.number for hint in self.hints),
        ]
        return tuple(dict.fromkeys(names))

    def missing(self, numbers):
        """Which of these are not among the numbers and would have to be."""
        bounds = [bound for together in self.conditions.values() for bound in together]
        asked = {need.number for each in (self, *bounds) for need in each.needs}
        if asked <= set(numbers):
            asked |= {bound.number for bound in bounds if not bound.lacks(numbers)}
        else:
            asked |= {bound.number for bound in bounds}
        return [name for name in self.numbers if name in asked and name not in numbers]

    @property
    def hash(self):
        """Of the statement and its rule, 16 hexadecimal digits: whatever is changed in them changes it."""
        content = dataclasses.asdict(self)
        if not self.hints:  # rules that were fixed before there were any keep their hash
            del content["hints"]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def judge(self, numbers, language=ENGLISH):
        """(verdict, because). numbers: name -> Estimate, of all that the rule reads. The verdict is one of VERDICTS in any language."""
        for need in self.needs:
            if numbers[need.number].value < need.at_least:
                return NOT_TESTABLE, language.say(need.otherwise)
        outcomes, reasons = [], []
        for where, bounds in self.conditions.items():
            found = [bound.outcome(numbers, language) for bound in bounds]
            each = [outcome for outcome, _ in found]
            outcomes.append(False if False in each else None if None in each else True)
            reasons.append(_under(where, [told for _, told in found], language))
        for number, told, form in self.beside:
            if number in numbers:
                shown = language.number(numbers[number], form)
                reasons.append(language.say("{told} {number}", told=language.say(told), number=shown))
        reasons += [hint.hinted(numbers, language) for hint in self.hints if hint.number in numbers]
        reasons += [language.say(self.test_by)] * bool(self.test_by)
        return self._verdict(set(outcomes)), language.say("; ").join(reasons)

    def rule(self, language=ENGLISH):
        """The rule in words, from which anybody can judge given the numbers."""
        say = language.say
        if not self.conditions:
            return say("not testable here: {test_by}", test_by=say(self.test_by))
        conditions = []
        for where, bounds in self.conditions.items():
            told = []
            for bound in bounds:
                told.append(say("{told} (`{number}`) is {side} {margin} ({why})", **_parts(bound, language)))
                if bound.trainings:
                    told[-1] += say(", over {trainings} trainings or more", trainings=bound.trainings)
                for need in bound.needs:
                    told[-1] += say(", where `{number}` is at least {least}", **_asked(need))
            conditions.append(_under(where, told, language))
        rule = say("; ").join(conditions) + say(".")
        if self.can and len(conditions) > 1:
            rule += say(" One of these is enough.")
        for need in self.needs:
            rule += say(" Testable where `{number}` is at least {least}.", **_asked(need))
        for hint in self.hints:
            decides_nothing = " A hint that decides nothing: {told} (`{number}`) {side} {margin} ({why})."
            rule += say(decides_nothing, **_parts(hint, language))
        return rule

    def _verdict(self, outcomes):
        if not outcomes:
            return NOT_TESTABLE
        if outcomes == {True} or (self.can and True in outcomes):
            return CONFIRMED
        if outcomes == {False}:
            return REFUTED
        return DEPENDS if {True, False} <= outcomes else UNDECIDED


def _under(where, told, language):
    """What is told of the bounds (list of str) that hold together under a condition."""
    together = language.say(" and ").join(told)
    return language.say("{where}: {told}", where=language.say(where), told=together) if where else together


def _parts(bound, language):
    words = {part: language.say(getattr(bound, part)) for part in ("told", "side", "why")}
    return words | {"number": bound.number, "margin": bound.margin_told(language)}


def _asked(need):
    return {"number": need.number, "least": f"{need.at_least:g}"}


def catalogue():
    """Every claim, sorted: name -> Claim."""
    return dict(sorted(importlib.import_module("helpers.evidence.claims").CLAIMS.items()))


def judge(numbers, *names, language=ENGLISH):
    """The verdicts on some claims: frame indexed by claim with statement, verdict, because.

    numbers: name -> Estimate, or float for what is exact. language: of statement and because; the verdict is one of
    VERDICTS. Raises InputError for an unknown claim or a missing number.
    """
    rows, known = [], catalogue()
    for name in names:
        if name not in known:
            raise InputError(f"claim={name!r} is unknown: there are {', '.join(known)}.")
        claim = known[name]
        given = {need: numbers[need] for need in claim.numbers if need in numbers}
        given = {need: n if isinstance(n, Estimate) else Estimate(float(n)) for need, n in given.items()}
        missing = claim.missing(given)
        if missing:
            raise InputError(f"claim {name} needs the numbers {', '.join(missing)}, which were not measured.")
        verdict, because = claim.judge(given, language)
        said = language.say(claim.statement)
        rows.append({"claim": name, "statement": said, "verdict": verdict, "because": because})
    return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "because"]).set_index("claim")


def ledger(language=ENGLISH):
    """Every verdict on record, judged anew from the recorded numbers: a frame with claim, statement, notebook, profile,
    machine, verdict, because, younger; sorted by claim, the quick profile first, in each the reference machine first.
    Statement and because are in the language, the verdict is one of VERDICTS.

    younger: the rule was written or changed after the numbers were recorded, so that they cannot test it. Claims whose numbers
    were not recorded yet are left out. Raises ResultsError for damaged files.
    """
    rows, known = [], catalogue()
    for it in results.recordings():
        content = results.read(it.notebook, it.profile, it.machine)
        fixed = content["provenance"].get("rule", {})
        names = [n for n in content.get("verdicts", {}) if n in known and not known[n].missing(content["numbers"])]
        judged = judge(content["numbers"], *names, language=language).reset_index()
        younger = [fixed.get(name) != known[name].hash for name in names]
        rows.append(judged.assign(notebook=it.notebook, profile=it.profile, machine=it.machine, younger=younger))
    columns = ["claim", "statement", "notebook", "profile", "machine", "verdict", "because", "younger"]
    frame = pd.concat(rows)[columns].astype({"younger": bool})  # of nothing at all it would be an object
    return frame.sort_values("claim", kind="stable", ignore_index=True)


def decisive(judged):
    """The row of a `ledger` that gives each claim its reason, a frame indexed by claim: of the full profile where it has
    judged, else of the quick one, else of any; on the reference machine. Verdicts with a younger rule do not count."""
    judged = judged[~judged["younger"]].reset_index(drop=True)
    ranked = judged.assign(rank=(judged["profile"] != OVERRULING).astype(int) + (judged.index / max(len(judged), 1)))
    return ranked.sort_values("rank", kind="stable").groupby("claim").first().drop(columns="rank")
