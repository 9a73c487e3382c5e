"""Diagrams: what a technique does, drawn from its own arithmetic on a few numbers. Readable in grey, and at a phone's width."""

import numpy as np

from helpers.evidence import style


def number_line(values, scale, zero_point, bits=8, title=""):
    """Affine quantization: real numbers above, the integers that they become below, with the steps between the ends.

    values: a few real numbers. scale, zero_point: of the tensor: real = scale * (integer - zero_point). Integers have `bits` bits
    and a sign (Jacob et al. 2018, equation 1).
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    figure, axis = style.titled((7, 2.4), title)
    ends = [scale * (end - zero_point) for end in (lowest, highest)]
    margin = 0.12 * (ends[1] - ends[0])
    low, high = min(ends[0], min(values)) - 2 * margin, max(ends[1], max(values)) + margin
    steps = scale * (np.arange(lowest, highest + 1) - zero_point)
    axis.hlines([1, 0], [low, ends[0]], [high, ends[1]], color="black", linewidth=1)
    shown = steps if len(steps) <= 64 else steps[:: len(steps) // 32]
    axis.vlines(shown, -0.06, 0.06, color="black", linewidth=0.7)
    for place, value in enumerate(values):
        integer = int(np.clip(np.round(value / scale) + zero_point, lowest, highest))
        clamped = not ends[0] - scale / 2 <= value <= ends[1] + scale / 2
        colour = style.COLOURS[5 if clamped else 0]
        where = scale * (integer - zero_point)
        axis.annotate(
            "",
            (where, 0.08),
            (value, 0.94),
            arrowprops={"arrowstyle": "->", "color": colour, "linestyle": "--" if clamped else "-"},
        )
        axis.plot(value, 1, style.MARKERS[0], color=colour)
        height = 1.12 + 0.22 * (place % 2)
        axis.text(value, height, f"{value:g}", ha="center", color=colour)
        axis.text(where, -0.3 - 0.22 * (place % 2), f"{integer}", ha="center", color=colour)
    axis.text(low, 1.12, "real", ha="left", style="italic")
    axis.text(low, -0.3, "integer", ha="left", style="italic")
    axis.set(xlim=(low, high), ylim=(-0.75, 1.6))
    axis.axis("off")
    return figure


def pruning(kernel, shares, schedule, title=""):
    """Magnitude pruning: a small kernel as its mask grows, and the schedule that says when.

    kernel: (rows, columns). shares: of zeros, rising, one picture each. schedule: frame with step and share, drawn as a curve with a
    mark at each of the shares.
    """
    figure, axes = style.titled((7, 2.6), title, 1, len(shares) + 1, width_ratios=[1] * len(shares) + [1.6])
    size, largest = np.abs(kernel), np.abs(kernel).max()
    for axis, share in zip(axes, shares, strict=False):
        kept = size > np.sort(size, axis=None)[round(share * size.size) - 1] if share else np.ones_like(size, bool)
        axis.imshow(np.where(kept, size, np.nan), cmap="Blues", vmin=-0.3 * largest, vmax=largest)
        for row, column in np.argwhere(~kept):
            axis.text(column, row, "0", ha="center", va="center", color="grey", fontsize=8)
        axis.set(xticks=[], yticks=[], title="")
        axis.grid(False)
        axis.set_xlabel(f"{share:.0%} zeros")
    curve = axes[-1]
    curve.plot(schedule["step"], schedule["share"], color=style.COLOURS[0])
    reached = [schedule["step"][(schedule["share"] >= share - 1e-9).idxmax()] for share in shares]
    curve.plot(reached, shares, style.MARKERS[1], color=style.COLOURS[5])
    curve.set(xlabel="training step", ylabel="share of zeros", ylim=(-0.05, 1))
    return figure


def fake_quantization(scale, low, high, title=""):
    """What a network that is trained for integers computes forward, and the gradient that goes back through it.

    scale: the step. low, high: real ends of the range, beyond which is clamped (Jacob et al. 2018, section 3; the gradient is the
    straight-through estimator of Bengio et al. 2013).
    """
    figure, (forward, backward) = style.titled((7, 2.8), title, 1, 2)
    x = np.linspace(low - 2 * scale, high + 2 * scale, 2001)
    y = np.clip(np.round(x / scale) * scale, low, high)
    forward.plot(x, x, color="grey", linewidth=0.8, linestyle=":", label="float")
    forward.plot(x, y, color=style.COLOURS[0], label="rounded and clamped")
    forward.set(xlabel="weight", ylabel="what the layer sees")
    forward.legend(loc="upper left", fontsize=8)
    inside = (x >= low) & (x <= high)
    backward.plot(x, inside.astype(float), color=style.COLOURS[5], label="gradient that is passed on")
    backward.plot(x, np.zeros_like(x), color="grey", linewidth=0.8, linestyle=":", label="the true one of a staircase")
    backward.set(xlabel="weight", ylabel="factor", ylim=(-0.1, 1.5), yticks=[0, 1])
    backward.legend(loc="upper left", fontsize=8)
    return figure


def scales(channels, levels=15, title=""):
    """Two channels of a kernel under one scale, and under a scale each: weights, and the steps that they can be rounded to.

    channels: name -> weights (n,). levels: how many a scale has, symmetric about 0.
    """
    figure, axes = style.titled((7, 3), title, 1, 2, sharey=True, sharex=True)
    half, largest = levels // 2, max(np.abs(each).max() for each in channels.values())
    for axis, (told, own) in zip(axes, (("one scale for both", False), ("a scale for each", True)), strict=True):
        for place, weights in enumerate(channels.values()):
            step = (np.abs(weights).max() if own else largest) / half
            used = len(np.unique(np.round(weights / step)))
            axis.vlines(step * np.arange(-half, half + 1), place - 0.3, place + 0.3, color="grey", linewidth=0.7)
            axis.plot(
                weights, np.full(len(weights), place), style.MARKERS[place], color=style.COLOURS[place], markersize=4
            )
            axis.text(largest, place + 0.36, f"{used} of {levels} steps used", ha="right", fontsize=8)
        axis.set(xlabel=told, yticks=range(len(channels)), yticklabels=channels, ylim=(-0.6, len(channels) - 0.3))
        axis.grid(False)
    return figure


def outcomes(limit, intervals, title="", x_label="change of accuracy, points"):
    """A gate's three outcomes: intervals against a limit. intervals: outcome -> (low, value, high), in the unit of the limit."""
    figure, axis = style.titled((7, 2.4), title)
    for place, (outcome, (low, value, high)) in enumerate(intervals.items()):
        colour = style.COLOURS[(2, 1, 5)[place % 3]]
        axis.errorbar(
            value, -place, xerr=[[value - low], [high - value]], fmt=style.MARKERS[place % 7], color=colour, capsize=4
        )
        axis.annotate(outcome, (high, -place), (8, 0), textcoords="offset points", va="center", color=colour)
    axis.axvline(limit, color="black", linestyle="--", linewidth=1)
    axis.text(limit, 0.55, f" limit {limit:+g} ", ha="right", fontsize=9)
    axis.set(yticks=[], xlabel=x_label, ylim=(-len(intervals) + 0.4, 0.9))
    axis.margins(x=0.2)
    return figure


def surgery(title=""):
    """Removing channels in a residual block: those between its two convolutions are its own affair, those of the residual stream are
    everybody's."""
    figure, axes = style.titled((7, 2.9), title, 1, 2)
    told = ("inside a block: two kernels change", "in the stream: every layer that reads or adds")
    for axis, label, stream in zip(axes, told, (False, True), strict=True):
        for x, number, name in ((0, 4, "in"), (2, 6, "inside"), (4, 4, "out")):
            cut = stream if name != "inside" else not stream
            for place in range(number):
                gone = cut and place == number - 1
                axis.add_patch(
                    style.plt.Rectangle(
                        (x, place - number / 2),
                        0.6,
                        0.8,
                        facecolor="none" if gone else style.COLOURS[4],
                        edgecolor=style.COLOURS[5] if gone else "black",
                        linestyle="--" if gone else "-",
                    )
                )
            axis.text(x + 0.3, -3.7, name, ha="center", fontsize=9)
        for start in (0.7, 2.7):
            axis.annotate("", (start + 1.2, -0.1), (start, -0.1), arrowprops={"arrowstyle": "->"})
            axis.text(start + 0.6, 0.25, "kernel", ha="center", fontsize=8)
        arc = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.35", "color": style.COLOURS[5] if stream else "grey"}
        axis.annotate("", (4.3, 2.1), (0.3, 2.1), arrowprops=arc)
        axis.text(2.3, 4.3, "added", ha="center", fontsize=8)
        axis.set(xlim=(-0.4, 5), ylim=(-4.2, 4.9), xlabel=label, xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure


def paths(core, sides, title=""):
    """The map of a course: a core path downwards, and side paths that leave it to the right.

    core: names of the stations, in order. sides: name -> the name of the station after which it leaves.
    """
    places, row = {}, 0
    for station in core:
        places[station] = (0, row)
        row += 1
        for side in (name for name, after in sides.items() if after == station):
            places[side] = (1, row)
            row += 1
    figure, axis = style.titled((5, 0.34 * row + 0.5), title)
    axis.plot([0, 0], [0, -places[core[-1]][1]], color=style.COLOURS[0], linewidth=4, zorder=1)
    for side, after in sides.items():
        top, (across, down) = -places[after][1], places[side]
        axis.plot([0, 0.35, across], [top, -down, -down], color="grey", linewidth=1.5, linestyle="--", zorder=0)
    for name, (across, down) in places.items():
        colour, size = (style.COLOURS[0], 9) if across == 0 else ("white", 7)
        axis.plot(across, -down, style.MARKERS[0], color=colour, markeredgecolor="black", markersize=size, zorder=2)
        axis.text(across + 0.18, -down, name, va="center", weight="normal" if across else "bold")
    axis.set(xlim=(-0.2, 5), ylim=(-row + 0.4, 0.6))
    axis.axis("off")
    return figure
