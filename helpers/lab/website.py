"""The recorded notebooks, README and the other guides as a small static site that needs neither network nor scripts.

nbconvert renders, its plain template; this module adds the frame of a page, the reading order, and the links: between
pages they lead from page to page, to other files of the repository to a copy of them, and a link that leads nowhere is
an error.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments.formatters import HtmlFormatter

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab.notebook import title

GUIDES = ("README.md", "RESULTS.md", "WORKSHOP.md", "CONTRIBUTING.md")  # the first is the index
TEMPLATE = "template.ipynb"  # for those who write a notebook, and no page
_TAG = re.compile(r"<(?:a|img)\s[^>]*>")
_LINK = re.compile(r'\b(href|src)="([^"]*)"')
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #f5f6f8; --line: #d5d9e0; --link: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 0 1rem 3rem; max-width: 66rem; color: var(--ink); background: #fff;
  font: 1rem/1.6 -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif; overflow-wrap: break-word; }
a { color: var(--link); }
p, li { max-width: 46rem; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { margin-top: 2.2rem; font-size: 1.3rem; border-bottom: 1px solid var(--line); }
img, svg { max-width: 100%; height: auto; }
code, pre { font: .875rem/1.5 Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace; }
:not(pre) > code { padding: .1em .3em; border-radius: 3px; background: var(--soft); overflow-wrap: anywhere; }
pre { margin: 0; padding: .6rem .8rem; overflow-x: auto; }
.highlight, .rendered_html > pre { border-radius: 4px; background: var(--soft); }
.input_area { margin-top: 1rem; border-left: 3px solid var(--link); }
.celltag_parameters .input_area { border-left-color: #d55e00; }
.scroll, .output_html { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
@media (max-width: 45rem) { table { width: max-content; } th, td { max-width: 16rem; } }
.output_html th, .output_html td { text-align: right; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; padding: .8rem 0; border-bottom: 1px solid var(--line);
  font-size: .9rem; }
nav.end { margin-top: 3rem; border-top: 1px solid var(--line); border-bottom: 0; }
nav details { flex-basis: 100%; }
nav ol { margin: .4rem 0; padding-left: 1.4rem; }
nav a { display: inline-block; }
nav a, summary { padding: .3rem 0; }
[aria-current] { font-weight: bold; color: inherit; text-decoration: none; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<nav>{neighbours}<details><summary>Contents</summary><ol>{contents}</ol></details></nav>
<main>
{body}
</main>
<nav class="end">{neighbours}</nav>
</body>
</html>
"""


@dataclass(frozen=True)
class Page:
    """One page: the file it is made from, its name in the site, its title and its notebook."""

    source: Path
    name: str
    title: str
    notebook: nbformat.NotebookNode


def build():
    """Write the site into `site/` in the output folder; returns the path of its index.

    Raises InputError that lists every link to a file that does not exist, before anything is written.
    """
    folder = repository.output_root() / "site"
    listed = pages()
    by_source = {page.source: page.name for page in listed}
    exporter = HTMLExporter(
        template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    bodies, copied, broken = {}, {}, []
    for page in listed:
        body, _ = exporter.from_notebook_node(page.notebook)
        body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
        bodies[page.name] = _relinked(body, page, by_source, copied, broken)
    if broken:
        raise InputError(f"links lead nowhere: {'; '.join(broken)}.")
    for place, page in enumerate(listed):
        filled = _PAGE.format(
            title=html.escape(page.title),
            neighbours=_neighbours(listed, place),
            contents="".join(f"<li>{_anchor(other, other.title, other is page)}</li>" for other in listed),
            body=bodies[page.name],
        )
        repository.write(folder / page.name, filled)
    for name, source in copied.items():
        repository.write(folder / name, source.read_bytes())
    repository.write(folder / "style.css", HtmlFormatter(style="friendly").get_style_defs(".highlight") + STYLE)
    return folder / listed[0].name


def pages():
    """The Pages in reading order: README as the index, the notebooks but for the template, and whichever other guides there are."""
    guides = [path for path in map(repository.REPOSITORY.joinpath, GUIDES) if path.is_file()]
    found = []
    notebooks = [path for path in sorted(repository.NOTEBOOKS.glob("*.ipynb")) if path.name != TEMPLATE]
    for path in [*guides[:1], *notebooks, *guides[1:]]:
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
        else:
            notebook = new_notebook(cells=[new_markdown_cell(path.read_text(encoding="utf-8"))])
        name = "index.html" if path in guides[:1] else f"{path.stem}.html"
        found.append(Page(path.resolve(), name, title(notebook, path.stem), notebook))
    return found


def _anchor(page, text, current=False):
    mark = ' aria-current="page"' if current else ""
    return f'<a href="{quote(page.name)}"{mark}>{html.escape(text)}</a>'


def _neighbours(listed, place):
    links = []
    if place > 0:
        links.append(_anchor(listed[place - 1], f"← {listed[place - 1].title}"))
    if place + 1 < len(listed):
        links.append(_anchor(listed[place + 1], f"{listed[place + 1].title} →"))
    return " ".join(links)


def _relinked(body, page, by_source, copied, broken):
    """The HTML with its relative links turned to the site's. Notes in `copied` (name in the site -> file) what they
    need, and in `broken` what does not exist."""

    def link(found):
        attribute, url = found.group(1), html.unescape(found.group(2))
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or not parts.path:
            return found.group(0)
        target = (page.source.parent / unquote(parts.path)).resolve()
        whole = repository.REPOSITORY.resolve()
        if target in by_source:
            place = quote(by_source[target])
        elif target.is_file() and target.is_relative_to(whole):
            name = target.relative_to(whole).as_posix()
            copied[name] = target
            place = quote(name)
        else:
            broken.append(f"{page.source.name} to {url}")
            return found.group(0)
        return f'{attribute}="{place}{f"#{parts.fragment}" if parts.fragment else ""}"'

    return _TAG.sub(lambda tag: _LINK.sub(link, tag.group(0)), body)
