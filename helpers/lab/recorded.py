"""Recorded notebook outputs, compared as a reader would: numbers as numbers, words as words.

nbval compares strings; tests/conftest.py gives it `difference` instead:

- Text is split into numbers and what stands between them. The latter must be equal, but for white space and
  the length of ruled lines: a number of another width moves the padding of a table.
- A number passes within the cell's metadata `"tolerance"`: a number (absolute, in the units printed, so in
  points for a percentage), or `{"absolute": a, "relative": r}`, which allows a + r * |recorded|. With none it
  must equal the recorded one as far as that was printed: within half a unit of its last decimal.
- Digits tied to letters, underscores, dots or dashes are words ("int8", "3.4x", "2.21.0", "784-256-128-10",
  a hex digest). So leave a space before the unit of a number that should be compared as one.
- An output's text/plain decides; its other forms (text/html, pictures) only have to be there. Where it is
  but an object's name (`<IPython.core.display.Markdown object>`), the other forms of text decide.
- Standard error counts, and so does an output too few or too many. Cells tagged `nbval-ignore-output`
  run and are not compared.
"""

import json
import re
from collections import defaultdict
from decimal import Decimal
from itertools import zip_longest

from helpers.base.errors import InputError

NUMBER = re.compile(
    r"""
    (?<![\w.]) (?<!\w-)                          # not inside a word, a version or a chain of dashes
    ( [-+]?
      (?: (?: [0-9]{1,3}(?:,[0-9]{3})+ | [0-9]+ ) (?:\.[0-9]*)? | \.[0-9]+ )
      (?: [eE][-+]?[0-9]{1,3} )? )               # a longer exponent is a digest with one letter
    (?! \w | \.[0-9] | -\w )                     # nor at the head of one
""",
    re.VERBOSE,
)
RULED_LINE = re.compile(r"([-_=─━═])\1{2,}")
OBJECT_NAME = re.compile(r"\s*<[^\n]*>\s*")


def number(text):
    """The value of a matched NUMBER, with its decimals: Decimal("-1234.50") for "-1,234.50"."""
    return Decimal(text.replace(",", ""))


def allowed(recorded, tolerance=None):
    """By how much a new number may differ from `recorded` (Decimal). tolerance: as in a cell's metadata.

    Raises InputError when the tolerance has another form, or is negative or not finite.
    """
    if tolerance is None:
        return Decimal(5).scaleb(recorded.as_tuple().exponent - 1)
    parts = tolerance if isinstance(tolerance, dict) else {"absolute": tolerance}
    fits = all(type(value) in (int, float) and 0 <= value < float("inf") for value in parts.values())
    if not fits or not parts or not parts.keys() <= {"absolute", "relative"}:
        raise InputError(
            f"tolerance={tolerance!r} must be a number of 0 or more, "
            "or a mapping of 'absolute', 'relative' or both to such numbers."
        )
    absolute, relative = (Decimal(str(parts.get(name, 0))) for name in ("absolute", "relative"))
    return absolute + relative * abs(recorded)


def text_difference(recorded, new, tolerance=None):
    """The first place where two texts differ, as a sentence, or None."""
    for place, (before, now) in enumerate(zip_longest(NUMBER.split(recorded), NUMBER.split(new))):
        if place % 2 and before and now:
            off, limit = abs(number(now) - number(before)), allowed(number(before), tolerance)
            if off > limit:
                rule = "its printed decimals" if tolerance is None else f"tolerance {json.dumps(tolerance)}"
                return f"number {place // 2 + 1} was {before} and is now {now}: off by {off}, allowed {limit} ({rule})."
        elif _words(before) != _words(now):
            return f"the text {_words(before)!r} is now {_words(now)!r}."
    return None


def _words(text):
    return RULED_LINE.sub(r"\1", " ".join((text or "").split()))


def compared(outputs):
    """What is compared of a cell's outputs: kind (stream's name, MIME type or "error") -> its texts in order.

    What only has to be there, such as a picture, is "".
    """
    found = defaultdict(list)
    for output in outputs:
        if output["output_type"] == "stream":
            found[output["name"]].append(output["text"])
        elif output["output_type"] == "error":
            found["error"].append(f"{output['ename']}: {output['evalue']}")
        else:
            data = output["data"]
            told = "text/plain" in data and not OBJECT_NAME.fullmatch(data["text/plain"])
            for kind, content in data.items():
                if kind.startswith("image/") or (told and kind != "text/plain"):
                    found[kind].append("")
                elif kind != "text/plain" or told or len(data) == 1:
                    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
                    found[kind].append(text)
    return found


def difference(recorded_outputs, new_outputs, tolerance=None):
    """Why a cell's new outputs do not match the recorded ones, for people to read, or None if they do.

    Outputs: lists of mappings as in a notebook, streams of one name joined (nbval does that).
    tolerance: see `allowed`.
    """
    recorded, new = compared(recorded_outputs), compared(new_outputs)
    for kind in recorded | new:
        before, now = recorded[kind], new[kind]
        if len(before) != len(now):
            why = f"{len(before)} recorded, now {len(now)}."
        else:
            reasons = (text_difference(*texts, tolerance) for texts in zip(before, now, strict=True))
            why = next(filter(None, reasons), None)
        if why:
            return "\n".join([f"{kind}: {why}", "--- recorded", *before, "--- now", *now])
    return None
