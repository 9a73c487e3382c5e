"""Every figure of the lab, in one style: colours that the colour-blind can tell apart, and marks that read in grey.

The functions take tidy frames and return a Figure; `export` also writes it. The title of a figure is a sentence.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from helpers import files

# Okabe and Ito (2008), in an order in which neighbours also differ in lightness.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
    write(figure, files.output_root() / files.figures_folder() / f"{name}.svg")
    return figure


def write(figure, path):
    """Write a figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    files.write(path, buffer.getvalue())


def images(pictures, labels, title, columns=10):
    """A strip of images (n, height, width[, 3]) with their labels under them."""
    rows = -(-len(pictures) // columns)
    figure, axes = _figure((0.9 * columns, 1.15 * rows + 0.3), title, rows, columns)
    for axis, picture, label in zip(np.ravel(axes), pictures, labels, strict=False):
        axis.imshow(picture, cmap="gray_r")
        axis.set_xlabel(label, fontsize=9)
    for axis in np.ravel(axes):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure


def curves(frame, x, y, by, title, x_label, y_label, percent="y", log_x=False, equal_steps=False, levels=None):
    """Lines of y over x, one for each value of column `by`; columns low and high, where present, give error bars.

    percent: which axes ("x", "y", "xy" or "") hold shares. equal_steps: give every x value the same distance. levels:
    name -> y, horizontal lines to compare with.
    """
    figure, axis = _figure((7, 4), title)
    places = sorted(frame[x].unique())
    for number, (name, part) in enumerate(frame.groupby(by, sort=False)):
        where = [places.index(value) for value in part[x]] if equal_steps else part[x]
        bars = None
        if "low" in part and part["low"].notna().all():
            bars = [part[y] - part["low"], part["high"] - part[y]]
        look = number % len(COLOURS)
        axis.errorbar(
            where,
            part[y],
            yerr=bars,
            label=name,
            color=COLOURS[look],
            marker=MARKERS[look],
            linestyle=LINES[look],
            capsize=3,
            markersize=5,
        )
    for number, (name, level) in enumerate((levels or {}).items()):
        axis.axhline(level, color="black", linewidth=1, linestyle=(":", "--")[number % 2], label=name)
    if equal_steps:
        axis.set_xticks(range(len(places)), [f"{value:.0%}" if "x" in percent else f"{value:g}" for value in places])
    elif "x" in percent:
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    if "y" in percent:
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    if log_x:
        axis.set_xscale("log")
    axis.set(xlabel=f"{x_label} (steps not to scale)" if equal_steps else x_label, ylabel=y_label)
    if frame[by].nunique() > 1 or levels:
        axis.legend()
    return figure


def schedule(asked, logged, title):
    """What a pruning schedule asks for (frame step, sparsity) as a line, what was logged (layer, step, sparsity) as marks."""
    figure, axis = _figure((7, 3.5), title)
    axis.plot(asked["step"], asked["sparsity"], color=COLOURS[0], label="the schedule")
    for number, (layer, part) in enumerate(logged.groupby("layer", sort=False), 1):
        look = number % len(COLOURS)
        axis.plot(
            part["step"],
            part["sparsity"],
            MARKERS[look],
            color=COLOURS[look],
            markersize=max(3, 9 - 2 * number),
            label=f"logged, {layer}",
        )
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(xlabel="training step", ylabel="sparsity", ylim=(0, 1))
    axis.legend()
    return figure


def input_mask(kernel, shape, title):
    """How many weights each input pixel keeps: kernel (pixels, units) -> a picture of `shape` (height, width)."""
    kept = (kernel != 0).mean(axis=1).reshape(shape)
    figure, axis = _figure((4.6, 3.6), title)
    picture = axis.imshow(kept, cmap="cividis", vmin=0)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    figure.colorbar(picture, ax=axis, format=PercentFormatter(1, decimals=0), label="weights kept")
    return figure


def histogram(before, after, title, x_label="weight"):
    """Two sets of weights (any shape) over the same bins, counts on a log scale."""
    figure, axis = _figure((7, 3.2), title)
    bins = np.linspace(*np.quantile(np.concatenate([np.ravel(before), np.ravel(after)]), [0.0005, 0.9995]), 81)
    axis.hist(np.ravel(before), bins, color=COLOURS[0], alpha=0.35, label="before")
    axis.hist(np.ravel(after), bins, color=COLOURS[5], histtype="step", linewidth=1.5, label="after")
    axis.set(yscale="log", xlabel=x_label, ylabel="how many")
    axis.legend()
    return figure


def intervals(frame, title, x_label, reference=None, percent=False):
    """Estimates one above the other: frame indexed by name with value, low, high; `reference` draws a vertical line."""
    figure, axis = _figure((7, 0.9 + 0.42 * len(frame)), title)
    rows = range(len(frame))[::-1]
    axis.errorbar(
        frame["value"],
        rows,
        xerr=[frame["value"] - frame["low"], frame["high"] - frame["value"]],
        fmt="o",
        color=COLOURS[0],
        capsize=4,
    )
    if reference is not None:
        axis.axvline(reference, color="black", linewidth=1, linestyle=":")
    if percent:
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_yticks(rows, frame.index)
    axis.set(xlabel=x_label, ylim=(-0.6, len(frame) - 0.4))
    return figure


def channels(frame, title, y_label):
    """A mark for every channel of every layer, layers side by side in the order of the network, on a log scale: frame with
    layer, kind, range; kind gives colour and mark. A channel of range 0 is left out."""
    figure, axis = _figure((11, 4), title)
    places = {layer: place for place, layer in enumerate(frame["layer"].unique())}
    for number, (kind, part) in enumerate(frame[frame["range"] > 0].groupby("kind", sort=False)):
        where = part["layer"].map(places) + 0.5 * (
            part["channel"] / frame.groupby("layer")["channel"].max().max() - 0.5
        )
        axis.plot(where, part["range"], MARKERS[number], color=COLOURS[number], markersize=3, alpha=0.5, label=kind)
    axis.set(yscale="log", xlabel="layer, from the input to the logits", ylabel=y_label, xlim=(-1, len(places)))
    axis.legend(markerscale=2)
    return figure


def sensitivity(frame, title):
    """The network as bars, a layer each from input to output: height is the damage (KL divergence, log scale) when it is
    quantized alone; colour and hatching tell its kind. frame: what `sensitivity.sweep` returned."""
    alone = frame[frame["mode"] == "alone"].reset_index(drop=True)
    figure, axis = _figure((max(7, 0.22 * len(alone) + 2), 4.4), title)
    for number, (kind, part) in enumerate(alone.groupby("op", sort=False)):
        axis.bar(
            part.index,
            part["kl"].clip(lower=1e-7),
            color=COLOURS[number],
            hatch=("", "//", "..")[number % 3],
            edgecolor="white",
            label=kind.lower().replace("_", " "),
        )
    axis.set_xticks(alone.index, alone["layer"], rotation=90, fontsize=7)
    axis.set(yscale="log", ylabel="KL divergence of the outputs, nats", xlim=(-1, len(alone)))
    axis.grid(axis="x", visible=False)
    axis.legend()
    return figure


def tradeoff(frame, title):
    """Accuracy against size, and against latency ratio: frame indexed by name with value, low, high (top-1), raw
    (bytes), ratio, ratio_low, ratio_high."""
    figure, axes = _figure((11, 4.2), title, 1, 2)
    accuracy = [frame["value"] - frame["low"], frame["high"] - frame["value"]]
    latency = [frame["ratio"] - frame["ratio_low"], frame["ratio_high"] - frame["ratio"]]
    for axis, x, spread, label in (
        (axes[0], frame["raw"] / 1000, None, "size on disk in kB (left is better)"),
        (axes[1], frame["ratio"], latency, "times as fast as float32 (right is better)"),
    ):
        for number, name in enumerate(frame.index):
            own = None if spread is None else [[side.iloc[number]] for side in spread]
            axis.errorbar(
                x.iloc[number],
                frame["value"].iloc[number],
                xerr=own,
                yerr=[[side.iloc[number]] for side in accuracy],
                fmt=MARKERS[number % 7],
                color=COLOURS[number % 7],
                fillstyle="full" if number < 7 else "none",
                capsize=3,
                label=name,
            )
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.set(xlabel=label)
    axes[0].set(ylabel="top-1 (95% interval)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def sizes(frame, title):
    """Raw and gzipped size of each model: frame indexed by name with raw and gzip in bytes."""
    figure, axis = _figure((7, 1 + 0.55 * len(frame)), title)
    rows = np.arange(len(frame))[::-1]
    for column, offset, colour, hatch, label in (
        ("raw", 0.2, COLOURS[0], "", "on disk"),
        ("gzip", -0.2, COLOURS[1], "//", "after gzip -9"),
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


def _figure(size, title, rows=1, columns=1):
    figure, axes = plt.subplots(rows, columns, figsize=size)
    plt.close(figure)  # the notebook shows the returned figure, and only that
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure, axes
