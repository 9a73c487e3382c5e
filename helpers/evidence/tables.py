"""Figures that are tables: what to choose by what one needs, the ledger of verdicts, and what few bits cost by each algorithm."""

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


def few_bits(frame, title):
    """What each way to quantize costs at each number of bits, a panel for each network: frame with network, algorithm, activations,
    block (0: none), bits, change (a share, written in points), outcome (a word or two for cells without a number, which are
    hatched) and share (of the weights that have so few bits, written where it is not all of them). The darker, the more is lost."""
    networks, bits = list(frame["network"].unique()), sorted(frame["bits"].unique(), reverse=True)
    ways = [tuple(way) for way in frame[["algorithm", "block", "activations"]].drop_duplicates().to_numpy()]
    size = (2.6 + 1.1 * len(bits) * len(networks), 1.2 + 0.36 * len(ways))
    figure, axes = style.titled(size, title, 1, len(networks), sharey=True, squeeze=False)
    colours, most = plt.get_cmap("cividis"), max(-frame["change"].min(), 1e-9)
    for axis, network in zip(axes[0], networks, strict=True):
        for cell in frame[frame["network"] == network].itertuples():
            column, row = bits.index(cell.bits), ways.index((cell.algorithm, cell.block, cell.activations))
            there = np.isfinite(cell.change)
            lost = np.sqrt(max(-cell.change, 0) / most) if there else 0
            look = {"facecolor": colours(1 - lost), "edgecolor": "white"}
            if not there:
                look = {"facecolor": "white", "edgecolor": "silver", "hatch": "////", "linewidth": 0}
            axis.add_patch(plt.Rectangle((column, row), 1, 1, **look))
            text = f"{100 * cell.change:+.1f}" if there else cell.outcome
            if there and cell.share < 0.995:
                text += f"\n{cell.share:.0%} of weights"
            axis.text(
                column + 0.5,
                row + 0.5,
                text,
                ha="center",
                va="center",
                fontsize=8 if "\n" not in text else 6.5,
                color="white" if lost > 0.5 else "black",
                bbox=None if there else {"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
        axis.set(xlim=(0, len(bits)), ylim=(len(ways), 0))
        axis.set_xticks(np.arange(len(bits)) + 0.5, [f"{each} bits" for each in bits])
        axis.set_title(network, fontsize=10, fontweight="normal")
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.grid(False)
    told = [f"{name}{f', blocks of {block}' if block else ''}, {computed}" for name, block, computed in ways]
    axes[0][0].set_yticks(np.arange(len(ways)) + 0.5, told)
    return figure


def _short(text, most=95):
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + " …"
