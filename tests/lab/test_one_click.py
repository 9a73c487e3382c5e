"""The cell that installs the package: where it stands, and what it says; that it works is tried in tests/whole/test_wheel.py."""

import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.base import repository
from helpers.base.errors import MissingError
from helpers.lab import one_click


def lesson():
    return new_notebook(
        cells=[
            new_markdown_cell("# A question?", id="title"),
            new_code_cell("from helpers import lab", id="imports", execution_count=1),
        ]
    )


def test_it_stands_before_all_code_and_changes_nothing_else(tmp_path):
    path = tmp_path / "lesson.ipynb"
    path.write_text(nbformat.writes(lesson()) + "\n")
    assert one_click.apply([path]) == ["lesson"]
    title, cell, *rest = nbformat.read(path, as_version=4).cells
    assert [title, *rest] == lesson().cells
    assert cell.metadata.tags == [one_click.TAG] and cell.source == one_click.cell() and not cell.execution_count
    assert one_click.apply([path]) == []  # nor a second time


def test_a_former_text_is_replaced_and_a_run_cell_stays_as_it_is():
    node = one_click.applied(lesson())
    node.cells[1].execution_count = 1
    assert one_click.applied(copy.deepcopy(node)) == node
    node.cells[1].source = "import os"
    again = one_click.applied(node)
    assert (
        len(again.cells) == 3 and again.cells[1].source == one_click.cell() and again.cells[1].execution_count is None
    )


@pytest.mark.parametrize(
    ("urls", "wanted"),
    [
        ("", '"COMPRESSION_LAB_SOURCE") or ""'),
        ('[project.urls]\nRepository = "https://host/me/lab"\n', '"compression-lab[lab] @ git+https://host/me/lab"'),
    ],
)
def test_the_address_stands_in_one_place(urls, wanted, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "compression-lab"\n{urls}')
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    assert wanted in one_click.cell() and len(one_click.cell().splitlines()) <= 6
    assert max(len(line.replace(one_click.source(), "")) for line in one_click.cell().splitlines()) <= 100


def test_here_it_does_nothing(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    exec(one_click.cell(), {})


def test_without_an_address_its_error_names_the_cure(monkeypatch):
    monkeypatch.delenv(one_click.VARIABLE, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if not one_click.source():
        with pytest.raises(AssertionError, match=r"set COMPRESSION_LAB_SOURCE, as in .*git\+https://…"):
            exec(one_click.cell(), {})


def test_an_installed_package_has_no_notebooks_to_write(monkeypatch):
    monkeypatch.setattr(repository, "INSTALLED", True)
    with pytest.raises(MissingError, match=r"one_click works on the repository, .* clone it"):
        one_click.apply()
