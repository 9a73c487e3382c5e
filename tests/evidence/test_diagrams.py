"""Diagrams say what is true: the integers that they show are those of the arithmetic."""

import numpy as np
import pandas as pd

from helpers.evidence import diagrams, style


def test_the_number_line_shows_the_integers_of_affine_quantization():
    figure = diagrams.number_line([-0.9, 0, 0.31, 1.4, 2.6, 3.9], 0.2, -4, 4, "a title")
    [axis] = figure.axes
    texts = [text.get_text() for text in axis.texts if text.get_text()]
    assert texts[0::2][:6] == ["-0.9", "0", "0.31", "1.4", "2.6", "3.9"]
    assert texts[1::2][:6] == ["-8", "-4", "-2", "3", "7", "7"]
    clamped = [arrow.arrow_patch.get_linestyle() for arrow in axis.texts if getattr(arrow, "arrow_patch", None)]
    assert clamped == ["-", "-", "-", "-", "--", "--"]
    assert figure._suptitle.get_text() == "a title"


def test_eight_bits_draw_some_of_their_steps_and_other_ends():
    figure = diagrams.number_line([0.0, 10.0], 0.05, 0, 8)
    [axis] = figure.axes
    assert [text.get_text() for text in axis.texts if text.get_text()][1::2][:2] == ["0", "127"]
    assert len(axis.collections[1].get_segments()) <= 64
    style.plt.close(figure)


def test_the_mask_takes_the_smallest_and_the_schedule_is_marked_where_it_reaches_a_share():
    kernel = np.arange(1, 17, dtype=float).reshape(4, 4)
    rise = pd.DataFrame({"step": range(11), "share": np.linspace(0, 1, 11)})
    *pictures, curve = diagrams.pruning(kernel, [0, 0.25, 0.5], rise).axes
    assert [len(axis.texts) for axis in pictures] == [0, 4, 8]
    assert np.isnan(pictures[1].images[0].get_array().filled(np.nan)).sum() == 4
    assert list(curve.lines[1].get_xdata()) == [0, 3, 5]


def test_fake_quantization_rounds_forward_and_passes_the_gradient_inside():
    forward, backward = diagrams.fake_quantization(0.25, -1, 1).axes
    x, y = forward.lines[1].get_data()
    assert set(np.unique(y / 0.25)) == set(range(-4, 5)) and np.abs(y - x)[np.abs(x) < 1].max() <= 0.126
    x, factor = backward.lines[0].get_data()
    assert (factor == (np.abs(x) <= 1)).all()


def test_one_scale_leaves_a_small_channel_fewer_steps():
    draw = np.random.default_rng(0).normal(size=12)
    shared, own = diagrams.scales({"large": draw, "small": 0.1 * draw}, 15).axes
    used = [[int(text.get_text().split()[0]) for text in axis.texts] for axis in (shared, own)]
    assert used[0][0] == used[1][0] == used[1][1] > 2 * used[0][1]


def test_outcomes_and_surgery_draw_what_they_are_given():
    [axis] = diagrams.outcomes(-2, {"accepted": (-1, 0, 1), "rejected": (-5, -4, -3)}).axes
    assert {"accepted", "rejected", " limit -2 "} <= {text.get_text() for text in axis.texts}
    inside, stream = diagrams.surgery().axes
    gone = [sum(patch.get_linestyle() == "--" for patch in axis.patches) for axis in (inside, stream)]
    assert gone == [1, 2]


def test_a_map_puts_side_paths_after_the_station_that_they_leave():
    [axis] = diagrams.paths(["one", "two"], {"aside": "one"}).axes
    down = {text.get_text(): -text.get_position()[1] for text in axis.texts}
    across = {text.get_text(): text.get_position()[0] for text in axis.texts}
    assert down == {"one": 0, "aside": 1, "two": 2} and across["aside"] > across["one"] == across["two"]
