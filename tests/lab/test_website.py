"""Links lead from page to page and to copies of files, broken ones are named, and the former site outlives a failure."""

import builtins
import re
import subprocess
import sys

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.__main__ import main
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import pages, website
from tests.lab import own


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return own.lay_out(tmp_path, monkeypatch)


def staged():
    """What Sphinx would read: a Staged, and the texts of its pages by place."""
    found = website.stage(pages.home(), pages.groups(own.commands))
    texts = {place: content.decode() for place, content in found.files.items() if place.endswith((".md", ".rst"))}
    for place, content in found.files.items():
        if place.endswith(".ipynb"):
            cells = nbformat.reads(content.decode(), as_version=4).cells
            texts[place] = "\n\n".join(cell.source for cell in cells)
    return found, texts


def test_links_lead_from_page_to_page_and_to_copies_of_files(lab):
    lab("data/my card.md", "content")
    lab("figures/a.svg", "<svg/>")
    lab("notebooks/exercises/01_second.ipynb", "# Exercises")
    lab(
        "WORKSHOP.md",
        "# Workshop\n[back](README.md#the-lab 'home') [out](https://example.org/a.ipynb) [here](#workshop)",
    )
    text = "# First\n[next](01_second.ipynb) [`card`](<../data/my card.md>) ![see](../figures/a.svg) [so](exercises/01_second.ipynb)"
    lab("notebooks/00_first.ipynb", f"{text} [home](../README.md)\n`[not](a_link.md)`\n```\n[nor](this.md)\n```")
    found, texts = staged()
    assert not found.broken
    first = texts["notebooks/00_first.ipynb"]
    for link in (
        "[next](<01_second.ipynb>)",
        "[`card`](<path:../data/my card.md>)",
        "![see](<../figures/a.svg>)",
        "[so](<path:exercises/01_second.ipynb>)",
        "[home](<../index.md>)",
        "`[not](a_link.md)`\n```\n[nor](this.md)\n```",
    ):
        assert link in first
    assert found.files["data/my card.md"] == b"content" and found.files["figures/a.svg"] == b"<svg/>"
    assert (
        "[back](<index.md#the-lab> 'home') [out](https://example.org/a.ipynb) [here](#workshop)" in texts["WORKSHOP.md"]
    )


def test_files_are_at_the_repository_s_address_if_it_has_one(lab, monkeypatch):
    lab("data/my card.md", "content")
    lab("figures/a.svg", "<svg/>")
    lab(
        "README.md",
        "# The lab\n[card](<data/my card.md>) [all](data) ![see](figures/a.svg) [first](notebooks/00_first.ipynb)",
    )
    assert "[card](<path:data/my card.md>) all ![see](<figures/a.svg>)" in staged()[1]["index.md"], (
        "no page shows a folder"
    )
    monkeypatch.setenv(repository.ADDRESS_VARIABLE, "https://github.com/someone/lab.git/")
    found, texts = staged()
    address = "https://github.com/someone/lab"
    assert f"[card](<{address}/blob/main/data/my%20card.md>) [all](<{address}/tree/main/data>)" in texts["index.md"]
    assert "![see](<figures/a.svg>) [first](<notebooks/00_first.ipynb>)" in texts["index.md"]
    assert "data/my card.md" not in found.files and not found.broken


def test_the_address_is_the_variable_s_or_else_pyproject_s(lab, monkeypatch):
    assert repository.address() is None
    lab("pyproject.toml", '[project]\nname = "x"\n')
    assert repository.address() is None
    lab("pyproject.toml", '[project.urls]\nRepository = "https://github.com/someone/lab/"\n')
    assert repository.address() == "https://github.com/someone/lab"
    monkeypatch.setenv(repository.ADDRESS_VARIABLE, "https://example.org/fork")
    assert repository.address() == "https://example.org/fork"


def test_every_broken_link_is_named_and_nothing_written(lab):
    lab(
        "notebooks/00_first.ipynb",
        "# First\n[a](gone.ipynb) ![b](../figures/gone.svg) [c](/etc/passwd) ![d](../notebooks)",
    )
    ran = CliRunner().invoke(main, ["site"])
    assert ran.exit_code == 2 and ran.output.count("\n") == 1
    for link in ("gone.ipynb", "../figures/gone.svg", "/etc/passwd", "../notebooks"):
        assert f"00_first.ipynb to {link}" in ran.output
    assert not (repository.output_root()).exists()


def test_marks_of_what_is_generated_do_not_show(lab):
    table = "<!-- begin notebooks -->\n| a | b |\n| --- | --- |\n<!-- end notebooks -->\n"
    lab(
        "README.md",
        f"# The lab\n\nIt costs <!-- value quick 01 x .1f -->5 points [4, 6]<!-- end -->.\n\n{table}\n<!-- kept -->",
    )
    text = staged()[1]["index.md"]
    assert text.startswith("# The lab\n\nIt costs 5 points [4, 6].\n\n| a | b |\n| --- | --- |\n\n<!-- kept -->")


def test_a_notebook_is_offered_behind_its_title_and_its_clean_copy_has_no_prose(lab):
    cells = [
        new_markdown_cell("# First\nProse.", id="a"),
        new_code_cell("1", outputs=[new_output("stream", text="1")], id="b"),
    ]
    repository.write(repository.NOTEBOOKS / "00_first.ipynb", nbformat.writes(new_notebook(cells=cells)))
    found, texts = staged()
    offered = texts["notebooks/00_first.ipynb"]
    assert re.match(
        r"# First\nProse\.\n\nSave this <a href=\"\.\./_sources/notebooks/00_first\.ipynb\" download>", offered
    )
    assert '<a href="../clean/00_first.ipynb" download>clean copy</a>' in offered and offered.endswith("\n\n1")
    twin = nbformat.reads(found.extra["clean/00_first.ipynb"].decode(), as_version=4)
    assert [cell.source for cell in twin.cells] == ["# First", "1"] and twin.cells[1].outputs == []


def test_what_sphinx_warns_of_is_told_and_the_former_site_stays(lab):
    lab("runs/site/index.html", "former")
    lab("notebooks/00_first.ipynb", "# First\n[there](../README.md#nosuch)")
    with pytest.raises(
        InputError, match=r"^the site is not written, for Sphinx says: notebooks/00_first\.ipynb.*nosuch"
    ):
        website.build(own.commands)
    assert [path.name for path in repository.output_root().iterdir()] == ["site"]
    assert (repository.output_root() / "site" / "index.html").read_text() == "former"


@pytest.mark.parametrize("address", ["https://gitlab.com/someone/lab", "https://git.example.org/someone/lab"])
def test_an_address_elsewhere_is_linked_as_far_as_it_is_known(lab, monkeypatch, address):
    lab("LICENSE", "free")
    lab("README.md", "# The lab\n[licence](LICENSE)")
    monkeypatch.setenv(repository.ADDRESS_VARIABLE, address)
    index = website.build(own.commands)
    page = (index.parent / "notebooks" / "00_first.html").read_text()
    assert "colab" not in page and ("mybinder.org/v2/gl/someone%2Flab/main" in page) == ("gitlab" in address)
    assert (f'href="{address}/blob/main/LICENSE"' in index.read_text()) == ("gitlab" in address)
    assert len(list(index.parent.glob("_downloads/*/LICENSE"))) == ("gitlab" not in address)


def test_launch_buttons_and_formulas(lab, monkeypatch):
    monkeypatch.setenv(repository.ADDRESS_VARIABLE, "https://github.com/someone/lab")
    lab("notebooks/00_first.ipynb", "# First\nHere $x^2$, and for 5$ or 6$, `$HOME` stays.\n\n$$y = \\frac{a}{b}$$")
    lab("runs/site/old.html", "former")
    told = []
    index = website.build(own.commands, told.append)
    assert index == repository.output_root() / "site" / "index.html" and not (index.parent / "old.html").exists()
    assert told == ["Sphinx writes 7 pages: half a minute or so."]
    page = (index.parent / "notebooks" / "00_first.html").read_text()
    for launch in (
        "https://colab.research.google.com/github/someone/lab/blob/main/notebooks/00_first.ipynb",
        "https://mybinder.org/v2/gh/someone/lab/main?urlpath=lab/tree/notebooks/00_first.ipynb",
    ):
        assert f'href="{launch}"' in page and launch not in index.read_text()
    assert page.count("<math") == 2 and "5$ or 6$" in page and "jsdelivr" not in page
    sources = index.parent / "_sources" / "notebooks" / "00_first.ipynb"
    assert sources.read_bytes() == (repository.NOTEBOOKS / "00_first.ipynb").read_bytes(), (
        "what is saved is what is recorded"
    )


def test_a_formula_that_nobody_can_read_is_told(lab):
    lab("notebooks/00_first.ipynb", "# First\nHere $\\nosuch{x}$.")
    with pytest.raises(InputError, match=r"notebooks/00_first\.ipynb.*nosuch"):
        website.build(own.commands)


def test_help_waits_for_nothing():
    code = "import sys\nfrom helpers.__main__ import main\nmain(['site', '--help'], standalone_mode=False)\nprint([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    help_text, _, loaded = done.stdout.rpartition("\n[")
    assert "works offline" in help_text and "'click'" in loaded
    assert not re.search(r"'(sphinx|tensorflow|nbformat|pandas|numpy)'", loaded)


def test_without_sphinx_the_cure_is_named(lab, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **settings):
        if name == "myst_nb":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", missing)
    ran = CliRunner().invoke(main, ["site"])
    assert ran.exit_code == 2
    assert ran.output == 'Error: the site needs myst-nb, which is not installed: pip install "compression-lab[site]".\n'
