"""Claims and the verdicts on them. Nobody writes a verdict by hand: a rule computes it from recorded numbers.

The claims themselves, each with its rule, stand in `claims`; here is what they are, how they are judged, and the ledger.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from helpers.base.errors import InputError
from helpers.evidence import results
from helpers.evidence.stats import Estimate

CONFIRMED, REFUTED, DEPENDS, NOT_TESTABLE = "confirmed", "refuted", "depends", "not testable here"
VERDICTS = (CONFIRMED, REFUTED, DEPENDS, NOT_TESTABLE)
OVERRULING = "full"  # the profile whose reason counts where it has judged: the same data as quick's, and all of them
_claims = {}


@dataclass(frozen=True)
class Claim:
    """A statement, the names of the numbers that it needs, and the rule: Estimates, in that order -> (verdict, because)."""

    statement: str
    needs: tuple[str, ...]
    rule: Callable[..., tuple[str, str]]


def claim(name, statement, needs):
    """Decorates the rule of a claim, which makes it known under its name. Raises ValueError if the name is taken."""

    def known(rule):
        if name in _claims:
            raise ValueError(f"claim={name!r} has a rule already, {_claims[name].rule.__name__}.")
        _claims[name] = Claim(statement, tuple(needs), rule)
        return rule

    return known


def catalogue():
    """Every claim, sorted: name -> Claim."""
    importlib.import_module("helpers.evidence.claims")  # its decorators fill the catalogue
    return dict(sorted(_claims.items()))


def judge(numbers, *names):
    """The verdicts on some claims: frame indexed by claim with statement, verdict, because.

    numbers: name -> Estimate, or float for what is exact. Raises InputError for an unknown claim or a missing number.
    """
    rows, known = [], catalogue()
    for name in names:
        if name not in known:
            raise InputError(f"claim={name!r} is unknown: there are {', '.join(known)}.")
        claim = known[name]
        missing = [need for need in claim.needs if need not in numbers]
        if missing:
            raise InputError(f"claim {name} needs the numbers {', '.join(missing)}, which were not measured.")
        given = [numbers[need] for need in claim.needs]
        verdict, because = claim.rule(*(n if isinstance(n, Estimate) else Estimate(*[float(n)] * 3) for n in given))
        rows.append({"claim": name, "statement": claim.statement, "verdict": verdict, "because": because})
    return pd.DataFrame(rows, columns=["claim", "statement", "verdict", "because"]).set_index("claim")


def ledger():
    """Every verdict on record, judged anew from the recorded numbers: a frame with claim, statement, notebook, profile,
    machine, verdict, because; sorted by claim, the quick profile first, in each the reference machine first.

    Raises ResultsError for damaged files.
    """
    rows = []
    for it in results.recordings():
        content = results.read(it.notebook, it.profile, it.machine)
        judged = judge(content["numbers"], *content.get("verdicts", {})).reset_index()
        rows.append(judged.assign(notebook=it.notebook, profile=it.profile, machine=it.machine))
    columns = ["claim", "statement", "notebook", "profile", "machine", "verdict", "because"]
    return pd.concat(rows)[columns].sort_values("claim", kind="stable", ignore_index=True)


def decisive(judged):
    """The row of a `ledger` that gives each claim its reason, a frame indexed by claim: of the full profile where it has
    judged, else of the quick one, else of any; on the reference machine."""
    ranked = judged.assign(rank=(judged["profile"] != OVERRULING).astype(int) + (judged.index / len(judged)))
    return ranked.sort_values("rank", kind="stable").groupby("claim").first().drop(columns="rank")
