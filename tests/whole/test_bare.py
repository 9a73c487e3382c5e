"""What a lesson teaches stands bare in it: cells tagged `bare` run in a project that has nothing of this lab.

The bare cells of a notebook, in their order, are one program. It needs the packages that the lesson teaches, and no helper,
file or variable of the lab.
"""

import os
import re
import subprocess
import sys

import nbformat
import pytest

from helpers.base import repository
from tests import absent

MOST_LINES = 12
LEAST_TAUGHT = 15  # lines that call what is taught, in each of 01 to 05
TAUGHT = re.compile(
    r"\btf\.lite\b|\btfmot\b|\bTFLiteConverter\b|\bconverter\b|\bInterpreter\b|\bkeras\b|\blitert_quantizer\b|\bquantizer\b"
)
NOTEBOOKS = sorted(repository.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def cells_of(path):
    """The sources of a notebook's code cells: all of them, and those that are tagged `bare`."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [cell.source for cell in code], [cell.source for cell in code if "bare" in cell.metadata.get("tags", [])]


def lines_of(source):
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def run_bare(cells, folder):
    """The finished process of a program made of these cells, in an empty folder, where `helpers` cannot be imported."""
    (folder / "project.py").write_text(absent.program(["helpers"]) + "\n\n".join(cells) + "\n")
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")}
    return subprocess.run(
        [sys.executable, "project.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


BARE = [path for path in NOTEBOOKS if cells_of(path)[1]]


@pytest.mark.parametrize("path", BARE, ids=lambda path: path.stem)
def test_bare_cells_run_without_the_lab(path, tmp_path):
    finished = run_bare(cells_of(path)[1], tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]


@pytest.mark.parametrize("path", BARE, ids=lambda path: path.stem)
def test_a_bare_cell_is_short(path):
    long = [cell.splitlines()[0] for cell in cells_of(path)[1] if len(lines_of(cell)) > MOST_LINES]
    assert not long, f"more than {MOST_LINES} lines: {long}"


@pytest.mark.parametrize(
    "cell", ["from helpers import quantize", "import helpers.compress.quantize", "len(work.x_test)"]
)
def test_what_leans_on_the_lab_is_caught(cell, tmp_path):
    assert re.search("(ModuleNotFound|Name)Error", run_bare([cell], tmp_path).stderr)
