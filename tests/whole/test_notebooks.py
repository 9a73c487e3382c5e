"""What every notebook must keep to, read from the file without running it. Each rule is shown to catch its fault."""

import ast
import io
import json
import re
import tokenize

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.base import repository
from helpers.lab import one_click

NOTEBOOKS = sorted(repository.NOTEBOOKS.glob("*.ipynb"))
LONGEST_CELL, WIDEST_LINE = 15, 100
MOST_BOOKKEEPING, LEAST_PROSE = 0.05, 10  # share of the code lines; words for each code line
MOST_CELLS, MOST_WORDS = 45, 12 * 200  # of a lesson that is read without a rest: twelve minutes at 200 words a minute
BOOKKEEPING = re.compile(r"\bnumbers\b|\btolerances\b|\bresults\.record|\bEstimate\(|\.(?:note|conclude|record)\(")
LESSONS = re.compile(r"0[1-6]_|08_|09_|1[0-2]_")
SETTINGS = {"key_numbers": list, "tolerances": dict, "table": list, "leaves": str}
NOISE = {
    "a warning": re.compile(r"Warning\b|\bWARNING\b"),
    "a progress line": re.compile(r"\r|[\d?](?:it/s|s/it|m?s/step)\b"),
    "an absolute path": re.compile(r"(?<![\w.~])/(?:home|root|work|tmp|Users)\b|\b[A-Z]:\\"),
}


def read(path):
    """A notebook as it stands in the file; `nbformat.read` would add the ids that are missing."""
    return nbformat.reader.reads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    """(number among all cells, cell) of each code cell that holds code."""
    return [
        (number, cell) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()
    ]


def own_cells(notebook):
    """`code_cells` but for the one that installs the package elsewhere, and does nothing here."""
    return [
        (number, cell) for number, cell in code_cells(notebook) if one_click.TAG not in cell.metadata.get("tags", [])
    ]


def one_click_unsound(notebook):
    """A cell that installs the package other than `one_click` writes it, or not before all others; or none."""
    tagged = [cell for cell in notebook.cells if one_click.TAG in cell.metadata.get("tags", [])]
    if not tagged:
        return ["no cell is tagged one-click"]
    problems = [] if len(tagged) == 1 else [f"{len(tagged)} cells are tagged one-click"]
    if code_cells(notebook)[0][1] is not tagged[0]:
        problems.append("the cell tagged one-click is not the first one of code")
    if tagged[0].source != one_click.cell():
        problems.append("the cell tagged one-click is not the current one: call one_click.apply()")
    if tagged[0].outputs:
        problems.append("the cell tagged one-click has outputs, but does nothing here")
    return problems


def never_run(notebook):
    """Code cells without an execution count: nbval passes them whatever they give."""
    return [f"cell {number} was never run" for number, cell in own_cells(notebook) if not cell.execution_count]


def parameters_unclear(notebook):
    """Other than one cell tagged `parameters`, or an assignment in it without a comment on its last line."""
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged parameters, not 1"]
    tokens = tokenize.generate_tokens(io.StringIO(tagged[0].source).readline)
    commented = {token.end[0] for token in tokens if token.type == tokenize.COMMENT}
    return [
        f"parameter without a comment: {ast.unparse(statement)}"
        for statement in ast.parse(tagged[0].source).body
        if statement.end_lineno not in commented
    ]


def imports_not_first(notebook):
    """A first code cell without imports."""
    first = [cell for _, cell in own_cells(notebook)][:1]
    if any(re.search(r"^(?:import|from) ", cell.source, re.MULTILINE) for cell in first):
        return []
    return ["the first code cell holds no imports"]


def too_long(notebook):
    """Code cells of more lines than a reader takes in; blank lines and comments do not count."""
    lines = {
        number: [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
        for number, cell in code_cells(notebook)
    }
    return [
        f"cell {number} has {len(code)} lines of code, more than {LONGEST_CELL}"
        for number, code in lines.items()
        if len(code) > LONGEST_CELL
    ]


def lines_of_code(notebook):
    """Lines that are neither blank nor comments only."""
    lines = (line for _, cell in own_cells(notebook) for line in cell.source.splitlines())
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def too_wide(notebook):
    """Lines of code that run out of the page; an address is as long as it is."""
    return [
        f"cell {number} has a line of {len(line)} characters"
        for number, cell in own_cells(notebook)
        for line in cell.source.splitlines()
        if len(line) > WIDEST_LINE
    ]


def imports_from_rooms(notebook):
    """Imports of the lab's modules by another way than the front door."""
    return [
        f"cell {number} imports from {found}"
        for number, cell in code_cells(notebook)
        for found in re.findall(r"^\s*(?:from|import) (helpers\.\S+)", cell.source, re.MULTILINE)
    ]


def settings_unclear(notebook):
    """What the metadata say under "lab" that nobody reads, or in another form."""
    return [
        f"metadata lab.{name} is {type(value).__name__}"
        for name, value in notebook.metadata.get("lab", {}).items()
        if not isinstance(value, SETTINGS.get(name, ()))
    ]


def too_much_bookkeeping(notebook):
    """More code than may be that only keeps numbers."""
    lines = lines_of_code(notebook)
    kept = [line for line in lines if BOOKKEEPING.search(line)]
    if len(kept) > MOST_BOOKKEEPING * len(lines):
        return [f"{len(kept)} of {len(lines)} lines of code only keep numbers"]
    return []


def too_little_prose(notebook):
    """Fewer words than a reader needs beside the code."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    lines = lines_of_code(notebook)
    return [f"{words} words stand beside {len(lines)} lines of code"] if words < LEAST_PROSE * len(lines) else []


def without_rest(notebook):
    """A long lesson without headings, or without a line that says where a reader may stop and go on another day."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    words = sum(len(source.split()) for source in prose)
    if len(notebook.cells) <= MOST_CELLS and words <= MOST_WORDS:
        return []
    headings = sum(len(re.findall(r"^##+ ", source, re.MULTILINE)) for source in prose)
    lacks = [] if headings > len(notebook.cells) / MOST_CELLS * 3 else ["headings"]
    lacks += [] if any("place to stop" in source for source in prose) else ["a place to stop"]
    return [f"{len(notebook.cells)} cells and {words} words lack {each}" for each in lacks]


def noisy(notebook):
    """Outputs that say more about the machine than about the matter: errors, standard error, warnings, paths."""
    problems = []
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                problems.append(f"cell {number} has an output of {output.get('name', 'error')}")
            data = {kind: content for kind, content in output.get("data", {}).items() if not kind.startswith("image/")}
            text = output.get("text", "") + "\n".join(map(str, data.values()))
            problems += [
                f"cell {number} prints {noise}: {found.group()!r}"
                for noise, pattern in NOISE.items()
                if (found := pattern.search(text))
            ]
    return problems


def dated(notebook):
    """Time stamps and papermill's notes, which change with every run."""
    places = {"the notebook": notebook, **{f"cell {number}": cell for number, cell in enumerate(notebook.cells)}}
    return [
        f"{name} has metadata {key!r}"
        for name, place in places.items()
        for key in ("papermill", "execution")
        if key in place.metadata
    ]


def ids_missing(notebook):
    """Cells without an id, or with the id of another cell."""
    ids = [cell.get("id") for cell in notebook.cells]
    return [
        f"cell {number} has the id {name!r}, which is missing or not its own"
        for number, name in enumerate(ids)
        if not name or ids.count(name) > 1
    ]


RULES = (
    never_run,
    one_click_unsound,
    parameters_unclear,
    imports_not_first,
    imports_from_rooms,
    too_long,
    too_wide,
    settings_unclear,
    noisy,
    dated,
    ids_missing,
)
LESSON_RULES = (too_much_bookkeeping, too_little_prose, without_rest)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_to_the_rules(path, rule):
    problems = rule(read(path))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("rule", LESSON_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if LESSONS.match(path.name)], ids=lambda path: path.stem)
def test_a_lesson_is_more_than_code(path, rule):
    problems = rule(read(path))
    assert not problems, "\n".join(problems)


# --- each rule catches its fault


def sound():
    """A notebook that keeps to every rule."""
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A question?\n" + "Words. " * 250, id="title"),
            new_code_cell("import numpy as np", id="imports", execution_count=1),
            new_code_cell(
                "epochs = 4  # passes\nunits = [\n    256, 128,\n]  # per '#' layer",
                id="parameters",
                execution_count=2,
                metadata={"tags": ["parameters"]},
            ),
            new_code_cell(
                "# as long as may be\n\n" + "\n".join(["np.ones(3)"] * LONGEST_CELL),
                id="long",
                execution_count=3,
                outputs=[
                    new_output("stream", name="stdout", text="0.94 in results/quick, at 3 images/s, ~/work, 1/step\n"),
                    new_output("display_data", data={"text/plain": "a forewarning", "image/png": "a /tmp/Warning"}),
                ],
            ),
            new_code_cell("", id="empty"),
        ]
    )
    return nbformat.from_dict(notebook)


def cell(number, **changes):
    return lambda notebook: notebook.cells[number].update(changes)


def metadata(number, **changes):
    return lambda notebook: notebook.cells[number].metadata.update(changes)


def with_one_click(place=1, times=1, **changes):
    def plant(notebook):
        for number in range(times):
            planted = new_code_cell(one_click.cell(), id=f"click{number}", metadata={"tags": [one_click.TAG]})
            planted.update(changes)
            notebook.cells.insert(place, planted)

    return plant


def output(kind="stream", **content):
    return lambda notebook: notebook.cells[3].outputs.append(new_output(kind, **content))


@pytest.mark.parametrize(
    "rule, problem, plant",
    [
        (never_run, "cell 1 was never run", cell(1, execution_count=None)),
        (one_click_unsound, "is not the current one", with_one_click(source="import os")),
        (one_click_unsound, "is not the first one", with_one_click(place=3)),
        (one_click_unsound, "2 cells are tagged one-click", with_one_click(times=2)),
        (one_click_unsound, "has outputs", with_one_click(outputs=[new_output("stream", text="Installed")])),
        (parameters_unclear, "0 cells are tagged", metadata(2, tags=[])),
        (parameters_unclear, "2 cells are tagged", metadata(1, tags=["parameters"])),
        (parameters_unclear, "without a comment: b = '# no'", cell(2, source="a = 1  # yes\nb = '# no'")),
        (imports_not_first, "no imports", cell(1, source="important = 1")),
        (imports_not_first, "no imports", lambda notebook: notebook.cells.clear()),
        (too_long, f"cell 3 has {LONGEST_CELL + 1} lines", cell(3, source="\n".join(["x = 1"] * (LONGEST_CELL + 1)))),
        (too_wide, "cell 1 has a line of 101 characters", cell(1, source="import a" + "a" * 93)),
        (imports_from_rooms, "imports from helpers.lab", cell(1, source="from helpers.lab import tour")),
        (imports_from_rooms, "imports from helpers.tflite.litert", cell(1, source="import helpers.tflite.litert as l")),
        (
            settings_unclear,
            "metadata lab.tolerance is",
            lambda notebook: notebook.metadata.update(lab={"tolerance": {}}),
        ),
        (settings_unclear, "lab.table is", lambda notebook: notebook.metadata.update(lab={"table": {}})),
        (too_much_bookkeeping, "2 of 22 lines", cell(1, source="import numpy\nrun.note('a', 1)\nnumbers = {}")),
        (too_little_prose, "2 words stand beside 20", cell(0, source="A question?")),
        (without_rest, "words lack a place to stop", cell(0, source="# A question?\n" + "Words. " * 2400)),
        (without_rest, "words lack headings", cell(0, source="# A question?\n" + "A good place to stop. " * 600)),
        (noisy, "an output of stderr", output(text="all is well", name="stderr")),
        (noisy, "an output of error", output("error", ename="E", evalue="e")),
        (noisy, "a warning: 'Warning'", output(text="UserWarning: deprecated")),
        (noisy, "a warning: 'WARNING'", output(text="WARNING:absl:deprecated")),
        (noisy, "a progress line: '\\r'", output(text="1\r2")),
        (noisy, "a progress line: '5it/s'", output(text="100%|##########| 10/10 [00:01<00:00, 9.95it/s]")),
        (noisy, "a progress line: '3ms/step'", output(text="1/1 [=====] - 0s 3ms/step")),
        (noisy, "an absolute path: '/home'", output(text="written to /home/me/file")),
        (noisy, "an absolute path: '/root'", output(text="/root")),
        (noisy, "an absolute path: '/work'", output("execute_result", data={"text/plain": "Path('/work/a')"})),
        (noisy, "an absolute path: '/tmp'", output("display_data", data={"text/html": "<td>/tmp/a</td>"})),
        (noisy, "an absolute path: '/Users'", output(text="file:///Users/me")),
        (noisy, "an absolute path: 'C:", output(text="C:\\Users\\me")),
        (dated, "cell 2 has metadata 'execution'", metadata(2, execution={})),
        (dated, "cell 0 has metadata 'papermill'", metadata(0, papermill={})),
        (dated, "the notebook has metadata 'papermill'", lambda notebook: notebook.metadata.update(papermill={})),
        (ids_missing, "cell 0 has the id None", lambda notebook: notebook.cells[0].pop("id")),
        (ids_missing, "cell 0 has the id 'long'", cell(0, id="long")),
    ],
)
def test_a_rule_catches_its_fault(rule, problem, plant, tmp_path):
    notebook, path = sound(), tmp_path / "faulty.ipynb"
    plant(notebook)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert problem in "; ".join(rule(read(path)))


@pytest.mark.parametrize("rule", [*RULES, *LESSON_RULES], ids=lambda rule: rule.__name__)
def test_a_sound_notebook_passes(rule):
    assert rule(one_click.applied(sound())) == []


def test_the_cell_that_installs_is_required():
    assert one_click_unsound(sound()) == ["no cell is tagged one-click"]
    assert one_click_unsound(one_click.applied(sound())) == []
