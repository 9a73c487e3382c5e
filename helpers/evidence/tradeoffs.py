"""Figures of what accuracy costs: bytes, time, instructions. Functions as in `plots`, which hands them out."""

import numpy as np

from helpers.evidence import style


def pareto(frame, title):
    """What keeping layers in float buys: top-1 over the bytes that it adds to the file with nothing kept, a panel for each scheme,
    a line or marks for each order in which layers are kept: frame with scheme, order, layers (how many), size (bytes),
    change, low, high. A row of 0 layers is the level to compare with; an order that has a number of layers twice is drawn
    as marks."""
    schemes, orders = list(frame["scheme"].unique()), list(frame["order"].unique())
    figure, axes = style.titled((5.2 * len(schemes), 4.2), title, 1, len(schemes), sharey=True)
    for axis, scheme in zip(np.ravel(axes), schemes, strict=True):
        part = frame[frame["scheme"] == scheme]
        bare, kept = part[part["layers"] == 0].iloc[0], part[part["layers"] > 0]
        axis.axhline(100 * bare["change"], color="black", linewidth=1, linestyle=":", label="nothing in float")
        for number, order in enumerate(orders):
            rows = kept[kept["order"] == order].sort_values("size")
            axis.errorbar(
                (rows["size"] - bare["size"]).clip(lower=1),
                100 * rows["change"],
                yerr=[100 * (rows["change"] - rows["low"]), 100 * (rows["high"] - rows["change"])],
                color=style.COLOURS[number],
                marker=style.MARKERS[number],
                linestyle=style.LINES[number] if rows["layers"].is_unique else "none",
                elinewidth=0.7,
                markersize=5,
                label=order,
            )
        axis.set_title(scheme, fontsize=10, fontweight="normal")
        axis.set(xscale="log", xlabel="bytes added (left is better)")
    np.ravel(axes)[0].set_ylabel("points of top-1 against float32 (95% interval)")
    figure.legend(*np.ravel(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def front(frame, title, unit):
    """The damage of files over their bytes, on a log scale: frame with a row a file: bytes, damage, front (whether no file as small does
    less damage), name ("" for those without a mark of their own). A line along the front. unit: of the damage, in words."""
    figure, axis = style.titled((7.5, 4.4), title)
    kB, damage = frame["bytes"] / 1000, frame["damage"].clip(lower=1e-6)
    plain = frame["name"] == ""
    axis.plot(kB[plain], damage[plain], ".", color="black", alpha=0.2, markersize=4, label="tried")
    best = frame["front"]
    axis.plot(
        kB[best], damage[best], drawstyle="steps-post", color=style.COLOURS[0], label="front of all that were tried"
    )
    for number, (name, part) in enumerate(frame[~plain].groupby("name", sort=False), 1):
        look = number % len(style.COLOURS)
        axis.plot(
            part["bytes"] / 1000,
            part["damage"].clip(lower=1e-6),
            style.MARKERS[look],
            color=style.COLOURS[look],
            markersize=9,
            label=name,
        )
    axis.set(yscale="log", xlabel="size in kB (left is better)", ylabel=f"damage: {unit}")
    axis.legend()
    return figure


def tradeoff(frame, title):
    """What each file costs in accuracy against its size, and against its latency ratio: frame indexed by name with value,
    low, high (top-1 minus the baseline's, shares, drawn in points), raw (bytes), ratio, ratio_low, ratio_high."""
    figure, axes = style.titled((11, 4.2), title, 1, 2, sharey=True)
    points = 100 * frame[["value", "low", "high"]]
    above, below = points["high"] - points["value"], points["value"] - points["low"]
    latency = [frame["ratio"] - frame["ratio_low"], frame["ratio_high"] - frame["ratio"]]
    for axis, x, spread, label in (
        (axes[0], frame["raw"] / 1000, None, "size on disk in kB (left is better)"),
        (axes[1], frame["ratio"], latency, "times as fast as float32 (right is better)"),
    ):
        axis.axhline(0, color="black", linewidth=1, linestyle=":")
        for number, name in enumerate(frame.index):
            own = None if spread is None else [[side.iloc[number]] for side in spread]
            axis.errorbar(
                x.iloc[number],
                points["value"].iloc[number],
                xerr=own,
                yerr=[[below.iloc[number]], [above.iloc[number]]],
                fmt=style.MARKERS[number % 7],
                color=style.COLOURS[number % 7],
                fillstyle="full" if number < 7 else "none",
                capsize=3,
                label=name,
            )
        axis.set(xlabel=label)
    axes[0].set(ylabel="top-1 against float32's, in points (95% interval)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def foretold(frame, title, x_label):
    """Time against instructions: frame indexed by "network.recipe" with milliseconds and instructions; both axes logarithmic."""
    figure, axis = style.titled((7, 4.2), title)
    networks, recipes = zip(*(name.split(".", 1) for name in frame.index), strict=True)
    for number, recipe in enumerate(dict.fromkeys(recipes)):
        part = frame[[each == recipe for each in recipes]]
        axis.plot(
            part["instructions"] / 1e6,
            part["milliseconds"],
            style.MARKERS[number % 7],
            color=style.COLOURS[number % 7],
            label=recipe,
        )
    for network in dict.fromkeys(networks):
        part = frame[[each == network for each in networks]].sort_values("instructions")
        axis.plot(part["instructions"] / 1e6, part["milliseconds"], color="grey", linewidth=0.8, zorder=0)
        last = part.iloc[0]
        where = last["instructions"] / 1e6, last["milliseconds"]
        axis.annotate(network, where, (0, -14), textcoords="offset points", ha="center")
    axis.set(xscale="log", yscale="log", xlabel=x_label, ylabel="milliseconds here")
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter("{x:g}")
        each.set_minor_formatter("{x:g}")
    axis.margins(0.12, 0.2)
    axis.legend()
    return figure


def sizes(frame, title):
    """Raw and gzipped size of each model: frame indexed by name with raw and gzip in bytes."""
    figure, axis = style.titled((7, 1 + 0.55 * len(frame)), title)
    rows = np.arange(len(frame))[::-1]
    for column, offset, colour, hatch, label in (
        ("raw", 0.2, style.COLOURS[0], "", "on disk"),
        ("gzip", -0.2, style.COLOURS[1], "//", "after gzip -9"),
    ):
        bars = axis.barh(
            rows + offset, frame[column] / 1000, 0.38, color=colour, hatch=hatch, edgecolor="white", label=label
        )
        axis.bar_label(bars, [f"{value / 1000:,.0f}" for value in frame[column]], padding=3, fontsize=9)
    axis.set_yticks(rows, frame.index)
    axis.set(xlabel="size in kB", ylim=(-0.6, len(frame) - 0.4))
    axis.grid(axis="y", visible=False)
    axis.legend()
    return figure
