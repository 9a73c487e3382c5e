"""The pages of the site: which there are, in which groups and order."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import exercises, reference
from helpers.lab.notebook import overview, read, selected, title

HOME = "README.md"
GUIDES = ("WORKSHOP.md", "RESULTS.md", "CONTRIBUTING.md", "CHANGELOG.md")
CHINESE = ("README.zh.md", "RESULTS.zh.md")
BINDER = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
# Host whose addresses of files we know -> what starts a notebook from there, as the theme takes it.
HOSTS = {"github.com": {"colab_url": "https://colab.research.google.com", **BINDER}, "gitlab.com": BINDER}
TEMPLATE = "template.ipynb"  # for those who write a notebook, and no page
CLEAN = "clean"  # the folder of clean copies
DOWNLOADS = """# Downloads

Each notebook as it was recorded, and as a *clean copy*: its code and its headings, without prose and outputs, for those who
teach from it. Exercises have gaps to fill in, and check the answers. All of them need [this lab](README.md) to run.

| notebook | recorded | clean | to solve |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Page:
    """name: its place in the site without suffix, as "notebooks/01_mnist_mlp_pruning"; what has a source stands there in the
    repository, too, but for the home. label: in the contents. source: the file that is shown. suffix, text: of a page without one.
    below: pages that stand under this one in the contents."""

    name: str
    label: str
    source: Path | None = None
    suffix: str = ".md"
    text: str = ""
    below: tuple["Page", ...] = ()

    @property
    def file(self):
        """Its source in the folder that Sphinx reads, relative to that."""
        return self.name + (self.source.suffix if self.source else self.suffix)


def home():
    """The Page of README. Raises InputError if there is none."""
    if not (repository.REPOSITORY / HOME).is_file():
        raise InputError(f"there is no {HOME} in {repository.REPOSITORY}: a site is made in a copy of the repository.")
    return _guide(HOME, "index")


def hosted():
    """The repository's address and what starts a notebook from there; (None, {}) if it has none, or one at another host."""
    address = repository.address()
    launchers = HOSTS.get(urlsplit(address or "").netloc)
    return (address, launchers) if launchers else (None, {})


def groups(commands):
    """The contents of the site but for its home: caption -> Pages, in reading order. commands: the click group to describe."""
    guides, chinese = (
        [_guide(name) for name in names if (repository.REPOSITORY / name).is_file()] for names in (GUIDES, CHINESE)
    )
    translated = [
        _notebook(path, f"{path.stem[:2]} ", "zh/") for path in sorted(repository.NOTEBOOKS.glob("zh/*.ipynb"))
    ]
    api = [Page(f"api/{name}", name, None, ".rst", reference.page(name)) for name in reference.names()]
    lessons = notebooks()
    found = {
        **lessons,
        "Guides": [Page("downloads", "Downloads", text=downloads(lessons)), *guides],
        "中文": [*chinese, *translated],
        "Reference": [
            Page("commands", "Commands", text=reference.commands(commands)),
            Page("api/index", "Python", text=reference.index(), below=tuple(api)),
        ],
    }
    return {caption: pages for caption, pages in found.items() if pages}


def flat(home, listed):
    """A home, the Pages by caption, and those below them, one after another."""
    return [home, *(one for group in listed.values() for page in group for one in (page, *page.below))]


def notebooks():
    """The notebooks: caption -> Pages, in reading order; the template has none."""
    numbered, leaves = selected(), overview()["leaves"]
    others = [path.resolve() for path in sorted(repository.NOTEBOOKS.glob("*.ipynb")) if path.name != TEMPLATE]
    return {
        "The core path": [_notebook(path, f"{path.stem[:2]} ") for path in numbered if not leaves[path.stem]],
        "Side paths": [_notebook(path, f"{path.stem[:2]} ") for path in numbered if leaves[path.stem]],
        "Your own": [_notebook(path) for path in others if path not in numbered],
    }


def contents(listed):
    """Pages by caption as directives of MyST that put them into the contents, as Markdown."""
    parts = []
    for caption, group in listed.items():
        options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
        entries = [f"{page.label} </{page.name}>" for page in group]
        parts.append("\n".join(("```{toctree}", *options, "", *entries, "```\n")))
    return "\n".join(parts)


def downloads(listed):
    """The page that offers every notebook of `notebooks` (caption -> Pages) with its clean copy and its exercises, as Markdown."""
    rows = []
    for page in (page for group in listed.values() for page in group):
        name = page.source.name
        there = (exercises.EXERCISES / name).is_file()
        filled = f"[exercises](notebooks/exercises/{name})" if there else ""
        rows.append(f"| [{page.label}]({page.file}) | {saved(page)} | {saved(page, clean=True)} | {filled} |")
    return DOWNLOADS + "\n".join(rows) + "\n"


def saved(page, up="", clean=False):
    """A link, as HTML, that saves a notebook (its Page), or its clean copy. up: what leads to the home, as "../"."""
    place, what = (f"{CLEAN}/{page.source.name}", "clean copy") if clean else (f"_sources/{page.file}", "notebook")
    return f'<a href="{up}{place}" download>{what}</a>'


def _notebook(path, number="", folder=""):
    path = path.resolve()
    return Page(f"notebooks/{folder}{path.stem}", number + title(read(path), path.stem), path)


def _guide(name, place=None):
    path = (repository.REPOSITORY / name).resolve()
    heading = re.search(r"^# +(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return Page(place or path.stem, heading.group(1).replace("`", "") if heading else path.stem, path)
