"""Exercises for learners, made from the solutions: `notebooks/solutions/` is the one source of both.

In a solution a cell tagged `solution` begins with a line that says what to write. The exercise keeps that line and
nothing else of the cell. A check cell may carry `wrong` in its metadata: answers that it must refuse, for the tests.
"""

import json
import re
import time

import nbformat

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import tour

SOLUTIONS = repository.NOTEBOOKS / "solutions"
EXERCISES = repository.NOTEBOOKS / "exercises"
SOLUTION_TAG = "solution"
WRONG = "wrong"
MEASURED = re.compile(r"\b\d+ seconds on 2 cores")


def solutions(names=()):
    """The paths of solution notebooks, in order; names: by number ("01") or name, all if empty. Raises InputError."""
    known = sorted(SOLUTIONS.glob("*.ipynb"))
    for name in names:
        if not any(name in (path.stem, path.stem[:2], path.name) for path in known):
            raise InputError(f"notebook={name!r} has no solutions: there are {', '.join(p.stem for p in known)}.")
    return [path for path in known if not names or {path.stem, path.stem[:2], path.name} & set(names)]


def stripped(notebook):
    """The exercise that a solution notebook (node) holds, as the text of its file.

    Raises InputError when it has no solution cell, or one whose first line does not say what to write.
    """
    twin = nbformat.from_dict(json.loads(json.dumps(notebook)))
    found = 0
    for number, cell in enumerate(twin.cells):
        cell.metadata.pop(WRONG, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if SOLUTION_TAG in cell.metadata.pop("tags", []):
            found += 1
            first, _, rest = cell.source.partition("\n")
            if cell.cell_type != "code" or not first.startswith("# ") or not rest.strip():
                raise InputError(
                    f"cell {number} is tagged {SOLUTION_TAG!r}: it must be code, and begin with a comment that says what to write."
                )
            cell.source = f"{first}\n"
    if not found:
        raise InputError(f"there is no cell tagged {SOLUTION_TAG!r}: nothing would be left to solve.")
    return nbformat.writes(twin) + "\n"


def outdated():
    """The exercises, by name, that are not what their solutions give, or have none."""
    wanted = {path.name: stripped(nbformat.read(path, as_version=4)) for path in solutions()}
    there = {path.name: path.read_text(encoding="utf-8") for path in EXERCISES.glob("*.ipynb")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def write(names=()):
    """Write the exercises anew and return their names. Raises InputError as `solutions` and `stripped` do."""
    texts = {path: stripped(nbformat.read(path, as_version=4)) for path in solutions(names)}
    for path, text in texts.items():
        repository.write(EXERCISES / path.name, text)
    return [path.stem for path in texts]


def record(names=()):
    """Run solution notebooks, keep their outputs and, in their first cell, the seconds they took; 0, or 1 on failure."""
    for path in solutions(names):
        clock = time.monotonic()
        code = tour.record([path])
        if code:
            return code
        notebook = nbformat.read(path, as_version=4)
        told = f"{round(time.monotonic() - clock)} seconds on 2 cores"
        notebook.cells[0].source = MEASURED.sub(told, notebook.cells[0].source)
        repository.write(path, nbformat.writes(notebook) + "\n")
    return 0
