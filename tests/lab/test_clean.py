"""A clean copy keeps what runs and what orders it, and nothing that gives the answer away."""

import itertools

import nbformat
import pytest
from markdown_it import MarkdownIt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from helpers.base import repository
from helpers.lab import clean


@pytest.mark.parametrize("path", sorted(repository.NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_all_code_and_all_headings_stay_and_nothing_else(path):
    notebook = nbformat.read(path, as_version=4)
    before = nbformat.writes(notebook)
    twin = clean.stripped(notebook)
    nbformat.validate(nbformat.reads(nbformat.writes(twin), as_version=4))
    code, theirs = ([cell for cell in it.cells if cell.cell_type == "code"] for it in (notebook, twin))
    assert [(cell.source, cell.id, cell.metadata) for cell in code] == [
        (cell.source, cell.id, cell.metadata) for cell in theirs
    ]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in theirs)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in theirs) == 1
    lines = [line for cell in twin.cells if cell.cell_type != "code" for line in cell.source.splitlines() if line]
    assert lines and all(line.startswith("#") for line in lines)
    parsed = [MarkdownIt().parse(cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]
    told = [after.content for it in parsed for token, after in itertools.pairwise(it) if token.type == "heading_open"]
    assert [line.lstrip("#").strip() for line in lines] == told
    assert nbformat.writes(notebook) == before, "the recorded one is left alone"


def test_a_heading_in_prose_stays_alone_and_one_in_code_is_none():
    cells = [
        new_markdown_cell("Prose.\n\n## Ask & `see`\nMore.\n### Below\n#hashtag\n```\n# a comment\n```", id="a"),
        new_code_cell("1 + 1", outputs=[new_output("stream", text="2")], execution_count=3, id="b"),
        new_markdown_cell("Two.", id="c"),
        new_raw_cell("# raw", id="d"),
        new_code_cell("", id="e"),
    ]
    twin = clean.stripped(new_notebook(cells=cells))
    assert [cell.source for cell in twin.cells] == ["## Ask & `see`\n\n### Below", "1 + 1", ""]


def test_what_a_heading_shows_from_an_attachment_goes():
    cell = new_markdown_cell("# A\n![b](attachment:b.png)", attachments={"b.png": {"image/png": "AAAA"}})
    twin = clean.stripped(new_notebook(cells=[cell]))
    assert "attachments" not in twin.cells[0] and "attachments" in cell
