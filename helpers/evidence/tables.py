"""Figures that are tables: what to choose by what one needs, and the ledger of verdicts."""

import matplotlib.pyplot as plt
import numpy as np

from helpers.evidence import style


def guide(frame, title):
    """A table to choose by: a row for each technique; numbers are coloured, purple above the neutral value, orange and
    with a ▼ below. The neutral value is 1 (a factor), or 0 for columns that hold negative numbers; words are left white."""
    figure, axis = style.titled((2 + 1.2 * len(frame.columns), 1.2 + 0.42 * len(frame)), title)
    colours = plt.get_cmap("PuOr")
    for row, technique in enumerate(frame.index):
        for column, name in enumerate(frame.columns):
            value = frame.loc[technique, name]
            strength, colour, text = 0.0, "white", str(value)
            if not isinstance(value, str):
                signed = (frame[name] < 0).any()
                strength = (
                    value / frame[name].abs().max() if signed else np.log(value) / np.log(frame[name]).abs().max()
                )
                colour, number = colours(0.5 + 0.4 * strength), f"{value:+.1f}" if signed else f"x{value:.2f}"
                worse = float(number.strip("x")) < (0 if signed else 1)  # as it is shown: 0.998 is no loss
                text = f"▼ {number}" if worse else number  # for those who see or print no colours
            axis.add_patch(plt.Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white"))
            ink = "white" if abs(strength) > 0.75 else "black"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, color=ink)
    axis.set(xlim=(0, len(frame.columns)), ylim=(len(frame), 0))
    axis.set_xticks(np.arange(len(frame.columns)) + 0.5, frame.columns)
    axis.set_yticks(np.arange(len(frame)) + 0.5, frame.index)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    return figure


def ledger(frame, title):
    """Verdicts at a glance: frame with claim, statement, profile, machine, verdict; a row for each claim, a column for each
    machine of each profile."""
    looks = {
        "confirmed": ("o", 2),
        "refuted": ("X", 5),
        "depends": ("D", 1),
        "undecided": ("s", 4),
        "not testable here": ("v", 6),
    }
    rows = frame.drop_duplicates("claim")
    columns = [
        (name, machine) for name, part in frame.groupby("profile", sort=False) for machine in part["machine"].unique()
    ]
    figure, axis = style.titled((11, 1.2 + 0.3 * len(rows)), title)
    heights = {claim: -place for place, claim in enumerate(rows["claim"])}
    for verdict, (marker, colour) in looks.items():
        part = frame[frame["verdict"] == verdict]
        where = [columns.index(column) for column in zip(part["profile"], part["machine"], strict=True)]
        axis.plot(where, part["claim"].map(heights), marker, color=style.COLOURS[colour], markersize=9, label=verdict)
    axis.set_yticks(
        list(heights.values()), [f"{row.claim}  {_short(row.statement)}" for row in rows.itertuples()], fontsize=8
    )
    axis.set_xticks(range(len(columns)), ["\n".join(column) for column in columns], fontsize=8)
    axis.xaxis.tick_top()
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-len(rows) + 0.4, 0.6))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _short(text, most=95):
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " …"
