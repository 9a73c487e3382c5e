"""A notebook as a file: found by its number, its title, its question, its code as a hash, ready to be recorded."""

import functools
import hashlib
import json
import re
from pathlib import Path

import nbformat
import pandas as pd

from helpers.base import repository
from helpers.base.errors import InputError, ResultsError
from helpers.evidence import results

KEY_NUMBERS = 3
NAMED_KEY_NUMBERS = 4


def find(name):
    """The path of a notebook given by its number ("01"), its name with or without suffix, or its path.

    Raises InputError that lists the notebooks there are.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    known = sorted(repository.NOTEBOOKS.glob("*.ipynb"))
    found = [
        path
        for path in known
        if re.fullmatch(rf"{re.escape(str(name))}(_.*)?(\.ipynb)?", path.stem) or path.name == str(name)
    ]
    if len(found) != 1:
        raise InputError(f"notebook={name!r} is not one of {', '.join(path.stem for path in known)}.")
    return found[0]


def selected(names=()):
    """The paths of some notebooks, in order and each once; of all that have a number if no names are given.

    Raises InputError as `find` does, and when there are none.
    """
    paths = sorted({find(name).resolve() for name in names} or repository.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise InputError(f"there are no notebooks in {repository.NOTEBOOKS.name}/.")
    return paths


def read(path):
    """A notebook (node) from its file. Raises InputError for a file that holds none."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat, json and the file system raise their own
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"notebook={str(path)!r} cannot be read ({cause}): give a Jupyter notebook.") from error


def title(notebook, otherwise=""):
    """The first heading of a notebook (node), without marks of code; `otherwise` if it has none."""
    for cell in notebook.cells:
        heading = re.search(r"^# +(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading:
            return heading.group(1).strip().replace("`", "")
    return otherwise


def overview():
    """The notebooks in order: frame with the question each asks, the number of the notebook after which it leaves the core path ("" on
    the path itself; metadata `lab.leaves`), and the seconds of its recorded run.
    """
    rows = []
    for path in selected():
        try:
            seconds = results.read(path.stem)["provenance"]["seconds"]
        except ResultsError:
            seconds = None
        content = read(path)
        row = {"notebook": path.stem, "question": title(content, path.stem)}
        rows.append(row | {"leaves": content.metadata.get("lab", {}).get("leaves", ""), "seconds": seconds})
    return pd.DataFrame(rows).set_index("notebook")


def course():
    """The map that `diagrams.paths` draws: the stations of the core path in order, and side path -> station after which it leaves."""
    leaves = overview()["leaves"]
    told = {name[:2]: name.replace("_", " ") for name in leaves.index}
    core = [told[name[:2]] for name, after in leaves.items() if not after]
    return core, {told[name[:2]]: told[after] for name, after in leaves.items() if after}


def settings(path):
    """What a notebook says of itself in its metadata, under "lab": a dict, such as key_numbers and tolerances."""
    return read(path).metadata.get("lab", {})


def key_numbers(path, numbers):
    """The names of those among `numbers` (names) that tell most, at most four.

    A notebook may name them in its metadata, `{"lab": {"key_numbers": [...]}}`; the first three count otherwise.
    """
    named = settings(path).get("key_numbers", [])
    return [name for name in named if name in numbers][:NAMED_KEY_NUMBERS] or list(numbers)[:KEY_NUMBERS]


def code_hash(path):
    """A hash of a notebook's cells without their outputs, and of the helpers: changes with whatever decides a run."""
    return _code_hash(path, path.stat().st_mtime_ns)


@functools.cache
def _code_hash(path, _modified):
    digest = hashlib.sha256()
    for cell in read(path).cells:
        digest.update(f"{cell.cell_type}\n{cell.source}\0".encode())
    digest.update(helpers_hash().encode())
    return digest.hexdigest()


def helpers_hash():
    """A hash of the helpers' code: whatever was measured by other code is no part of what is measured now."""
    digest = hashlib.sha256()
    for module in sorted(repository.HELPERS.rglob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def to_record(path):
    """A notebook ready to be recorded: every cell has an id that stays, none holds injected parameters."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["nbformat_minor"] = 5
    content["cells"] = [
        cell for cell in content["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    for number, cell in enumerate(content["cells"]):
        text = f"{number}\n{''.join(cell['source'])}"
        cell.setdefault("id", hashlib.sha256(text.encode()).hexdigest()[:8])
    return nbformat.reads(json.dumps(content), as_version=4)


def without_noise(node):
    """A notebook without time stamps, papermill's notes and the version of the Python at hand; changed and returned."""
    for cell in node.cells:
        for noise in ("papermill", "execution"):
            cell.metadata.pop(noise, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
    for noise in ("papermill", "widgets"):
        node.metadata.pop(noise, None)
    node.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    node.metadata.language_info = {"name": "python"}
    return node
