"""Three questions at the end of each lesson, and ten for a workshop, whose right answers follow from recorded numbers.

`notebooks/quiz.yaml` is the one source: for each lesson a list of questions,

    03_mobilenetv2_ptq_and_qat:
      - ask: What does int8 cost MobileNetV2 on these images?
        number: delta_top1.int8          # as recorded; `minus` or `over` may name another one that is taken away or divides it
        scale: 100                       # the bounds below are in points
        see: Read the second column of the table under "Six files".
        workshop: true                   # one of the ten
        options:
          - {says: more than ten points, below: -10}
          - {says: one to ten points, from: -10, below: -1}
          - {says: less than one point, from: -1}

The right option is the one whose half-open range [from, below) holds the number. `update` writes the questions into the lessons,
and the answers into the solutions.
"""

import copy
import csv
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import yaml

from helpers.base import repository
from helpers.base.errors import InputError
from helpers.evidence import results, stats

PATH = repository.NOTEBOOKS / "quiz.yaml"
TAG = "quiz"
LETTERS = "abcd"
WORKSHOP_QUESTIONS = 10
HEADING = "## Three questions"
EXERCISE = f"""{HEADING}

They stand at the end of the lesson, and its recorded numbers answer them. Write the letter of each."""
TO_WRITE = "# Write answers, a list of the three letters."
KEYS = {"ask", "number", "minus", "over", "scale", "see", "workshop", "profile", "options"}


@dataclass(frozen=True)
class Question:
    """A question: notebook, what it asks, number (float, in the options' unit; with low and high where recorded so), options
    [(text, from, below)], where to look, whether it is one of the workshop's."""

    notebook: str
    ask: str
    value: float
    low: float
    high: float
    options: tuple
    see: str
    workshop: bool

    @property
    def right(self):
        """The letter of the right option. Raises InputError unless the number, with its interval, lies in exactly one."""
        holding = [
            letter
            for letter, (_, least, below) in zip(LETTERS, self.options, strict=False)
            if least <= self.low and self.high < below
        ]
        if len(holding) != 1:
            raise InputError(
                f"ask={self.ask!r} has {len(holding)} options that hold {self.value:.4g} [{self.low:.4g}, {self.high:.4g}]: "
                "choose their bounds so that it is one."
            )
        return holding[0]

    def told(self, number):
        """The question as Markdown, with its options."""
        lines = [f"   - ({letter}) {text}" for letter, (text, *_) in zip(LETTERS, self.options, strict=False)]
        return "\n".join([f"{number}. {self.ask}", *lines])


def questions(notebook=None):
    """The questions of a notebook (its name or number), of all if None, with the numbers as recorded: [Question].

    Raises InputError for a file that does not say what a question needs, and as `results.read` does.
    """
    found = []
    for name, listed in sorted(_content(PATH.stat().st_mtime_ns).items()):
        if notebook in (None, name, name[:2]):
            found += [_question(name, given) for given in listed]
    return found


@functools.lru_cache(maxsize=1)
def _content(_modified):
    return yaml.safe_load(PATH.read_text(encoding="utf-8")) or {}


def _question(notebook, given):
    unknown = given.keys() - KEYS
    missing = {"ask", "number", "options", "see"} - given.keys()
    if unknown or missing:
        what = f"does not take {', '.join(sorted(unknown))}" if unknown else f"lacks {', '.join(sorted(missing))}"
        raise InputError(
            f"the question {given.get('ask')!r} of {notebook} {what}: it may have {', '.join(sorted(KEYS))}."
        )
    if not 2 <= len(given["options"]) <= len(LETTERS):
        raise InputError(f"the question {given['ask']!r} has {len(given['options'])} options: give two to four.")
    numbers = results.read(notebook, given.get("profile", repository.QUICK))["numbers"]
    bounds = [_number(numbers, notebook, given["number"], end) for end in ("value", "low", "high")]
    for key, combine in (("minus", lambda a, b: a - b), ("over", lambda a, b: a / b)):
        if key in given:  # of a combination only the value is known
            bounds = [combine(bounds[0], _number(numbers, notebook, given[key], "value"))] * 3
    scale = given.get("scale", 1)
    options = [(it["says"], it.get("from", -np.inf), it.get("below", np.inf)) for it in given["options"]]
    value, low, high = (scale * bound for bound in bounds)
    return Question(
        notebook, given["ask"], value, low, high, tuple(options), given["see"], given.get("workshop", False)
    )


def _number(numbers, notebook, name, end):
    if name not in numbers:
        raise InputError(f"number={name!r} of a question is not among the results of {notebook}.")
    found = getattr(numbers[name], end)
    return numbers[name].value if found is None else found


def check(notebook, answers):
    """The first wrong answer of a learner: None, or (its number, where to look). answers: letters, one a question.

    Raises InputError for a lesson without questions, another number of answers, or what is no letter of an option.
    """
    asked = questions(notebook)
    if not asked:
        known = sorted({question.notebook[:2] for question in questions()})
        raise InputError(f"lesson {notebook!r} has no questions: choose one of {', '.join(known)}, as text.")
    if not isinstance(answers, (list, tuple)) or len(answers) != len(asked):
        raise InputError(
            f"answers={answers!r}: write a list of {len(asked)} letters, as {list(LETTERS[: len(asked)])}."
        )
    for number, (question, answer) in enumerate(zip(asked, answers, strict=True), 1):
        letters = LETTERS[: len(question.options)]
        given = str(answer).strip().lower()
        if len(given) != 1 or given not in letters:
            raise InputError(f"answer {number} is {answer!r}: write one of {', '.join(letters)}.")
        if given != question.right:
            return number, question.see
    return None


def lesson_text(notebook):
    """The questions of a lesson as the text of its last cell."""
    told = "\n".join(question.told(number) for number, question in enumerate(questions(notebook), 1))
    check = f"the [exercises](exercises/{notebook}.ipynb) check what you say"
    if not _solution(notebook).exists():
        check = f'`selfcheck.quiz("{notebook[:2]}", ["a", "b", "c"])` from `helpers` checks what you say'
    return f"{HEADING}\n\nThe numbers above answer them; {check}.\n\n{told}"


def sheet():
    """The ten questions of a workshop, as Markdown."""
    return "\n".join(question.told(number) for number, question in enumerate(_of_workshop(), 1))


def key():
    """The right letters of the workshop's questions, in order: str."""
    return "".join(question.right for question in _of_workshop())


def _of_workshop():
    chosen = [question for question in questions() if question.workshop]
    if len(chosen) != WORKSHOP_QUESTIONS:
        raise InputError(f"{len(chosen)} questions are marked workshop: mark {WORKSHOP_QUESTIONS} of them.")
    return chosen


def printed():
    """The sheet with its key below, folded away, as Markdown for WORKSHOP.md."""
    return f"{sheet()}\n\n<details><summary>Key</summary>{', '.join(f'{n} {letter}' for n, letter in enumerate(key(), 1))}</details>"


def gain(path):
    """What a room learned between two sheets: share of right answers before, after, and the paired gain with its 95% interval.

    path: of a CSV file with the columns before and after; a row is a person, an entry the letters in order ("abcab…", a dash for no
    answer). Returns three Estimates; the difference is paired by person (Student's t over persons). Raises InputError for a file
    that cannot be read so.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [{str(name).strip().lower(): text for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"answers={str(path)!r} cannot be read ({error}): give a CSV file.") from error
    if len(rows) < 2 or not {"before", "after"} <= rows[0].keys():
        raise InputError(
            f"answers={str(path)!r}: give the columns before and after, and a row for each of two persons or more."
        )
    right = key()
    scores = {
        column: np.array([_share(row[column], right, column, n) for n, row in enumerate(rows, 1)])
        for column in ("before", "after")
    }
    return (
        stats.mean(scores["before"]),
        stats.mean(scores["after"]),
        stats.score_difference(scores["before"], scores["after"]),
    )


def _share(letters, right, column, row):
    given = re.sub(r"[\s,;]", "", letters or "").lower()
    if len(given) != len(right) or set(given) - set(LETTERS + "-"):
        raise InputError(
            f"row {row} has {column}={letters!r}: write {len(right)} letters of {LETTERS}, with a dash for no answer."
        )
    return float(np.mean([a == b for a, b in zip(given, right, strict=True)]))


def update():
    """Write the questions into lessons and solutions, and the right answers into these. Returns the names of changed files."""
    changed = []
    for name in _content(PATH.stat().st_mtime_ns):
        for path, make in ((repository.NOTEBOOKS / f"{name}.ipynb", in_lesson), (_solution(name), in_solution)):
            if path.exists():
                text = path.read_text(encoding="utf-8")
                wanted = nbformat.writes(make(nbformat.reads(text, as_version=4), name)) + "\n"
                if wanted != text:
                    repository.write(path, wanted)
                    changed.append(f"{path.parent.name}/{path.name}")
    return changed


def _solution(name):
    return repository.NOTEBOOKS / "solutions" / f"{name}.ipynb"


def in_lesson(notebook, name):
    """A lesson (node) with the questions in its cell tagged `quiz`, or at its end."""
    return _with(notebook, name, [("markdown", lesson_text(name), [TAG])])


def in_solution(notebook, name):
    """A solution (node) with the questions, their answers and the check in its cells of the quiz, or at its end."""
    told = "\n".join(question.told(number) for number, question in enumerate(questions(name), 1))
    answers = ", ".join(f'"{question.right}"' for question in questions(name))
    check_cell = f'with selfcheck.exercise("quiz"):\n    selfcheck.quiz("{name[:2]}", answers)'
    cells = [
        ("markdown", f"{EXERCISE}\n\n{told}", [TAG]),
        ("code", f"{TO_WRITE}\nanswers = [{answers}]", ["solution"]),
        ("code", check_cell, []),
    ]
    return _with(notebook, name, cells)


def _with(notebook, name, cells):
    """The notebook with these cells (kind, source, tags) where its cell tagged `quiz` stands; outputs of the same code stay."""
    twin = copy.deepcopy(notebook)
    place = next((n for n, cell in enumerate(twin.cells) if TAG in cell.metadata.get("tags", [])), len(twin.cells))
    former = twin.cells[place : place + len(cells)]
    made = []
    for number, (kind, source, tags) in enumerate(cells):
        cell = getattr(nbformat.v4, f"new_{kind}_cell")(source)
        cell["id"] = hashlib.sha256(f"{TAG} {name} {number}".encode()).hexdigest()[:8]
        if tags:
            cell.metadata["tags"] = tags
        if number < len(former) and kind == former[number].cell_type == "code":
            cell.outputs, cell.execution_count = former[number].outputs, former[number].execution_count
            cell.metadata.update({k: v for k, v in former[number].metadata.items() if k == "wrong"})
        made.append(cell)
    twin.cells[place : place + len(former)] = made
    return twin
