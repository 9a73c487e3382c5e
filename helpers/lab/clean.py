"""A notebook without prose and outputs, for those who teach from it: its code and its headings stay.

fastbook offers its chapters so: a reader who has read predicts what each cell gives, then runs it.
"""

import copy
import re

_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s{0,3}(```|~~~)")


def stripped(notebook):
    """A clean copy of a notebook (node): a new node whose code cells are the same, with their ids and tags, but without
    outputs and execution counts. Of a Markdown cell its headings stay; one that has none goes, and so does a raw one."""
    twin = copy.deepcopy(notebook)
    twin.cells = [cell for cell in twin.cells if cell.cell_type == "code" or headings(cell)]
    for cell in twin.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = "\n\n".join(headings(cell))
            cell.pop("attachments", None)
    return twin


def headings(cell):
    """The lines of a Markdown cell (node) that are headings, in order; [] for a cell of another kind."""
    found, fenced = [], False
    for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced and _HEADING.match(line):
            found.append(line)
    return found
