"""A repository of a test's own, to make a site of."""

import click
import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers.base import repository
from helpers.evidence import stats
from helpers.lab import exercises, reference


@click.group()
def commands():
    """What one can do."""


@commands.command()
def nothing():
    """Do nothing."""


def lay_out(folder, monkeypatch):
    """Make `folder` the repository, with a README, two notebooks, and a reference of one module; returns what adds a file, given its
    name and text, which for a notebook is its one cell of Markdown, and what a notebook says of itself."""
    monkeypatch.setattr(repository, "REPOSITORY", folder)
    monkeypatch.setattr(repository, "NOTEBOOKS", folder / "notebooks")
    monkeypatch.setattr(exercises, "EXERCISES", folder / "notebooks" / "exercises")
    monkeypatch.setattr(reference, "groups", lambda: {"To take home": {"stats": stats}})
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(folder / "runs"))
    monkeypatch.delenv(repository.ADDRESS_VARIABLE, raising=False)

    def add(name, text, **settings):
        if name.endswith(".ipynb"):
            text = nbformat.writes(new_notebook(cells=[new_markdown_cell(text, id="only")], metadata={"lab": settings}))
        return repository.write(folder / name, text)

    add("README.md", "# The lab\n\n[first](notebooks/00_first.ipynb)")
    add("notebooks/00_first.ipynb", "# First?")
    add("notebooks/01_second.ipynb", "# Second `x`?")
    return add
