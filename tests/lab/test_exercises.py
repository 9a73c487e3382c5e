"""The solutions run and pass their checks, the checks refuse wrong answers, and the exercises are made of the solutions."""

import copy
import re

import nbformat
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.__main__ import main
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import exercises, one_click, selfcheck

SOLUTIONS = exercises.solutions()
SECONDS = 45
SLACK = 4  # a busy machine takes that much longer

# Runs a planted wrong answer, then its check, in a copy of the names at hand, so that the right answers stay.
PLANT = """
def _refused(wrong, check):
    from helpers.lab import selfcheck
    scratch = dict(globals())
    exec(wrong, scratch)
    try:
        exec(check, scratch)
    except selfcheck.NotYet as answer:
        return str(answer)
    raise AssertionError(f"the check takes this for right: {wrong}")
"""


def planted(notebook):
    """The notebook, with every wrong answer of a check cell tried right after it; and how many there are."""
    twin, number = copy.deepcopy(notebook), 0
    cells = [new_code_cell(PLANT)]
    for cell in twin.cells:
        cells.append(cell)
        for wrong in cell.metadata.get(exercises.WRONG, []):
            cells.append(new_code_cell(f"print('refused:', _refused({wrong!r}, {cell.source!r}))"))
            number += 1
    twin.cells = cells
    return twin, number


def checks(notebook):
    """The check cells: exercise -> cell."""
    found = {}
    for cell in notebook.cells:
        name = re.search(r'with selfcheck\.exercise\("([^"]+)"\)', cell.source) if cell.cell_type == "code" else None
        if name:
            found[name.group(1)] = cell
    return found


def texts(notebook):
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_passes_its_checks_and_they_refuse_wrong_answers(path):
    notebook, wrong = planted(nbformat.read(path, as_version=4))
    client = NotebookClient(
        notebook,
        timeout=SLACK * SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": repository.REPOSITORY}},
    )
    printed = texts(client.execute())
    for name in checks(notebook):
        assert f"Exercise {name}: right." in printed
    refused = re.findall(r"^refused: exercise .*$", printed, re.MULTILINE)
    assert len(refused) == wrong
    assert not any("The check stopped with" in answer for answer in refused), "a wrong answer met no check of its own"


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_has_three_exercises_each_with_a_planted_wrong_answer(path):
    notebook = nbformat.read(path, as_version=4)
    found = checks(notebook)
    solved = sum(exercises.SOLUTION_TAG in cell.metadata.get("tags", []) for cell in notebook.cells)
    assert solved == len({name.partition(",")[0] for name in found}) >= 3
    for name, cell in found.items():
        assert cell.metadata.get(exercises.WRONG), f"exercise {name} has no planted wrong answer"


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_says_what_it_takes_and_gives(path):
    opening = nbformat.read(path, as_version=4).cells[0].source
    seconds = re.search(r"\*(\d+) seconds on 2 cores\. You need: .+ Afterwards you can .+\*", opening)
    assert seconds and int(seconds.group(1)) <= SECONDS


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_solution_was_recorded_without_errors(path):
    for cell in nbformat.read(path, as_version=4).cells:
        installs = one_click.TAG in cell.metadata.get("tags", [])  # elsewhere, and does nothing here
        if cell.cell_type == "code" and cell.source.strip() and not installs:
            assert cell.execution_count
            assert not any(
                output.output_type == "error" or output.get("name") == "stderr" for output in cell.get("outputs", [])
            )


def test_every_numbered_solution_belongs_to_a_notebook():
    for path in SOLUTIONS:
        assert (repository.NOTEBOOKS / path.name).is_file()


def test_the_exercises_are_current():
    assert exercises.outdated() == [], "run `compression-lab exercises`"


def test_links_of_exercises_exist():
    for path in [*SOLUTIONS, *exercises.EXERCISES.glob("*.ipynb")]:
        for cell in nbformat.read(path, as_version=4).cells:
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source if cell.cell_type == "markdown" else ""):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_an_unsolved_exercise_stops_with_a_sentence_and_no_traceback(tmp_path):
    notebook = new_notebook(
        cells=[
            new_code_cell(
                "from helpers import selfcheck\nwith selfcheck.exercise('1'):\n    selfcheck.holds(answer, 'x')"
            )
        ]
    )
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": repository.REPOSITORY}})
    with pytest.raises(CellExecutionError):
        client.execute()
    [error] = [output for output in notebook.cells[0].outputs if output.output_type == "error"]
    assert error.traceback == [
        "Not yet: exercise 1. There is no 'answer': write and run the cells above the check first."
    ]


# --- stripping


def solution():
    return new_notebook(
        cells=[
            new_markdown_cell("# Exercises"),
            new_code_cell("import numpy", execution_count=1),
            new_code_cell(
                "# Write answer.\nanswer = 42",
                execution_count=2,
                metadata={"tags": ["solution"]},
                outputs=[new_output("stream", text="42")],
            ),
            new_code_cell("check(answer)", execution_count=3, metadata={"wrong": ["answer = 41"], "tags": ["x"]}),
        ]
    )


def test_stripping_leaves_the_first_line_and_no_trace_of_the_answer():
    notebook = solution()
    before = copy.deepcopy(notebook)
    text = exercises.stripped(notebook)
    exercise = nbformat.reads(text, as_version=4)
    assert [cell.source for cell in exercise.cells] == [
        "# Exercises",
        "import numpy",
        "# Write answer.\n",
        "check(answer)",
    ]
    without_ids = re.sub(r'"id": "\w+"', "", text)  # which are random
    assert "42" not in without_ids and "41" not in without_ids
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in exercise.cells)
    assert notebook == before


@pytest.mark.parametrize(
    "source, kind, problem",
    [
        ("answer = 42", "code", "begin with a comment"),
        ("# Write answer.\n\n", "code", "begin with a comment"),
        ("# Write answer.\nanswer = 42", "markdown", "must be code"),
    ],
)
def test_a_solution_cell_that_does_not_say_what_to_write_is_refused(source, kind, problem):
    notebook = solution()
    notebook.cells[2].update(source=source, cell_type=kind)
    with pytest.raises(InputError, match=problem):
        exercises.stripped(notebook)


def test_a_notebook_without_solution_is_refused():
    with pytest.raises(InputError, match="nothing would be left to solve"):
        exercises.stripped(new_notebook(cells=[new_code_cell("1")]))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Folders of their own for one solution and its exercise."""
    monkeypatch.setattr(exercises, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(exercises, "EXERCISES", tmp_path / "exercises")
    repository.write(tmp_path / "solutions" / "01_small.ipynb", nbformat.writes(solution()))
    return tmp_path


def test_the_command_writes_what_is_outdated(shelf):
    assert exercises.outdated() == ["01_small.ipynb"]
    result = CliRunner().invoke(main, ["exercises"])
    assert result.exit_code == 0 and "01_small" in result.output
    assert exercises.outdated() == []
    changed = nbformat.read(shelf / "solutions" / "01_small.ipynb", as_version=4)
    changed.cells[0].source = "# Other exercises"
    nbformat.write(changed, shelf / "solutions" / "01_small.ipynb")
    assert exercises.outdated() == ["01_small.ipynb"]


def test_an_exercise_without_solution_is_outdated(shelf):
    exercises.write()
    (shelf / "exercises" / "02_left.ipynb").write_text("{}")
    assert exercises.outdated() == ["02_left.ipynb"]


def test_an_unknown_notebook_is_refused_in_one_line(shelf):
    result = CliRunner().invoke(main, ["exercises", "09"])
    assert result.exit_code == 2
    assert result.output.strip() == "Error: notebook='09' has no solutions: there are 01_small."


def test_recording_keeps_outputs_and_the_seconds_taken(shelf):
    path = shelf / "solutions" / "01_small.ipynb"
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Small\n\n*99 seconds on 2 cores. You need: nothing.*"),
            new_code_cell("# Write answer.\nprint(6 * 7)", metadata={"tags": ["solution"]}),
        ]
    )
    repository.write(path, nbformat.writes(notebook))
    result = CliRunner().invoke(main, ["exercises", "01", "--record"])
    assert result.exit_code == 0, result.output
    recorded = nbformat.read(path, as_version=4)
    assert recorded.cells[1].outputs[0].text == "42\n"
    assert 0 <= int(re.search(r"\*(\d+) seconds", recorded.cells[0].source).group(1)) < 60
    assert exercises.outdated() == []


# --- the checks themselves


def refusal(check, *arguments, **settings):
    with pytest.raises(selfcheck.NotYet) as caught, selfcheck.exercise("1"):
        check(*arguments, **settings)
    return str(caught.value)


@given(st.integers(-(10**6), 10**6), st.sampled_from([1, 10, 0.5, 1000]))
def test_a_hidden_number_is_found_within_a_step_and_not_two_away(place, step):
    hidden = selfcheck.hide(place * step, step)
    for near in (-1, 0, 1):
        selfcheck.number((place + near) * step, hidden, "", step)
    for far in (-2, 2):
        with pytest.raises(selfcheck.NotYet):
            selfcheck.number((place + far) * step, hidden, "", step)


@pytest.mark.parametrize("answer", [None, "42", True, float("nan"), float("inf"), [42]])
def test_an_answer_that_is_no_number_is_told_so(answer):
    assert "a finite number was asked for" in refusal(selfcheck.number, answer, selfcheck.hide(42), "Look here.")


def test_a_wrong_number_is_told_where_to_look_and_not_the_answer():
    told = refusal(selfcheck.number, 12, selfcheck.hide(42), "Count zero too.")
    assert told == "exercise 1. 12 is not it. Count zero too." and "42" not in told


def test_numpy_numbers_are_numbers():
    for kind in (np.float32, np.int64, np.uint8):
        selfcheck.number(kind(42), selfcheck.hide(42), "")


def test_a_hidden_word_is_compared_without_case():
    selfcheck.word(" Sandal ", selfcheck.hide("sandal"), "")
    assert "'boot' is not it. Look." in refusal(selfcheck.word, "boot", selfcheck.hide("sandal"), "Look.")
    assert "a text was asked for" in refusal(selfcheck.word, 3, selfcheck.hide("sandal"), "Look.")


def test_arrays_are_compared_by_shape_and_value():
    selfcheck.same([1, 2], np.array([1, 2 + 1e-9]), "")
    assert "has shape (2,): it must be (3,)" in refusal(selfcheck.same, [1, 2], [1, 2, 3], "Look.")
    assert "differs from what it must equal. Look." in refusal(selfcheck.same, [1, 2], [1, 3], "Look.")
    assert "differs" in refusal(selfcheck.same, [1, float("nan")], [1, 2], "Look.")


def test_whatever_goes_wrong_in_a_check_is_told_in_a_sentence():
    assert "The check stopped with TypeError" in refusal(lambda: len(3))
    assert "There is no 'unheard_of'" in refusal(lambda: unheard_of)  # noqa: F821
    assert refusal(selfcheck.holds, False, "Look.") == "exercise 1. Look."


def test_a_right_answer_is_told(capsys):
    with selfcheck.exercise("2"):
        selfcheck.holds(True, "")
    assert capsys.readouterr().out == "Exercise 2: right.\n"
