"""Docstrings come through docutils as they were meant: no word lost, and no markup but theirs."""

import inspect
import io

import pytest
from docutils import nodes
from docutils.core import publish_doctree

import helpers
from helpers.base import errors
from helpers.evidence import stats
from helpers.lab import docstrings


def parsed(text, names=(), known=None):
    """The document that docutils makes of a docstring; fails on whatever it warns of."""
    told = io.StringIO()
    lines = [line.replace(":py:obj:", ":title:") for line in docstrings.as_restructured(text, names, known)]
    tree = publish_doctree("\n".join(lines), settings_overrides={"warning_stream": told, "report_level": 1})
    assert not told.getvalue(), told.getvalue()
    return tree


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "x_: samples, |x| * 2 ** n_, of *args and **options; see `_x` and C:\\dir.",
        "A pair: (a, b), 1 -> 2. Trailing_ underscore_, `` and :role: and ::",
        "Named `a` or `b`s, not`c`.",
        'One of "*", "*_expand", and max|X_j|^a * b * c.',
        ".. note:: this is none\n\n= not a title =\n--------------",
        "<https://example.org> [link](to.md) ![image](x.png) &amp; <b>",
    ],
)
def test_what_is_no_markup_stays_as_it_is(text):
    tree = parsed(text)
    assert words(tree.astext()) == words(text.replace("`` and", "\0").replace("`", "").replace("\0", "`` and"))
    assert not list(tree.findall(nodes.emphasis)) and not list(tree.findall(nodes.strong))


def test_code_emphasis_lists_and_indented_lines_are_what_they_are():
    tree = parsed(
        "See `x(*y)` in *A long\ntitle, 2*:\n\n- one\n  more;\n- *two*.\n\nSo:\n\n    run = f(*x)  # as `y`\n"
    )
    assert [node.astext() for node in tree.findall(nodes.literal)] == ["x(*y)"]
    assert [words(node.astext()) for node in tree.findall(nodes.emphasis)] == ["A long title, 2", "two"]
    assert [words(node.astext()) for node in tree.findall(nodes.list_item)] == ["one more;", "two."]
    assert [node.astext() for node in tree.findall(nodes.literal_block)] == ["run = f(*x)  # as `y`"]


def test_a_parameter_is_bold_where_it_is_explained_and_not_elsewhere():
    text = "Take x, or y_z.\n\nx, y_z: arrays. See: x. limit: such as x: 1; other: none."
    found = [node.astext() for node in parsed(text, ("x", "y_z", "limit")).findall(nodes.strong)]
    assert found == ["x", "y_z", "limit"]


def test_what_has_a_page_is_led_to_by_short_and_full_name():
    known = docstrings.objects([stats, errors])
    assert known["stats.Estimate"] == known["Estimate"] == "helpers.evidence.stats.Estimate"
    assert known["errors.InputError"] == "helpers.base.errors.InputError"
    assert not any(name.startswith("_") or name in ("np", "dataclass") for name in known)
    lines = docstrings.as_restructured("As `stats.Estimate` and `stats.nosuch`.", (), known)
    assert lines == [r"As \ :py:obj:`stats.Estimate <helpers.evidence.stats.Estimate>`\  and \ ``stats.nosuch``\ ."]


def test_a_short_name_of_two_leads_nowhere():
    both = docstrings.objects([helpers.rescue, helpers.sensitivity, helpers.bits])
    assert "search" in both and "sweep" not in both and "bits.sweep" in both and "sensitivity.sweep" in both


@pytest.mark.parametrize("name", ["gate", "requantize", "verdicts", "outliers", "causes", "stats", "tflite_graph"])
def test_the_docstrings_of_the_lab_lose_no_word(name):
    module = getattr(helpers, name)
    own = [it for it in vars(module).values() if getattr(it, "__module__", None) == module.__name__]
    for thing in [module, *own]:
        text = inspect.getdoc(thing) or ""
        told = parsed(text, docstrings.names_of(thing)).astext()
        assert letters(told) == letters(text)


def letters(text):
    return "".join(letter for letter in text if letter.isalnum())
