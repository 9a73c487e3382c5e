"""In which language a page is told: in English, as the code has it, or in Chinese, by a file of translations.

Whatever a generated page says begins as English text in the code: a claim's statement, a verdict, the form of a reason. The
English text is the key of its translation. So a sentence that is changed has none until somebody translates it anew; until
then it stands in English, and a test names it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from helpers.base import repository

ENDING = ".zh.md"  # of pages in Chinese
UNITS = (" points", ", one seed")  # what an Estimate says in words


@dataclass(frozen=True)
class Language:
    """A language. words: English text -> its own; an English text that is not there stays as it is."""

    words: Mapping[str, str] = field(default_factory=dict)

    def say(self, text, **parts):
        """An English text in this language. parts: what to put where it has braces."""
        said = self.words.get(text, text)
        return said.format(**parts) if parts else said

    def number(self, estimate, form):
        """An `Estimate` with its interval, units in this language. form: as `Estimate` takes it."""
        told = format(estimate, form)
        for unit in UNITS:
            told = told.replace(unit, self.say(unit))
        return told


ENGLISH = Language()


def folder():
    """Where what is translated by hand into Chinese lies, but for the pages that end in ENDING."""
    return repository.NOTEBOOKS / "zh"


def groups():
    """The translations as their file has them: group -> English text -> Chinese text."""
    return yaml.safe_load((folder() / "words.yaml").read_text(encoding="utf-8"))


@functools.cache
def chinese():
    """Chinese, as the file of translations has it."""
    return Language({english: own for group in groups().values() for english, own in group.items()})


def of(path):
    """The language of a page (path), by its name: README.zh.md is in Chinese."""
    return chinese() if path.name.endswith(ENDING) else ENGLISH
