"""The one style of the lab's figures: colours that the colour-blind can tell apart, marks that read in grey."""

import io

import matplotlib.pyplot as plt
import pandas as pd

from helpers.base import repository

# Okabe and Ito (2008), in an order in which neighbours also differ in lightness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "xx", "\\\\", "oo", "--")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), "-")
plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 10,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "svg.hashsalt": "compression-lab",
    }
)
pd.set_option("display.max_colwidth", None, "display.expand_frame_repr", False, "display.max_columns", 20)


def export(figure, name):
    """Write a figure as `figures/[<profile>/]<name>.svg` below the output folder, and return it for display."""
    write(figure, repository.output_root() / repository.figures_folder() / f"{name}.svg")
    return figure


def write(figure, path):
    """Write a figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    repository.write(path, buffer.getvalue())


def titled(size, title, rows=1, columns=1, **shared):
    """A figure of a size in inches with its title, a sentence, and its axes: (figure, axes), as `plt.subplots` has them."""
    figure, axes = plt.subplots(rows, columns, figsize=size, **shared)
    plt.close(figure)  # the notebook shows the returned figure, and only that
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, axes
