"""What the lab refuses, in few classes: whoever called can tell a refusal from a defect, and the message is for people.

A refusal is one sentence that names what was given, its value, and what would be right. The commands show it without a
traceback; any other exception is a defect and keeps its own.
"""


class LabError(Exception):
    """The base of all refusals."""


class InputError(LabError, ValueError):
    """What was given cannot be used: a file, an array, a name, a setting."""


class StructureError(InputError):
    """A model is sound, but has a structure with which this cannot be done."""


class ResultsError(InputError):
    """There are no such results on record, or their file is damaged."""


class OutputError(LabError, OSError):
    """A file could not be written; what stood there before is untouched."""


class MissingError(LabError, ImportError):
    """What this needs is not installed: the packages of an extra, or the repository."""


class RunError(LabError, RuntimeError):
    """The process that was to run a model, here or on another machine, failed.

    model: the only one that it ran, by its name, "empty" of none, None of several or where nobody knows. limited: whether a limit
    of time or memory ended it.
    """

    def __init__(self, sentence, model=None, limited=False):
        super().__init__(sentence)
        self.model, self.limited = model, limited


def first_line(error):
    """What an error of another library says, short enough to be quoted in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
