"""Recorded numbers as text, and frames as Markdown tables: how README, RESULTS.md and the pages in Chinese tell them."""

from helpers.evidence.language import ENGLISH

NOT_RECORDED = "-"
# How a number is told, by the first part of its name that has an entry; ".3g" otherwise.
FORMS = {
    **dict.fromkeys(
        ("top1", "qat", "start", "sparsity", "kept", "agreement", "recovered", "size_ratio", "gate_error", "tar"), ".1%"
    ),
    **dict.fromkeys(("delta_top1", "delta_map50", "delta_tar", "gain", "loss", "schedule_gap"), "points"),
    **dict.fromkeys(("size", "size_gzip", "peak_memory"), "kB"),
    **dict.fromkeys(("map50", "fidelity"), ".3f"),
    "far": ".2%",
    **dict.fromkeys(("latency_ratio", "spread_ratio", "sweep"), ".2f"),
    **dict.fromkeys(("sensitivity.rank", "channels", "gate", "conversions"), ".0f"),
}


def form_of(name):
    """How a number is told, by its name: one of FORMS."""
    parts = name.split(".")
    places = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((FORMS[place] for place in places if place in FORMS), ".3g")


def entry(content, name, told_in=ENGLISH):
    """A number by its name as what was recorded (dict) has it, told in its own form; NOT_RECORDED if it does not have it."""
    return tell(content["numbers"][name], form_of(name), told_in) if name in content["numbers"] else NOT_RECORDED


def tell(estimate, form, told_in=ENGLISH):
    """An `Estimate` as text. form: as it takes them, "points+" for points without the word."""
    if form == "points+":  # where the sentence itself says "points"
        return told_in.number(estimate, "points").replace(told_in.say(" points"), "")
    return told_in.number(estimate, form)


def markdown(table):
    """A frame as a Markdown table, its index as the first column."""
    lines = [["", *table.columns], ["---"] * (1 + len(table.columns))]
    lines += [[name, *row] for name, row in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
