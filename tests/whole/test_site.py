"""The site of this repository: every link and picture resolves, nothing comes from the network, and no notebook is missing."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

import helpers
from helpers.__main__ import main
from helpers.base import repository
from helpers.lab import exercises, pages, readme, website
from helpers.lab.notebook import overview

SITE = "lab.css lab.js conf.py"  # what else decides how it looks
GUIDES = readme.README, readme.RESULTS, readme.WORKSHOP, repository.REPOSITORY / "CONTRIBUTING.md"


class Page(HTMLParser):
    """What a page links to, loads and has ids for; its text, without scripts and styles; and its source."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.text, self.source = [], [], set(), "", path.read_text(encoding="utf-8")
        self._silent = False
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self._silent = tag in ("script", "style")
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        self.loads += [attributes[name] for name in ("src", "srcset", "data") if attributes.get(name)]
        if tag == "link":
            self.loads.append(attributes["href"])

    def handle_endtag(self, tag):
        self._silent = False

    def handle_data(self, data):
        self.text += "" if self._silent else data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site's folder, and its pages: place -> Page. Written once; twenty seconds of a core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path_factory.mktemp("output")))
        patch.delenv(repository.ADDRESS_VARIABLE, raising=False)
        folder = website.build(main).parent.resolve()
    paths = [path.relative_to(folder) for path in folder.rglob("*.html")]
    return folder, {path.as_posix(): Page(folder / path) for path in paths if path.parts[0] != "_static"}


def test_every_link_and_picture_resolves(built):
    folder, found = built
    by_path = {folder / place: page for place, page in found.items()}
    for place, page in found.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https", "data", "mailto"):
                continue
            target = ((folder / place).parent / unquote(parts.path)).resolve() if parts.path else folder / place
            assert target.is_file() and target.is_relative_to(folder), f"{place} links to {url}"
            if parts.fragment and target in by_path:
                assert unquote(parts.fragment) in by_path[target].ids, f"{place} links to {url}"


def test_nothing_comes_from_the_network(built):
    folder, found = built
    for place, page in found.items():
        assert page.loads and all(
            urlsplit(url).scheme in ("", "data") and not urlsplit(url).netloc for url in page.loads
        ), place
        assert "<iframe" not in page.source
    for path in folder.rglob("*.css"):
        named = re.findall(r"(?:@import|url\()\s*[\"']?([^\"')\s]+)", path.read_text(encoding="utf-8"))
        assert not [url for url in named if urlsplit(url).scheme not in ("", "data") or urlsplit(url).netloc], path


def test_every_notebook_but_the_template_is_a_page_and_in_the_contents_in_order(built):
    _, found = built
    names = [f"notebooks/{path.stem}.html" for path in sorted(repository.NOTEBOOKS.glob("*.ipynb"))]
    names.remove("notebooks/template.html")
    shown = [place for place in found if place.startswith("notebooks/") and "/zh/" not in place]
    assert sorted(shown) == names
    leaves = overview()["leaves"]
    names.sort(
        key=lambda name: bool(leaves.get(Path(name).stem, True))
    )  # the core path comes first; "your own" has no number
    told = [url for url in found["index.html"].links if url in names]
    assert list(dict.fromkeys(told)) == names and all(
        f"{Path(name).name[:2]} " in found["index.html"].text for name in names[:3]
    )


def test_every_guide_and_every_module_of_the_front_door_is_a_page(built):
    _, found = built
    assert {f"{path.stem}.html" for path in GUIDES if path != readme.README} <= set(found)
    assert {f"api/{name}.html" for name in helpers.__all__} <= set(found)
    gate, tflite_training = found["api/gate.html"], found["api/tflite_training.html"]
    assert "helpers.deploy.gate.judge" in gate.ids and "helpers.compress.tflite_training.train" in tflite_training.ids
    assert "--max-drop" in found["commands.html"].text or "max_drop" in found["commands.html"].text


def test_recorded_outputs_are_shown_and_marks_are_not(built):
    _, found = built
    first = found["notebooks/01_mnist_mlp_pruning.html"]
    assert "minus baseline" in first.text and "../_images/" in first.source
    assert not any(re.search(r"<!-- (value|begin|end)\b", page.source) for page in found.values())
    assert re.search(r"accuracy changes by [+-]\d", found["index.html"].text)


def test_what_is_saved_is_what_the_repository_has(built):
    folder, found = built
    for path in sorted(repository.NOTEBOOKS.glob("*.ipynb")):
        if path.name != pages.TEMPLATE:
            place = f"notebooks/{path.stem}.html"
            assert f"../_sources/notebooks/{path.name}" in found[place].links
            assert (folder / "_sources" / "notebooks" / path.name).read_bytes() == path.read_bytes()
            assert f"../clean/{path.name}" in found[place].links
            nbformat.validate(nbformat.read(folder / "clean" / path.name, as_version=4))
    offered = {hashlib.sha256(path.read_bytes()).digest() for path in (folder / "_downloads").rglob("*.ipynb")}
    there = {hashlib.sha256(path.read_bytes()).digest() for path in exercises.EXERCISES.glob("*.ipynb")}
    assert offered == there, "all exercises, and no solution"


def test_it_can_be_searched_without_a_server(built):
    folder, found = built
    words = (folder / "searchindex.js").read_text(encoding="utf-8")
    assert words.startswith("Search.setIndex(") and "per_channel" in words
    assert "searchtools.js" in found["search.html"].source
    assert "fetch(" not in (folder / "_static" / "lab.js").read_text()


def test_a_phone_is_told_the_width(built):
    _, found = built
    assert all('name="viewport" content="width=device-width' in page.source for page in found.values())
