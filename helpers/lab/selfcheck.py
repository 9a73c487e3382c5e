"""Self-checks of the exercises: they tell right from wrong, and where to look, without giving the answer away.

A check cell of a notebook:

    with selfcheck.exercise("1"):
        selfcheck.number(levels, "5c1e…", "Count zero as a level too.", step=1)
        selfcheck.same(mine(kernel), affine.rounded(kernel), "Is the scale that of the largest *absolute* weight?")

A hidden answer is kept as a salted hash of the number, rounded, or of the word; `hide` makes it.
"""

import contextlib
import hashlib
import math
import numbers

import numpy as np

from helpers.base.errors import InputError
from helpers.lab import quiz as questions


class NotYet(Exception):
    """An exercise is not solved yet; the message says where to look. Jupyter shows it as one line, without traceback."""

    def _render_traceback_(self):
        return [f"Not yet: {self}"]


@contextlib.contextmanager
def exercise(name):
    """The checks of one exercise. Prints that it is right if all hold; whatever goes wrong in them becomes NotYet."""
    try:
        yield
    except NotYet as wrong:
        raise NotYet(f"exercise {name}. {wrong}") from None
    except NameError as error:
        raise NotYet(
            f"exercise {name}. There is no {error.name!r}: write and run the cells above the check first."
        ) from None
    except Exception as error:
        raise NotYet(
            f"exercise {name}. The check stopped with {type(error).__name__}: {error} "
            "Has your answer the form, shape and type that was asked for?"
        ) from error
    print(f"Exercise {name}: right.")


def number(answer, hidden, look_at, step=1):
    """The answer must lie within a step or so of the hidden number (see `hide`). Raises NotYet."""
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real) or not math.isfinite(answer):
        raise NotYet(f"The answer is {answer!r}: a finite number was asked for.")
    nearest = round(answer / step)
    # The neighbours too: another machine may round to them.
    if hidden not in {_hash(str(place)) for place in (nearest - 1, nearest, nearest + 1)}:
        raise NotYet(f"{answer:.6g} is not it. {look_at}")


def word(answer, hidden, look_at):
    """The answer must be the hidden word; case and spaces around it do not matter. Raises NotYet."""
    if not isinstance(answer, str):
        raise NotYet(f"The answer is {answer!r}: a text was asked for.")
    if hidden != _hash(answer.strip().lower()):
        raise NotYet(f"{answer!r} is not it. {look_at}")


def same(answer, wanted, look_at, tolerance=1e-6):
    """Two arrays, or numbers, must have one shape and agree to within `tolerance`, absolute and relative. Raises NotYet."""
    answer, wanted = np.asarray(answer), np.asarray(wanted)
    if answer.shape != wanted.shape:
        raise NotYet(f"The answer has shape {answer.shape}: it must be {wanted.shape}. {look_at}")
    if not np.allclose(answer, wanted, rtol=tolerance, atol=tolerance):
        told = (
            f"{answer:.6g} is not it"
            if answer.ndim == 0 and answer.dtype.kind in "fiu"
            else "The answer differs from what it must equal"
        )
        raise NotYet(f"{told}. {look_at}")


def holds(condition, look_at):
    """An invariant must hold. Raises NotYet."""
    if not condition:
        raise NotYet(look_at)


def quiz(notebook, answers):
    """The letters must answer the questions at the end of a lesson (its number), as its recorded numbers do. Raises NotYet."""
    try:
        wrong = questions.check(notebook, answers)
    except InputError as error:
        raise NotYet(str(error)) from None
    if wrong:
        raise NotYet(f"Question {wrong[0]}. {wrong[1]}")


def hide(answer, step=1):
    """What a check cell keeps of an answer: the hash of a number, rounded to multiples of `step`, or of a word."""
    return _hash(answer.strip().lower() if isinstance(answer, str) else str(round(answer / step)))


def _hash(text):
    return hashlib.sha256(f"compression lab: {text}".encode()).hexdigest()[:16]
