"""Every figure of the lab. The functions take tidy frames and return a Figure; `export` also writes it. The title of a
figure is a sentence."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from helpers.evidence import style
from helpers.evidence.style import export, write
from helpers.evidence.tables import few_bits, guide, ledger
from helpers.evidence.tradeoffs import foretold, front, pareto, sizes, tradeoff

__all__ = [
    "channels",
    "curves",
    "event_log",
    "export",
    "few_bits",
    "foretold",
    "front",
    "guide",
    "histogram",
    "images",
    "input_mask",
    "intervals",
    "ledger",
    "pareto",
    "schedule",
    "sensitivity",
    "sizes",
    "tradeoff",
    "views",
    "waterfall",
    "write",
]


def images(pictures, labels, title, columns=10):
    """A strip of images (n, height, width[, 3]) with their labels under them."""
    rows = -(-len(pictures) // columns)
    figure, axes = style.titled((0.9 * columns, 1.15 * rows + 0.3), title, rows, columns)
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
    figure, axis = style.titled((7, 4), title)
    places = sorted(frame[x].unique())
    for number, (name, part) in enumerate(frame.groupby(by, sort=False)):
        where = [places.index(value) for value in part[x]] if equal_steps else part[x]
        bars = None
        if "low" in part and part["low"].notna().all():
            bars = [part[y] - part["low"], part["high"] - part[y]]
        look = number % len(style.COLOURS)
        axis.errorbar(
            where,
            part[y],
            yerr=bars,
            label=name,
            color=style.COLOURS[look],
            marker=style.MARKERS[look],
            linestyle=style.LINES[look],
            capsize=3,
            markersize=5,
        )
    for number, (name, level) in enumerate((levels or {}).items()):
        axis.axhline(level, color="black", linewidth=1, linestyle=(":", "--", "-.")[number % 3], label=name)
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
    figure, axis = style.titled((7, 3.5), title)
    axis.plot(asked["step"], asked["sparsity"], color=style.COLOURS[0], label="the schedule")
    for number, (layer, part) in enumerate(logged.groupby("layer", sort=False), 1):
        look = number % len(style.COLOURS)
        axis.plot(
            part["step"],
            part["sparsity"],
            style.MARKERS[look],
            color=style.COLOURS[look],
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
    figure, axis = style.titled((4.6, 3.6), title)
    picture = axis.imshow(kept, cmap="cividis", vmin=0)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    figure.colorbar(picture, ax=axis, format=PercentFormatter(1, decimals=0), label="weights kept")
    return figure


def histogram(before, after, title, x_label="weight"):
    """Two sets of weights (any shape) over the same bins, counts on a log scale."""
    figure, axis = style.titled((7, 3.2), title)
    bins = np.linspace(*np.quantile(np.concatenate([np.ravel(before), np.ravel(after)]), [0.0005, 0.9995]), 81)
    axis.hist(np.ravel(before), bins, color=style.COLOURS[0], alpha=0.35, label="before")
    axis.hist(np.ravel(after), bins, color=style.COLOURS[5], histtype="step", linewidth=1.5, label="after")
    axis.set(yscale="log", xlabel=x_label, ylabel="how many")
    axis.legend()
    return figure


def intervals(frame, title, x_label, reference=None, percent=False):
    """Estimates one above the other: frame indexed by name with value, low, high; `reference` draws a vertical line. percent:
    they are differences of shares, to be told in points."""
    figure, axis = style.titled((7, 0.9 + 0.42 * len(frame)), title)
    rows = range(len(frame))[::-1]
    bars = [frame["value"] - frame["low"], frame["high"] - frame["value"]]
    axis.errorbar(frame["value"], rows, xerr=bars, fmt="o", color=style.COLOURS[0], capsize=4)
    if reference is not None:
        axis.axvline(reference, color="black", linewidth=1, linestyle=":")
    if percent:
        axis.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}" if share else "0")
        axis.locator_params("x", nbins=6)
    axis.set_yticks(rows, frame.index)
    axis.set(xlabel=f"{x_label}, points" if percent else x_label, ylim=(-0.6, len(frame) - 0.4))
    return figure


def channels(frame, title, y_label):
    """A mark for every channel of every layer, layers side by side in the order of the network, on a log scale: frame with
    layer, kind, range; kind gives colour and mark. A channel of range 0 is left out."""
    figure, axis = style.titled((11, 4), title)
    places = {layer: place for place, layer in enumerate(frame["layer"].unique())}
    for number, (kind, part) in enumerate(frame[frame["range"] > 0].groupby("kind", sort=False)):
        where = part["layer"].map(places) + 0.5 * (
            part["channel"] / frame.groupby("layer")["channel"].max().max() - 0.5
        )
        axis.plot(
            where,
            part["range"],
            style.MARKERS[number],
            color=style.COLOURS[number],
            markersize=3,
            alpha=0.5,
            label=kind,
        )
    axis.set(yscale="log", xlabel="layer, from the input to the logits", ylabel=y_label, xlim=(-1, len(places)))
    axis.legend(markerscale=2)
    return figure


def sensitivity(frame, title, unit="KL divergence of the outputs, nats"):
    """The network as bars, a layer each from input to output: height is the damage (log scale) when it is quantized alone; colour
    and hatching tell its kind. unit: of the damage, in words. frame: what `sensitivity.sweep` returned, with a column kind; where
    it has a column scheme, each has a row of its own."""
    alone = frame[frame["mode"] == "alone"]
    alone = alone if "scheme" in alone else alone.assign(scheme="")
    schemes, layers = list(alone["scheme"].unique()), list(alone["layer"].unique())
    size = (max(7, 0.2 * len(layers) + 2), 2.4 + 2 * len(schemes))
    figure, axes = style.titled(size, title, len(schemes), 1, sharex=True)
    for axis, scheme in zip(np.ravel(axes), schemes, strict=True):
        part = alone[alone["scheme"] == scheme]
        damage = part["damage"].clip(lower=1e-6)
        for number, kind in enumerate(alone["kind"].unique()):
            here = part["kind"] == kind
            axis.bar(
                [layers.index(layer) for layer in part["layer"][here]],
                damage[here],
                color=style.COLOURS[number % len(style.COLOURS)],
                hatch=style.HATCHES[number % len(style.HATCHES)],
                edgecolor="white",
                label=kind,
            )
        axis.set(yscale="log", ylim=(1e-6, 3 * alone["damage"].max()), xlim=(-1, len(layers)))
        axis.set_title(scheme, fontsize=10, fontweight="normal")
        axis.grid(axis="x", visible=False)
    lowest = np.ravel(axes)[-1]
    lowest.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
    figure.supylabel(f"damage: {unit}", fontsize=10)
    figure.legend(*lowest.get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


def views(frame, by, y, y_label, columns, title):
    """The same models from several sides, a panel each: y (a share, with low and high) over each column, a line for every
    value of column `by`. columns: name -> label; values up to 1 in all rows are shown as percent."""
    figure, axes = style.titled((5.5 * len(columns), 4.2), title, 1, len(columns), sharey=True)
    for axis, (column, label) in zip(np.ravel(axes), columns.items(), strict=True):
        for number, (name, part) in enumerate(frame.groupby(by, sort=False)):
            part = part.sort_values(column)
            axis.errorbar(
                part[column],
                part[y],
                yerr=[part[y] - part["low"], part["high"] - part[y]],
                color=style.COLOURS[number],
                marker=style.MARKERS[number],
                linestyle=style.LINES[number],
                capsize=3,
                label=name,
            )
        if frame[column].max() <= 1:
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.set(xlabel=label)
    np.ravel(axes)[0].set_ylabel(y_label)
    figure.legend(*np.ravel(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def waterfall(frame, title):
    """The steps of a pipeline, each alone and together, as bars from top to bottom: frame indexed by step with
    milliseconds, and value, low, high of how many times as fast as the first row it is."""
    figure, axis = style.titled((9, 1 + 0.5 * len(frame)), title)
    rows = np.arange(len(frame))[::-1]
    bars = axis.barh(rows, frame["milliseconds"], 0.6, color=style.COLOURS[0], edgecolor="white")
    for bar in (bars[0], bars[-1]):
        bar.set(facecolor=style.COLOURS[5], hatch="//")
    factors = [
        f" {row.milliseconds:,.0f} ms, x{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in frame.itertuples()
    ]
    axis.bar_label(bars, factors, padding=2, fontsize=9)
    axis.set_yticks(rows, frame.index)
    axis.set(xlabel="milliseconds (left is better)", xlim=(0, 1.4 * frame["milliseconds"].max()))
    axis.grid(axis="y", visible=False)
    return figure


def event_log(scalars, histograms, title, x_label, y_label, histogram_label, names):
    """What was logged: a scalar of several runs over the steps, and a histogram of one run at a few steps, one under the other.

    scalars: run, step, value. histograms: step, left, right, count, of as many steps as can be told apart. names: step -> what
    it stands for.
    """
    figure, axes = style.titled((11, 4.4), title, 1, 2)
    for number, (run, part) in enumerate(scalars.groupby("run", sort=False)):
        look = {"color": style.COLOURS[number], "marker": style.MARKERS[number], "linestyle": style.LINES[number]}
        axes[0].plot(part["step"], part["value"], markersize=3, label=run, **look)
    axes[0].set(xlabel=x_label, ylabel=y_label)
    axes[0].legend()
    steps, ends = sorted(histograms["step"].unique()), []
    for place, step in enumerate(steps):
        part = histograms[histograms["step"] == step].sort_values("left")
        density = part["count"] / (part["right"] - part["left"]).clip(lower=1e-9)
        heights = 0.85 * density / density.max() - place
        axes[1].stairs(
            heights,
            [*part["left"], part["right"].iloc[-1]],
            baseline=-place,
            fill=True,
            color=style.COLOURS[place % len(style.COLOURS)],
        )
        reached = part["count"].cumsum() / part["count"].sum()
        ends += [part["left"][reached >= 0.005].iloc[0], part["right"][reached >= 0.995].iloc[0]]
    axes[1].set_yticks([-place for place in range(len(steps))], [f"{step}: {names[step]}" for step in steps])
    axes[1].set(xlabel=histogram_label, xlim=(min(ends), max(ends)), ylim=(-len(steps) + 0.9, 1))
    return figure
