"""The site: every link and picture resolves, nothing comes from the network, and the pages follow the reading order."""

import itertools
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers.__main__ import main
from helpers.base import repository
from helpers.lab import website


class Page(HTMLParser):
    """What a page links to and loads, its ids, its tags and its text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.tags, self.text = [], [], set(), set(), ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a":
            self.links.append(attributes["href"])
        self.loads += [attributes[name] for name in ("src", "srcset", "data") if attributes.get(name)]
        if tag == "link":
            self.loads.append(attributes["href"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of this repository: name -> Page, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path_factory.mktemp("output")))
        folder = website.build().parent
    return {path.name: Page(path) for path in folder.glob("*.html")}, folder


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A repository of its own: call it with a file name and Markdown to add a page."""
    monkeypatch.setattr(repository, "REPOSITORY", tmp_path)
    monkeypatch.setattr(repository, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv(repository.OUTPUT_VARIABLE, str(tmp_path / "runs"))
    repository.NOTEBOOKS.mkdir()

    def add(name, text):
        if name.endswith(".ipynb"):
            nbformat.write(new_notebook(cells=[new_markdown_cell(text)]), repository.NOTEBOOKS / name)
        else:
            repository.write(tmp_path / name, text)

    add("README.md", "# The lab\n[first](notebooks/00_first.ipynb)")
    add("00_first.ipynb", "# First?")
    add.folder = tmp_path / "runs" / "site"
    return add


def test_every_link_and_picture_resolves(built):
    pages, folder = built
    for name, page in pages.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https", "data", "mailto"):
                continue
            target = folder / unquote(parts.path) if parts.path else folder / name
            assert target.is_file(), f"{name} links to {url}"
            if parts.fragment:
                assert unquote(parts.fragment) in pages[target.name].ids, f"{name} links to {url}"


def test_nothing_comes_from_the_network_and_nothing_runs(built):
    pages, folder = built
    for name, page in pages.items():
        assert "script" not in page.tags and "iframe" not in page.tags, name
        assert all(urlsplit(url).scheme in ("", "data") for url in page.loads), name
    assert not any(word in (folder / "style.css").read_text() for word in ("http", "@import", "url("))


def test_every_notebook_but_the_template_is_a_page_in_reading_order(built):
    pages, _ = built
    names = [f"{path.stem}.html" for path in sorted(repository.NOTEBOOKS.glob("*.ipynb"))]
    names.remove("template.html")
    order = ["index.html", *names]
    for before, after in itertools.pairwise(order):
        assert after in pages[before].links[:2] and before in pages[after].links[:1]
        assert "→" in pages[before].text and "←" in pages[after].text
    assert "template.html" not in pages
    assert all(set(order) <= set(page.links) for page in pages.values()), "each lists the contents"


def test_the_recorded_outputs_are_shown(built):
    pages, _ = built
    assert "minus baseline" in pages["01_mnist_mlp_pruning.html"].text
    assert "img" in pages["01_mnist_mlp_pruning.html"].tags and "img" in pages["index.html"].tags


def test_a_phone_is_told_the_width(built):
    _, folder = built
    assert 'name="viewport" content="width=device-width' in (folder / "index.html").read_text()


def test_links_lead_from_page_to_page_and_to_copies_of_files(lab):
    lab("data/my card.md", "content")
    lab("WORKSHOP.md", "# Workshop\n[back](README.md#the-lab) [out](https://example.org/a.ipynb)")
    lab("00_first.ipynb", "# Ask & `see`\n[next](01_next.ipynb) [card](<../data/my card.md>) ![](../data/a.svg)")
    lab("01_next.ipynb", "# Next\n[guide](../WORKSHOP.md) `[not](a_link.md)`")
    lab("data/a.svg", "<svg/>")
    index = website.build()
    assert index == lab.folder / "index.html"
    first = Page(lab.folder / "00_first.html")
    assert {"01_next.html", "data/my%20card.md", "data/a.svg"} <= {*first.links, *first.loads}
    assert (lab.folder / "data" / "my card.md").read_text() == "content"
    assert "WORKSHOP.html" in Page(lab.folder / "01_next.html").links
    assert {"index.html#the-lab", "https://example.org/a.ipynb"} <= set(Page(lab.folder / "WORKSHOP.html").links)
    assert "<title>Ask &amp; see</title>" in (lab.folder / "00_first.html").read_text()
    assert Page(index).links[0] == "00_first.html"


def test_every_broken_link_is_named_and_nothing_written(lab):
    lab("00_first.ipynb", "# First\n[a](gone.ipynb) ![b](../figures/gone.svg) [c](/etc/passwd)")
    result = CliRunner().invoke(main, ["site"])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    for link in ("gone.ipynb", "../figures/gone.svg", "/etc/passwd"):
        assert f"00_first.ipynb to {link}" in result.output
    assert not lab.folder.exists()


def test_the_command_says_where_the_site_is(lab):
    result = CliRunner().invoke(main, ["site"])
    assert result.exit_code == 0 and result.output.strip().endswith("index.html")
