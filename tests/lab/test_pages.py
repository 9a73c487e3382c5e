"""The contents follow the notebooks and guides that there are."""

import pytest

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import pages
from tests.lab import own


@pytest.fixture
def lab(tmp_path, monkeypatch):
    return own.lay_out(tmp_path, monkeypatch)


def test_pages_stand_in_reading_order(lab):
    assert list(pages.groups(own.commands)) == ["The core path", "Guides", "Reference"]
    lab("notebooks/02_aside.ipynb", "# Aside?", leaves="01")
    lab("notebooks/zh/00_first.ipynb", "# 首先？")
    lab("notebooks/template.ipynb", "# A title")
    lab("notebooks/mine.ipynb", "No title")
    lab("WORKSHOP.md", "# Workshop")
    lab("README.zh.md", "Prose.\n\n# 实验室")
    listed = pages.groups(own.commands)
    assert {caption: [page.label for page in group] for caption, group in listed.items()} == {
        "The core path": ["00 First?", "01 Second x?"],
        "Side paths": ["02 Aside?"],
        "Your own": ["mine"],
        "Guides": ["Downloads", "Workshop"],
        "中文": ["实验室", "00 首先？"],
        "Reference": ["Commands", "Python"],
    }
    notebooks = [f"notebooks/{name}.ipynb" for name in ("00_first", "01_second", "02_aside", "mine")]
    made = ["commands.md", "api/index.md", "api/stats.rst"]
    files = [page.file for page in pages.flat(pages.home(), listed)]
    assert files == [
        "index.md",
        *notebooks,
        "downloads.md",
        "WORKSHOP.md",
        "README.zh.md",
        "notebooks/zh/00_first.ipynb",
        *made,
    ]


def test_the_contents_lead_to_pages_by_their_labels(lab):
    notebooks = "00 First? </notebooks/00_first>\n01 Second x? </notebooks/01_second>"
    assert pages.contents({"Path": pages.notebooks()["The core path"], "": [pages.home()]}) == (
        f"```{{toctree}}\n:hidden:\n:caption: Path\n\n{notebooks}\n```\n\n"
        "```{toctree}\n:hidden:\n\nThe lab </index>\n```\n"
    )


def test_downloads_offer_what_there_is(lab):
    lab("notebooks/exercises/01_second.ipynb", "# Exercises")
    rows = pages.downloads(pages.notebooks()).splitlines()[-2:]
    assert 'href="_sources/notebooks/00_first.ipynb" download>' in rows[0] and "exercises" not in rows[0]
    assert 'href="clean/01_second.ipynb" download>' in rows[1] and "](notebooks/exercises/01_second.ipynb)" in rows[1]
    assert "[00 First?](notebooks/00_first.ipynb)" in rows[0]


def test_without_readme_or_notebooks_there_is_no_site(lab):
    (repository.REPOSITORY / "README.md").unlink()
    with pytest.raises(
        InputError, match=r"there is no README\.md in .*: a site is made in a copy of the repository\.$"
    ):
        pages.home()
    for path in repository.NOTEBOOKS.glob("*.ipynb"):
        path.unlink()
    with pytest.raises(InputError, match="there are no notebooks in notebooks/"):
        pages.groups(own.commands)
