"""The site: README, the recorded notebooks, the guides, every command and the Python functions; it works offline.

Sphinx writes it, with myst-nb and sphinx-book-theme; nothing is executed. This module lays out what Sphinx reads: a mirror of the
repository with the pages (`pages`) and the files that they lead to. A link to another page leads there; to a file that is no page,
to a copy of it, or to the repository's address if it has one; and a link that leads nowhere is an error.
"""

import io
import os
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

import nbformat
from nbformat.v4 import new_markdown_cell

from helpers.base import extras, repository
from helpers.base.errors import InputError
from helpers.lab import clean, pages, readme

SETTINGS = Path(__file__).parent / "site"  # conf.py and the style
PICTURES = (".svg", ".png", ".jpg", ".gif", ".webp")
MOST_TOLD = 5  # of what is wrong
_CODE = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)", re.DOTALL | re.MULTILINE
)
_LINK = re.compile(r"(?:(?<!!)\[(?P<label>[^\[\]]*))?\]\((?P<target><[^>]*>|[^)\s]+)(?P<rest>[^)]*)\)")


@dataclass
class Staged:
    """What Sphinx is to read: files (place -> bytes), extra (what is offered as it is), and broken links, in words."""

    files: dict[str, bytes] = field(default_factory=dict)
    extra: dict[str, bytes] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def build(commands, tell=lambda line: None):
    """Write the site into `site/` in the output folder; returns the path of its index. Half a minute.

    commands: the click group whose help is shown. tell: takes a line of progress. Raises InputError if Sphinx is not installed;
    with every link to a file that does not exist; and with what Sphinx warns of, such as a heading that is not there. Then the
    former site stays.
    """
    with extras.needed("the site"):
        import myst_nb  # noqa: F401
        import sphinx_book_theme  # noqa: F401
    home, listed = pages.home(), pages.groups(commands)
    staged = stage(home, listed)
    if staged.broken:
        raise InputError(f"links lead nowhere: {'; '.join(staged.broken)}.")
    shown = pages.flat(home, listed)
    tell(f"Sphinx writes {len(shown)} pages: half a minute or so.")
    root = repository.output_root()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="site-", dir=root) as folder:
        work = Path(folder)
        for place, content in {**staged.files, **staged.extra}.items():
            repository.write(work / ("pages" if place in staged.files else "extra") / place, content)
        told = _written(work, [page.file for page in shown])
        if told:
            more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
            raise InputError(f"the site is not written, for Sphinx says: {'; '.join(told[:MOST_TOLD])}{more}.")
        for page in shown:
            if page.source:  # what a reader saves is what the repository has
                (work / "html" / "_sources" / page.file).write_bytes(page.source.read_bytes())
        shutil.rmtree(root / "site", ignore_errors=True)
        (work / "html").rename(root / "site")
    return root / "site" / "index.html"


def stage(home, listed):
    """What Sphinx is to read for a home (Page) and other Pages by caption, as a Staged."""
    shown = pages.flat(home, listed)
    by_source = {page.source or (repository.REPOSITORY / page.file).resolve(): page.file for page in shown}
    staged = Staged()
    for page in shown:
        relinked = _Links(page, by_source, staged).relinked
        if page.source is None:
            text = page.text if page.suffix == ".rst" else relinked(page.text)
            if page.below:
                text += "\n" + pages.contents({"": page.below})
        elif page.source.suffix == ".ipynb":
            node = nbformat.read(page.source, as_version=4)
            staged.extra[f"{pages.CLEAN}/{page.source.name}"] = nbformat.writes(clean.stripped(node)).encode()
            text = nbformat.writes(_offered(node, page, relinked))
        else:
            text = relinked(readme.unmarked(page.source.read_text(encoding="utf-8")))
            if page is home:
                text += "\n" + pages.contents(listed)
        staged.files[page.file] = text.encode()
    return staged


def _offered(node, page, relinked):
    """A notebook (node) with its links turned to the site's, and a line with what can be saved behind its title."""
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source = relinked(cell.source)
    up = "../" * page.file.count("/")
    line = f"Save this {pages.saved(page, up)}, or a {pages.saved(page, up, clean=True)} without prose and outputs."
    place = next((place for place, cell in enumerate(node.cells) if clean.headings(cell)), -1)
    node.cells.insert(place + 1, new_markdown_cell(line, id="saved"))
    return node


@dataclass
class _Links:
    """Turns the links of one page; notes in `staged` the files that they lead to, and what is broken."""

    page: pages.Page
    by_source: dict
    staged: Staged

    def relinked(self, text):
        """Markdown with its links turned to the site's; code stays as it is."""
        code = []
        masked = _CODE.sub(lambda found: f"\0{code.append(found.group()) or len(code) - 1}\0", text)
        turned = _LINK.sub(self._turned, masked)
        return re.sub(r"\0(\d+)\0", lambda found: code[int(found.group(1))], turned)

    def _turned(self, found):
        url = found["target"].strip("<>")
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or not parts.path:
            return found.group()
        base = (self.page.source or repository.REPOSITORY / self.page.file).parent
        target, whole = (base / unquote(parts.path)).resolve(), repository.REPOSITORY.resolve()
        inside = target.relative_to(whole).as_posix() if target.is_relative_to(whole) else None
        address, _ = pages.hosted()
        if target in self.by_source:
            place = self._from_here(self.by_source[target])
        elif inside and address and target.exists() and target.suffix not in (".ipynb", *PICTURES):
            place = f"{address}/{'blob' if target.is_file() else 'tree'}/{repository.BRANCH}/{quote(inside)}"
        elif inside and target.is_file():
            self.staged.files[inside] = target.read_bytes()
            place = ("" if target.suffix in PICTURES else "path:") + self._from_here(inside)  # path: it is no page
        elif inside and target.is_dir() and found["label"] is not None:
            return found["label"]  # a site shows no folder
        else:
            self.staged.broken.append(f"{Path(self.page.file).name} to {url}")
            return found.group()
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        opening = "" if found["label"] is None else f"[{found['label']}"
        return f"{opening}](<{place}{fragment}>{found['rest']})"

    def _from_here(self, place):
        return PurePosixPath(os.path.relpath(place, Path(self.page.file).parent)).as_posix()


def _written(work, named):
    """Have Sphinx write `html/` from those files in `pages/` that are named; returns what it warns of, each a line."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    told = io.StringIO()
    settings = {"include_patterns": named, "html_extra_path": [str(work / "extra")]}
    folders = work / "pages", SETTINGS, work / "html", work / "doctrees"
    with warnings.catch_warnings(), patch_docutils(), docutils_namespace():
        warnings.simplefilter("ignore")  # its extensions warn of the future of Sphinx
        Sphinx(*folders, "html", settings, status=None, warning=told).build()
    found = [re.sub(r"\x1b\[[\d;]*m", "", line).strip() for line in told.getvalue().splitlines()]
    return [line.replace(f"{work / 'pages'}{os.sep}", "") for line in found if line]
