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
