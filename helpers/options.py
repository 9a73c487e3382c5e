"""What the commands share: options, how a refusal is shown, and tables for machines."""

import contextlib
import itertools
import re
import traceback

import click

from helpers.base import extras
from helpers.base.errors import InputError, LabError


def refusal(error, code):
    """An error as click shows it: one line, and an exit code."""
    refused = click.ClickException(str(error.args[0]) if len(error.args) == 1 else str(error))
    refused.exit_code = code
    return refused


class Verdict(click.Command):
    """A command whose exit codes 1 and 2 are verdicts: whatever keeps it from one is code 3."""

    def make_context(self, name, words, *arguments, **settings):
        asked = list(words)  # which click takes apart
        try:
            return super().make_context(name, words, *arguments, **settings)
        except click.UsageError as error:
            _forget_reports(asked)
            error.exit_code = 3
            raise

    def invoke(self, context):
        try:
            return super().invoke(context)
        except Exception as error:
            told = extras.explained(error, f"compression-lab {context.info_name}")
            if not isinstance(told, LabError):
                traceback.print_exc()
            raise refusal(told, 3) from None
        except KeyboardInterrupt:
            raise refusal(KeyboardInterrupt("interrupted: nothing was decided."), 3) from None


def _forget_reports(words):
    """Remove the former reports that a misspelt call names, so that none outlives it; not what else it names as well."""
    from pathlib import Path

    from helpers.deploy import gate_report

    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs_of = list(itertools.pairwise(["", *words]))
    reports = {word for before, word in pairs_of if before == "--report"}
    others = {Path(word).resolve() for before, word in pairs_of if before != "--report"}
    for report in reports:
        if Path(report).is_file() and Path(report).resolve() not in others:
            with contextlib.suppress(LabError):
                gate_report.clear(report)


def signature(more=""):
    """The option, with what a command has to say of it beside."""
    told = "Which one, of a .tflite or SavedModel of several; default: the only one, or a SavedModel's serving_default."
    return click.option("--signature", metavar="NAME", help=f"{told}{more}")


SIGNATURE = signature()
OPENED = (
    click.option("--code", metavar="FILE.py", help="Defines the layers that only their author's code has."),
    SIGNATURE,
)


TABLES = (
    click.option("--csv", "csv", metavar="FILE.csv", help="Write the table there as well."),
    click.option("--json", "as_json", metavar="FILE.json", help="Write the table there as well."),
)


def tables(command):
    """The options that write a command's table for machines."""
    for option in reversed(TABLES):
        command = option(command)
    return command


def written(frame, csv, as_json):
    """Write a table to the files that were named; unrounded, with the names of its rows."""
    from helpers.base import repository

    if csv:
        repository.write(csv, frame.to_csv())
    if as_json:
        repository.write(as_json, frame.to_json(orient="index", indent=1) + "\n")


def told_apart(paths):
    """The part of each path that differs: without the folders that all have in common. path -> text."""
    from pathlib import Path

    parts = {path: Path(path).parts for path in paths}
    common = 0
    while len({each[: common + 1] for each in parts.values()}) == 1 and common + 1 < min(map(len, parts.values())):
        common += 1
    return {path: str(Path(*each[common:])) for path, each in parts.items()}


def opened(command):
    """The options that say how a model file is to be read."""
    for option in reversed(OPENED):
        command = option(command)
    return command


def given(context, option, value):
    """Refuses an empty word, such as a variable that is not set makes of "--policy $POLICY": it would be taken for none at all."""
    if value == "" or (isinstance(value, tuple) and "" in value):
        raise click.BadParameter("is empty: leave it out, or say what it is to be.", context, option)
    return value


PURPOSE = (
    click.option(
        "--task",
        "tasks",
        multiple=True,
        callback=given,
        metavar="[OUTPUT=]TASK",
        help="classification, binary, multi-label, regression, segmentation, detection (detection:cxcywh, …) or embedding; of "
        "several outputs each may have its own. Default: what outputs and labels fit.",
    ),
    click.option(
        "--metric",
        callback=given,
        metavar="FILE.py:FUNCTION",
        help="Your own: (outputs, y) -> a score for each sample.",
    ),
)


def for_a_purpose(command):
    """The options that say what a model is for."""
    for option in reversed(PURPOSE):
        command = option(command)
    return command


def pairs(texts, what):
    """'name=value' each -> a dict; a text without a name is the only one and stands for itself. None for none.

    Raises InputError for a name that is given twice, or a text without a name among others.
    """
    if not texts:
        return None
    # In "binary:threshold=0.3" nothing is named; in "PartitionedCall:0=binary" an output that no signature names is.
    named = [text for text in texts if "=" in text and not re.match(r"[a-z-]+:([a-z]+,)*threshold=[^=]*$", text)]
    if len(texts) == 1 and not named:
        return texts[0]
    found = dict(text.split("=", 1) for text in named)
    if len(found) < len(texts):
        raise InputError(f"{what}={texts[-1]!r}: of several each must read NAME={what.upper()}, each name once.")
    return found


TARGET = click.option(
    "--target",
    callback=given,
    metavar="TARGET",
    help="Measure there, and compare the answers with those given here: ssh://[USER@]HOST[:PORT][/PYTHON], another machine; "
    "qemu://PROCESSOR, an emulated one of ARM's, whose instructions are counted; gpu, LiteRT's accelerator here. "
    "`compression-lab target list` says which are ready.",
)
