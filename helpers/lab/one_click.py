"""The first cell of a notebook, for whoever has nothing but the notebook: Colab and its like fetch that file alone.

The cell installs the package, which brings data, checkpoints and all else that a lesson reads, before TensorFlow is loaded; where the
package is at hand, as in the repository, it does nothing. What pip is to install it reads from $COMPRESSION_LAB_SOURCE; without that,
it is the repository that pyproject.toml names under [project.urls], as the cell was written:

    python -c "from helpers.lab import one_click; print(one_click.apply())"

writes the cell anew into every notebook, or puts it there. Run it after the address has changed, and `compression-lab exercises`.
"""

import nbformat
from nbformat.v4 import new_code_cell

from helpers.base import repository
from helpers.lab import notebook

TAG = "one-click"
VARIABLE = "COMPRESSION_LAB_SOURCE"
CELL = f"""\
# Where only this file is, as on Colab, this installs what it needs; elsewhere it does nothing.
import importlib.util, os, subprocess, sys
if importlib.util.find_spec("helpers") is None:
    source = os.environ.get("{VARIABLE}") or "{{source}}"
    assert source, 'set {VARIABLE}, as in "compression-lab[lab] @ git+https://…"'
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)"""


def source():
    """What pip is to install by default: the repository that pyproject.toml names, or "" if it names none. Raises MissingError without
    a repository."""
    repository.needed_for("one_click")
    address = repository.published()
    return f"compression-lab[lab] @ git+{address}" if address else ""


def cell():
    """The text of the cell, six lines."""
    return CELL.format(source=source())


def applied(node):
    """A notebook (node) with the cell before its first code cell, or with the text of the one that it has made anew: changed and
    returned. Nothing else is touched, and a cell that is as it should be keeps that it was run."""
    found = next((each for each in node.cells if TAG in each.metadata.get("tags", [])), None)
    if found is None:
        place = next((number for number, each in enumerate(node.cells) if each.cell_type == "code"), len(node.cells))
        node.cells.insert(place, new_code_cell(cell(), id=TAG, metadata={"tags": [TAG]}))
    elif found.source != cell():
        found.source, found.outputs, found.execution_count = cell(), [], None
    return node


def apply(paths=None):
    """Put the cell into notebooks: the names of those that changed. paths: of notebooks; by default all in notebooks/, and the solutions
    that exercises are made from. Raises InputError for a file that is no notebook, MissingError without a repository."""
    changed = []
    for path in paths or sorted(
        [*repository.NOTEBOOKS.glob("*.ipynb"), *repository.NOTEBOOKS.glob("solutions/*.ipynb")]
    ):
        before = path.read_text(encoding="utf-8")
        after = nbformat.writes(applied(notebook.read(path))) + "\n"
        if after != before:
            repository.write(path, after)
            changed.append(path.stem)
    return changed
