"""Figures: each is returned, says what it shows, is left to the caller, and exports to the same bytes every time."""

import matplotlib

matplotlib.use("agg")  # a test needs no window

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers.base import repository
from helpers.evidence import plots, style

TITLE = "Four of five weights go unnoticed"
RANDOM = np.random.default_rng(0)
POINTS = pd.DataFrame(
    {
        "sparsity": [0.5, 0.8, 0.95] * 2,
        "top-1": [0.95, 0.94, 0.8, 0.94, 0.9, 0.5],
        "low": [0.93, 0.92, 0.75, 0.92, 0.88, 0.4],
        "high": [0.96, 0.95, 0.85, 0.95, 0.92, 0.6],
        "by": ["ramp"] * 3 + ["constant"] * 3,
    }
)
ASKED = pd.DataFrame({"step": range(5), "sparsity": [0.5, 0.6, 0.7, 0.75, 0.8]})
LOGGED = pd.DataFrame({"layer": ["hidden_1", "logits"] * 2, "step": [0, 0, 4, 4], "sparsity": [0.5, 0.5, 0.8, 0.8]})
ESTIMATES = pd.DataFrame(
    {"value": [-0.01, 0.02], "low": [-0.03, 0.01], "high": [0.01, 0.03]}, ["pruned", "dynamic range"]
)
SIZES = pd.DataFrame({"raw": [941_000, 61_000], "gzip": [856_000, 55_000]}, ["dense", "in blocks"])
COSTS = ESTIMATES.assign(raw=[941_000, 61_000], ratio=[1.0, 1.5], ratio_low=[0.9, 1.4], ratio_high=[1.1, 1.6])
PICTURES = RANDOM.integers(0, 256, (12, 8, 8), np.uint8)
KERNEL = np.where(RANDOM.random((64, 20)) < 0.8, 0, RANDOM.normal(size=(64, 20)))

FIGURES = {
    "images": lambda: plots.images(PICTURES, range(12), TITLE),
    "images in colour": lambda: plots.images(np.zeros((3, 8, 8, 3), np.uint8), "abc", TITLE, columns=4),
    "curves": lambda: plots.curves(POINTS, "sparsity", "top-1", "by", TITLE, "sparsity", "top-1", percent="xy"),
    "curves without intervals": lambda: plots.curves(
        POINTS.drop(columns=["low", "high"]), "sparsity", "top-1", "by", TITLE, "sparsity", "top-1", log_x=True
    ),
    "curves at equal steps": lambda: plots.curves(
        POINTS, "sparsity", "top-1", "by", TITLE, "sparsity", "top-1", percent="x", equal_steps=True
    ),
    "schedule": lambda: plots.schedule(ASKED, LOGGED, TITLE),
    "input mask": lambda: plots.input_mask(KERNEL, (8, 8), TITLE),
    "histogram": lambda: plots.histogram(KERNEL, KERNEL[KERNEL != 0], TITLE),
    "intervals": lambda: plots.intervals(ESTIMATES, TITLE, "top-1", reference=0, percent=True),
    "sizes": lambda: plots.sizes(SIZES, TITLE),
    "tradeoff": lambda: plots.tradeoff(COSTS, TITLE),
}


@pytest.fixture(autouse=True)
def output(monkeypatch, tmp_path):
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path))
    return tmp_path / "figures"


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_each_figure_has_its_title_and_is_left_to_the_caller(make):
    figure = make()
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == TITLE
    assert plt.get_fignums() == []


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_each_figure_exports_to_the_same_bytes_every_time(output, make):
    written = []
    for _ in range(2):
        figure = make()
        assert plots.export(figure, "figure") is figure
        written.append((output / "figure.svg").read_bytes())
    assert written[0] == written[1]


def rows(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def test_curves_have_a_line_for_each_value_in_the_order_given():
    (axis,) = FIGURES["curves"]().axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["ramp", "constant"]
    for container, (_, part) in zip(axis.containers, POINTS.groupby("by", sort=False), strict=True):
        np.testing.assert_array_equal(container.lines[0].get_ydata(), part["top-1"])
        assert len(container.lines[2]) == 1, "no error bars"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("sparsity", "top-1")


def test_equal_steps_are_equally_far_apart_and_carry_their_values():
    (axis,) = FIGURES["curves at equal steps"]().axes
    assert axis.get_xticks().tolist() == [0, 1, 2]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["50%", "80%", "95%"]


def test_the_first_row_is_on_top():
    for name, labels in (("intervals", ESTIMATES.index), ("sizes", SIZES.index)):
        (axis,) = FIGURES[name]().axes
        assert rows(axis) == labels.tolist()
        assert axis.get_yticks()[0] > axis.get_yticks()[1]


def test_sizes_are_written_on_their_bars_in_kilobytes():
    (axis,) = FIGURES["sizes"]().axes
    assert [text.get_text() for text in axis.texts] == ["941", "61", "856", "55"]


def test_a_tradeoff_shows_differences_in_points_on_both_sides():
    for axis, places in zip(FIGURES["tradeoff"]().axes, ([941, 61], [1.0, 1.5]), strict=True):
        marks = [container.lines[0].get_xydata()[0].tolist() for container in axis.containers]
        assert marks == [[places[0], -1], [places[1], 2]]
        bars = [container.lines[2][-1].get_segments()[0][:, 1].tolist() for container in axis.containers]
        np.testing.assert_allclose(bars, [[-3, 1], [1, 3]])
    assert "points" in FIGURES["tradeoff"]().axes[0].get_ylabel()


def test_the_mask_shows_the_share_of_weights_that_each_pixel_keeps():
    axis = FIGURES["input mask"]().axes[0]
    np.testing.assert_array_equal(axis.images[0].get_array().ravel(), (KERNEL != 0).mean(axis=1))


def test_more_lines_than_colours_are_drawn_all_the_same():
    many = 2 * len(style.COLOURS)
    logged = pd.DataFrame({"layer": [f"hidden_{n}" for n in range(many)], "step": 0, "sparsity": 0.5})
    assert len(plots.schedule(ASKED, logged, TITLE).axes[0].lines) == many + 1
    frame = pd.DataFrame({"x": range(many), "y": range(many), "by": range(many)})
    assert len(plots.curves(frame, "x", "y", "by", TITLE, "x", "y").axes[0].containers) == many


def test_neighbouring_colours_differ_in_lightness():
    """So that they can be told apart in grey: by the luminance of ITU-R BT.709."""
    luminance = np.array([matplotlib.colors.to_rgb(colour) for colour in style.COLOURS]) @ [0.2126, 0.7152, 0.0722]
    assert (np.abs(np.diff(luminance)) > 0.05).all()


def test_a_guide_colours_numbers_and_leaves_words_white():
    frame = pd.DataFrame(
        {"data": ["none", "all"], "size": [2.0, 0.5], "points": [-1.0, 0.5], "speed": [0.998, 2]}, index=["a", "b"]
    )
    figure = plots.guide(frame, "Choose")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == [
        "none",
        "x2.00",
        "▼ -1.0",
        "x1.00",
        "all",
        "▼ x0.50",
        "+0.5",
        "x2.00",
    ]
    assert axis.patches[0].get_facecolor()[:3] == (1, 1, 1)
    assert axis.patches[1].get_facecolor() != axis.patches[5].get_facecolor()


def test_few_bits_writes_points_and_hatches_what_there_is_not():
    cell = {
        "network": "net",
        "algorithm": "octav",
        "activations": "static",
        "block": 0,
        "share": 1.0,
        "outcome": "runs",
    }
    frame = pd.DataFrame(
        [
            {**cell, "bits": 8, "change": 0.0},
            {**cell, "bits": 4, "change": -0.305, "share": 0.94},
            {**cell, "bits": 8, "algorithm": "min_max", "block": 32, "change": np.nan, "outcome": "no kernel"},
            {**cell, "bits": 4, "algorithm": "min_max", "block": 32, "change": -0.02},
            {**cell, "network": "other", "bits": 4, "change": -0.1},
        ]
    )
    figure = plots.few_bits(frame, TITLE)
    first, second = figure.axes
    assert [text.get_text() for text in first.texts] == ["+0.0", "-30.5\n94% of weights", "no kernel", "-2.0"]
    assert [patch.get_hatch() for patch in first.patches] == [None, None, "////", None]
    assert [label.get_text() for label in first.get_yticklabels()] == [
        "octav, static",
        "min_max, blocks of 32, static",
    ]
    assert [label.get_text() for label in second.get_xticklabels()] == ["8 bits", "4 bits"]
    light = [sum(patch.get_facecolor()[:3]) for patch in first.patches]
    assert light[0] > light[3] > light[1]  # the more is lost, the darker, also in grey
    assert [text.get_text() for text in second.texts] == ["-10.0"]


def test_a_ledger_has_a_row_for_each_claim_and_a_column_for_each_machine_of_each_profile():
    frame = pd.DataFrame(
        {
            "claim": ["C01", "C01", "C02", "C02", "C03"],
            "statement": ["x " * 80, "x " * 80, "short", "short", "other"],
            "profile": ["quick", "full", "quick", "quick", "full"],
            "machine": ["here", "here", "here", "there", "there"],
            "verdict": ["confirmed", "depends", "refuted", "confirmed", "refuted"],
        }
    )
    axis = plots.ledger(frame, "Verdicts").axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[1] == "C02  short" and labels[0].endswith("…")
    columns = [label.get_text() for label in axis.get_xticklabels()]
    assert columns == ["quick\nhere", "quick\nthere", "full\nhere", "full\nthere"]
    marks = {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.get_lines()}
    assert marks["confirmed"] == [(0, 0), (1, -1)] and marks["depends"] == [(2, 0)]
    assert marks["refuted"] == [(0, -1), (3, -2)]
