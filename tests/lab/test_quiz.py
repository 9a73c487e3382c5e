"""The questions at the end of the lessons: their right answers follow from the results, and what people answer is judged rightly."""

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.__main__ import main
from helpers.base import repository
from helpers.base.errors import InputError
from helpers.lab import exercises, quiz, selfcheck

NAME = "03_mobilenetv2_ptq_and_qat"
QUESTION = {
    "ask": "How much?",
    "number": "delta_top1.int8",
    "scale": 100,
    "see": "Look at the table.",
    "options": [{"says": "much", "below": -2}, {"says": "little", "from": -2}],
}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Replaces the questions by those that are given to it: notebook -> list of questions."""

    def ask(content):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(quiz.yaml.safe_dump(content))
        monkeypatch.setattr(quiz, "PATH", path)
        quiz._content.cache_clear()

    yield ask
    quiz._content.cache_clear()


def test_the_questions_of_the_lessons_have_one_right_answer_each():
    for question in quiz.questions():
        assert question.right in quiz.LETTERS and question.see.endswith(".") and question.ask.endswith("?")


def test_lessons_solutions_and_exercises_hold_the_questions():
    for name in {question.notebook for question in quiz.questions()}:
        for folder, make in (("", quiz.in_lesson), ("solutions", quiz.in_solution)):
            path = repository.NOTEBOOKS / folder / f"{name}.ipynb"
            if path.exists():
                notebook = nbformat.read(path, as_version=4)
                current = [cell.source for cell in notebook.cells] == [
                    cell.source for cell in make(notebook, name).cells
                ]
                assert current, (
                    f"{folder}/{name} is not current: run helpers.lab.quiz.update(), then compression-lab exercises"
                )


@pytest.mark.parametrize("below, right", [(-2, "b"), (0.5, "a")])
def test_the_right_option_holds_the_number_with_its_interval(asked, below, right):
    asked({NAME: [QUESTION | {"options": [{"says": "much", "below": below}, {"says": "little", "from": below}]}]})
    [question] = quiz.questions("03")
    assert question.value == pytest.approx(-0.45) and question.right == right
    assert quiz.check("03", [right]) is None
    assert quiz.check("03", ["b" if right == "a" else "a"]) == (1, "Look at the table.")


def test_a_bound_within_the_interval_is_refused(asked):
    asked({NAME: [QUESTION | {"options": [{"says": "much", "below": -0.5}, {"says": "little", "from": -0.5}]}]})
    with pytest.raises(InputError, match=r"0 options that hold -0\.45"):
        _ = quiz.questions("03")[0].right


@pytest.mark.parametrize("key, value", [("over", 0.263), ("minus", 1 - 0.263)])
def test_two_numbers_may_be_compared(asked, key, value):
    options = [{"says": "less", "below": value - 0.01}, {"says": "that", "from": value - 0.01, "below": value + 0.01}]
    asked({NAME: [QUESTION | {"number": "size.mlp_int8", key: "size.mlp_float32", "scale": 1, "options": options}]})
    [question] = quiz.questions("03")
    if key == "over":
        assert question.value == pytest.approx(value, abs=0.01) and question.right == "b"
    else:
        assert question.value < 0 and question.right == "a"


@pytest.mark.parametrize(
    "change, told",
    [
        ({"number": "top1.nothing"}, "'top1.nothing' of a question is not among"),
        ({"otions": []}, "does not take otions"),
        ({"options": [{"says": "all"}]}, "has 1 options"),
    ],
)
def test_a_question_that_cannot_be_judged_is_refused(asked, change, told):
    asked({NAME: [QUESTION | change]})
    with pytest.raises(InputError, match=told):
        quiz.questions("03")


@pytest.mark.parametrize("answers", ["a", [], ["a", "b"], ["e"], [None], [""]])
def test_what_is_no_answer_is_told(asked, answers):
    asked({NAME: [QUESTION]})
    with pytest.raises(selfcheck.NotYet, match="write"):
        selfcheck.quiz("03", answers)
    with pytest.raises(selfcheck.NotYet, match=r"Question 1\. Look at the table"):
        selfcheck.quiz("03", ["a"])
    selfcheck.quiz("03", [" B "])


@pytest.mark.parametrize("lesson", ["3", 3, "99"])
def test_what_is_no_lesson_is_told_those_that_are(asked, lesson):
    asked({NAME: [QUESTION]})
    for answers in ([], ["b"]):
        with pytest.raises(selfcheck.NotYet, match=f"lesson {lesson!r} has no questions: choose one of 03, as text"):
            selfcheck.quiz(lesson, answers)
    selfcheck.quiz("03", ["b"])


def test_cells_are_written_once_and_keep_their_outputs(asked):
    asked({NAME: [QUESTION]})
    notebook = new_notebook(cells=[new_markdown_cell("# A question?"), new_code_cell("1")])
    once = quiz.in_solution(notebook, NAME)
    once.cells[-1].execution_count = 7
    twice = quiz.in_solution(once, NAME)
    assert len(once.cells) == len(twice.cells) == 5 and twice.cells[-1].execution_count == 7
    assert twice.cells[3].source.endswith('answers = ["b"]')
    assert 'answers = ["b"]' not in exercises.stripped(twice)
    lesson = quiz.in_lesson(quiz.in_lesson(notebook, NAME), NAME)
    assert len(lesson.cells) == 3 and "(b) little" in lesson.cells[2].source


@pytest.fixture
def ten(asked):
    """Ten questions, whose right answers are abababab…"""
    other = QUESTION | {"options": [{"says": "little", "from": -2}, {"says": "much", "below": -2}]}
    asked({NAME: [(other if n % 2 == 0 else QUESTION) | {"workshop": True} for n in range(10)]})
    assert quiz.key() == "ab" * 5


def answers(folder, *rows):
    path = folder / "answers.csv"
    path.write_text(
        "\n".join(["name,before,after", *(f"p{n},{before},{after}" for n, (before, after) in enumerate(rows))])
    )
    return path


def test_the_gain_is_paired_by_person(ten, tmp_path):
    # Right: 5, 3, 0 of ten before; 10, 8, 6 after: gains of 5, 5 and 6.
    rows = [("a" * 10, "ab" * 5), ("aaaaaa----", "ababababbb"[:10]), ("-" * 10, "ababab----")]
    before, after, gained = quiz.gain(answers(tmp_path, *rows))
    assert before.value == pytest.approx(8 / 30) and gained.value == pytest.approx(after.value - before.value)
    assert gained.low < gained.value < gained.high and gained.high - gained.low < 2
    told = CliRunner().invoke(main, ["quiz", "--gain", str(answers(tmp_path, *rows))])
    assert told.exit_code == 0 and f"gained {gained:points}" in told.output
    sheet = CliRunner().invoke(main, ["quiz", "--key"]).output
    assert sheet.count("How much?") == 10 and "Key: ababababab" in sheet


@pytest.mark.parametrize(
    "text, told",
    [
        ("before,after\nababababab,abab\nababababab,ababababab\n", "row 1 has after='abab'"),
        ("before,after\nababababab,zzababababab\n", "a row for each of two"),
        ("first,second\na,b\na,b\n", "the columns before and after"),
        ("before,after\nababababaz,ababababab\nababababab,ababababab\n", "row 1 has before="),
    ],
)
def test_answers_that_cannot_be_read_are_refused(ten, tmp_path, text, told):
    path = tmp_path / "answers.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        quiz.gain(path)
    with pytest.raises(InputError, match="cannot be read"):
        quiz.gain(tmp_path / "none.csv")


def test_another_number_of_questions_is_refused(asked):
    asked({NAME: [QUESTION | {"workshop": True}]})
    with pytest.raises(InputError, match="1 questions are marked workshop: mark 10"):
        quiz.key()
