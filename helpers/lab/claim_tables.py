"""The article's claims and the lab's own findings as Markdown tables, in English or in another Language."""

import pandas as pd

from helpers.evidence import findings, results, verdicts
from helpers.evidence.language import ENGLISH
from helpers.lab.telling import NOT_RECORDED, entry, markdown


def counting(told_in=ENGLISH):
    """The `verdicts.ledger` without what was recorded before its rule."""
    ledger = verdicts.ledger(told_in)
    return ledger[~ledger["younger"]]


def claims_table(ledger, told_in=ENGLISH):
    """The claims of a `verdicts.ledger` with their verdicts by profile, on its reference machine, and the reason of the
    profile that counts most, as a Markdown table."""
    first = ledger.drop_duplicates(["claim", "profile"])
    known = verdicts.catalogue()
    profiles = list(dict.fromkeys(it.profile for it in results.recordings() if it.profile in set(ledger["profile"])))
    table = first.pivot(index="claim", columns="profile", values="verdict")[profiles].fillna(NOT_RECORDED)
    table = table.map(told_in.say)
    reasons = verdicts.decisive(ledger)
    table.insert(0, told_in.say("the article says"), reasons["statement"])
    table.insert(0, told_in.say("where"), [told_in.say(known[name].section) for name in table.index])
    because = reasons["because"] + " (" + reasons["profile"] + ", " + reasons["machine"] + ")"
    return markdown(table.assign(**{told_in.say("because"): because}))


def rules_table(told_in=ENGLISH):
    """The rule of every claim in words, with its hash, as a Markdown table."""
    rows = {name: [claim.rule(told_in), f"`{claim.hash}`"] for name, claim in verdicts.catalogue().items()}
    columns = [told_in.say("it holds where"), told_in.say("hash")]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def findings_table(told_in=ENGLISH):
    """The lab's own findings with their numbers, as a Markdown table: of each profile on its reference machine; of each
    machine, where a number belongs to one."""
    rows = {}
    for finding in findings.FINDINGS:
        told = []
        for where, content in _recorded(finding.notebook, finding.numbers):
            numbers = [f"{told_in.say(what)} {entry(content, name, told_in)}" for name, what in finding.numbers.items()]
            told.append(told_in.say("{where}: {told}", where=where, told=told_in.say(", ").join(numbers)))
        rows[told_in.say(finding.statement)] = [
            told_in.say("; ").join(told) or NOT_RECORDED,
            f"[{finding.notebook[:2]}](notebooks/{finding.notebook}.ipynb)",
        ]
    columns = [told_in.say("measured"), told_in.say("in")]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def published_table():
    """Figures that others published beside ours, as a Markdown table."""
    rows = []
    for it in findings.PUBLISHED:
        ours = "; ".join(
            f"{where}: {entry(content, it.number)}" for where, content in _recorded(it.notebook, [it.number])
        )
        rows.append([it.what, it.on, it.figure, it.source, ours or NOT_RECORDED, it.why])
    columns = ["technique and network", "their data", "published", "source", "ours", "why they may differ"]
    frame = pd.DataFrame(rows, columns=columns)
    return markdown(frame.set_index(columns[0]))


def claims_by_machine(ledger, told_in=ENGLISH):
    """The claims of a `verdicts.ledger` on which machines of one profile disagree, as a Markdown table; "" if none."""
    apart = ledger.groupby(["claim", "profile"]).filter(lambda part: part["verdict"].nunique() > 1)
    rows = {
        f"{row.claim}, {row.profile}, {row.machine}": [told_in.say(row.verdict), row.because]
        for row in apart.itertuples()
    }
    columns = [told_in.say("verdict"), told_in.say("because")]
    return markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns)) if rows else ""


def _recorded(notebook, numbers):
    """Where these numbers of a notebook were recorded, all of them: pairs of what to call it and the content."""
    seen = set()
    for it in results.recordings(notebook=notebook):
        content = results.read(notebook, it.profile, it.machine)
        if not {*numbers} <= {*content["numbers"]}:
            continue
        of_machine = any(content["tolerances"][name] is None for name in numbers)
        where = f"{it.profile}, {it.machine}" if of_machine else it.profile
        if where not in seen:
            seen.add(where)
            yield where, content
