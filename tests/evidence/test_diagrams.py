"""Diagrams say what is true: the integers that they show are those of the arithmetic."""

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
