"""Sentences as whole numbers: the published rules of BERT's tokenizer, on words whose pieces are known."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.base.errors import InputError
from helpers.networks import wordpiece

FRAME = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = [*FRAME, "the", "un", "##aff", "##able", "##a", "cafe", "!", "$", "5", "北", "it", "'", "s", "aff"]


@pytest.fixture
def split():
    return wordpiece.WordPiece(PIECES)


@pytest.mark.parametrize(
    "sentence, words",
    [
        ("The  Café!", ["the", "cafe", "!"]),
        ("it's $5", ["it", "'", "s", "$", "5"]),
        ("北北", ["北", "北"]),
        ("a\tb\nc\u00a0d\u2028e", ["a", "b", "c", "d", "e"]),
        ("zero\u200bwidth\x00and\ufffdodd", ["zerowidthandodd"]),
        ("«quoted» \u2014 and…", ["«", "quoted", "»", "\u2014", "and", "…"]),
        ("2\u20ac", ["2\u20ac"]),  # the euro is a symbol, no punctuation, and not ASCII
        ("", []),
    ],
)
def test_words_are_split_as_bert_reads_them(sentence, words):
    assert wordpiece.words(sentence) == words


def test_the_longest_piece_comes_first(split):
    assert split.pieces("unaffable") == ["un", "##aff", "##able"]
    assert split.pieces("affa") == ["aff", "##a"]


def test_a_word_that_cannot_be_made_up_is_unknown_as_a_whole(split):
    assert split.pieces("unaffablex the") == ["[UNK]", "the"]
    assert split.pieces("un" * 60) == ["[UNK]"]


def test_sentences_are_framed_and_filled_up(split):
    found = split(["The unaffable", ""], 7)
    assert found.dtype == np.int32
    assert found.tolist() == [[2, 4, 5, 6, 7, 3, 0], [2, 3, 0, 0, 0, 0, 0]]


def test_a_long_sentence_keeps_its_end_mark(split):
    assert split(["the the the the"], 4).tolist() == [[2, 4, 4, 3]]


def test_names_of_special_pieces_are_text(split):
    assert 3 not in split(["[SEP]"], 8)[0, 1:-1].tolist()[:1]
    assert split.pieces("[SEP]") == ["[UNK]"] * 3


@given(st.text())
def test_any_text_fits(text):
    found = wordpiece.WordPiece(PIECES)([text], 9)
    assert found.shape == (1, 9) and found[0, 0] == 2 and (found == 3).sum() == 1


@pytest.mark.parametrize("pieces", [PIECES[1:], [*PIECES, "the"]])
def test_a_vocabulary_of_another_kind_is_refused(pieces):
    with pytest.raises(InputError, match="give that of an uncased BERT model"):
        wordpiece.WordPiece(pieces)


def test_what_is_no_list_of_sentences_is_refused(split):
    with pytest.raises(InputError, match="sentences is one string: give a list"):
        split("the", 4)
    with pytest.raises(InputError, match="length=1 must be at least 2"):
        split(["the"], 1)


# --- files


def content(**changes):
    model = {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {p: n for n, p in enumerate(PIECES)}}
    return json.dumps({"model": model | changes})


def test_a_file_gives_the_same_pieces(split, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content(), encoding="utf-8")
    found = wordpiece.from_file(path)
    assert found.numbers == split.numbers and found.sha256 == split.sha256


def test_the_fingerprint_knows_the_order():
    other = wordpiece.WordPiece([*PIECES[:-2], *PIECES[:-3:-1]])
    assert set(other.numbers) == set(PIECES) and other.sha256 != wordpiece.WordPiece(PIECES).sha256


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "holds no tokenizer"),
        ("[]", "holds no tokenizer"),
        ('{"model": null}', "holds no tokenizer"),
        (content(type="BPE"), "holds no WordPiece vocabulary"),
        (content(vocab={"the": 0, "un": 2}), "holds no WordPiece vocabulary"),
        (content(vocab={"the": 0}), r"lacks \[PAD\]"),
    ],
)
def test_another_file_is_refused(text, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        wordpiece.from_file(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        wordpiece.from_file(tmp_path / "nowhere.json")
