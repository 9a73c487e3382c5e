"""Notebooks in Chinese: the cells of the English one, code and recorded outputs too, with translated prose in between.

Only the prose is written by hand, in `notebooks/zh/NAME.md`: one translation after another, each below a line that names its
cell and has the fingerprint of the English text that it translates,

    <!-- cell 31c6dc2c english 0f3a61b2 -->

`notebooks/zh/NAME.ipynb` is put together from it. A cell whose English has changed since, or that has no translation, stands
in English until somebody translates it, since an old sentence may be wrong.
"""

import hashlib
import re

import nbformat

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import language
from helpers.lab.notebook import find, read

MARK = re.compile(r"^<!-- cell (\S+) english (\w+) -->\n", re.MULTILINE)
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)")


def fingerprint(text):
    """Eight hexadecimal digits that change with a text."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def path(name, told_in):
    """The path of a notebook by its name (str), of the translated one where a Language other than English has it."""
    own = language.folder() / f"{name}.ipynb"
    return own if told_in is not language.ENGLISH and own.is_file() else repository.NOTEBOOKS / f"{name}.ipynb"


def prose(source):
    """The translations in a file (path): cell id -> (fingerprint of the English text, translation).

    Raises InputError for a file that does not begin with a mark, or that has a cell twice.
    """
    before, *parts = MARK.split(source.read_text(encoding="utf-8"))
    cells = parts[::3]
    if before.strip() or not cells or len({*cells}) < len(cells):
        raise InputError(
            f"{source.name} must consist of cells, each once below its mark, as <!-- cell 31c6dc2c english 0f3a61b2 -->."
        )
    return {cell: (of, text.strip()) for cell, of, text in zip(cells, parts[1::3], parts[2::3], strict=True)}


def sources():
    """The files of translated prose, in order."""
    return sorted(language.folder().glob("*.md"))


def outdated(source):
    """What is to be done about a file of translations (path), a sentence for each cell that is not translated as it stands."""
    known, problems = prose(source), []
    cells = {cell.id: cell for cell in read(find(source.stem)).cells if cell.cell_type == "markdown"}
    for name, cell in cells.items():
        mark = f"<!-- cell {name} english {fingerprint(cell.source)} -->"
        begins = cell.source.strip().splitlines()[0][:60]
        if name not in known:
            problems.append(f"the cell {begins!r} has no translation: add it to {source.name} below {mark}.")
        elif known[name][0] != fingerprint(cell.source):
            problems.append(f"the cell {begins!r} has changed: translate it anew in {source.name}, and mark it {mark}.")
    gone = known.keys() - cells.keys()
    return problems + [
        f"cell {name} is not in the English notebook any more: take it out of {source.name}." for name in gone
    ]


def text(source):
    """The notebook that a file of translations (path) belongs to, in Chinese, as the text of its file."""
    known, notebook = prose(source), read(find(source.stem))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            of, own = known.get(cell.id, ("", ""))
            # written for the folder above
            cell.source = own if of == fingerprint(cell.source) else LINK.sub(r"\1../", cell.source)
    return nbformat.writes(notebook) + "\n"


def write():
    """Write every translated notebook anew."""
    for source in sources():
        repository.write(source.with_suffix(".ipynb"), text(source))
