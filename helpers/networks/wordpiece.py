"""Sentences -> the whole numbers that a BERT encoder takes: WordPiece (Wu et al. 2016), as uncased BERT models use it."""

import hashlib
import json
import unicodedata
from pathlib import Path

import numpy as np

from helpers.base.errors import InputError

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
CONTINUED = "##"  # before a piece that does not begin a word
LONGEST_WORD = 100  # characters; a longer one is unknown
# Chinese characters stand for words, and are written without spaces: first and last of their blocks in Unicode.
IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """Splits sentences into pieces of a vocabulary. pieces: each once, its place being its number; among them PAD, UNKNOWN, BEGIN
    and END. Raises InputError where one of those is missing, or a piece stands twice."""

    def __init__(self, pieces):
        self.numbers = {piece: number for number, piece in enumerate(pieces)}
        missing = [piece for piece in (PAD, UNKNOWN, BEGIN, END) if piece not in self.numbers]
        if missing or len(self.numbers) != len(pieces):
            fault = f"lacks {', '.join(missing)}" if missing else "holds a piece twice"
            raise InputError(f"the vocabulary of {len(pieces):,} pieces {fault}: give that of an uncased BERT model.")

    @property
    def sha256(self):
        """SHA-256 of the pieces in their order, a line each."""
        return hashlib.sha256("\n".join(self.numbers).encode()).hexdigest()

    def __call__(self, sentences, length):
        """int32 (n, length): BEGIN, the pieces of each sentence, END, and PAD up to `length`. Of a longer one the last pieces are
        left out. Names of special pieces are read as any other text. Raises InputError for a length below 2, or one string
        instead of several."""
        if isinstance(sentences, str):
            raise InputError("sentences is one string: give a list of them.")
        if length < 2:
            raise InputError(f"length={length} must be at least 2: a sentence is framed by two pieces.")
        found = np.full((len(sentences), length), self.numbers[PAD], np.int32)
        for row, sentence in zip(found, sentences, strict=True):
            framed = [BEGIN, *self.pieces(sentence)[: length - 2], END]
            row[: len(framed)] = [self.numbers[piece] for piece in framed]
        return found

    def pieces(self, sentence):
        """A sentence as a list of pieces."""
        return [piece for word in words(sentence) for piece in self._within(word)]

    def _within(self, word):
        """The longest piece that the word begins with, then the longest that continues it; UNKNOWN alone if there is none."""
        found, start = [], 0
        while start < len(word):
            begun = CONTINUED if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if begun + word[start:end] in self.numbers), None)
            if end is None or len(word) > LONGEST_WORD:
                return [UNKNOWN]
            found.append(begun + word[start:end])
            start = end
        return found


def from_file(path):
    """The WordPiece of a `tokenizer.json`. Raises InputError for another file, or a tokenizer of another kind."""
    try:
        model = json.loads(Path(path).read_text(encoding="utf-8"))["model"]
        numbers = model["vocab"]
        pieces = sorted(numbers, key=numbers.get)
        fits = model["type"] == "WordPiece" and model["continuing_subword_prefix"] == CONTINUED
        fits = fits and [numbers[piece] for piece in pieces] == list(range(len(pieces)))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the path of a tokenizer.json.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no tokenizer ({type(error).__name__}: {error}): give a tokenizer.json as its authors published it."
        ) from error
    if not fits:
        raise InputError(f"{path} holds no WordPiece vocabulary: give the tokenizer.json of an uncased BERT model.")
    return WordPiece(pieces)


def words(sentence):
    """A sentence as BERT reads it: in lower case, without accents and control characters, split at white space, and around
    every punctuation mark and Chinese character."""
    found = []
    for character in unicodedata.normalize("NFD", sentence):
        kind = unicodedata.category(character)
        if character in "\t\n\r" or kind.startswith("Z"):
            found.append(" ")
        elif kind == "Mn" or kind.startswith("C") or character == "\ufffd":
            continue
        elif _stands_alone(character, kind):
            found.append(f" {character} ")
        else:
            found.append(character)
    return "".join(found).lower().split()


def _stands_alone(character, kind):
    point = ord(character)
    if kind.startswith("P") or any(first <= point <= last for first, last in IDEOGRAPHS):
        return True
    return "!" <= character <= "~" and not character.isalnum()  # ASCII's symbols, such as $ and +, count as punctuation
