"""The lab's sentences: what their card says of them, and measures whose right value is known."""

import collections
import csv

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.networks import sentences

TEXTS = sentences.load()


def turned(vectors, seed=0):
    """The same vectors, turned and scaled: every cosine stays."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(vectors.shape[1],) * 2))[0]
    return 3.5 * vectors @ turn


# --- the list


def test_it_is_what_its_card_says():
    assert len(TEXTS.calibration) == 100 and len(TEXTS.statements) == len(TEXTS.paraphrases) == len(TEXTS.groups) == 336
    assert np.bincount(TEXTS.groups).tolist() == [4] * 84
    counts = collections.Counter(TEXTS.details)
    assert counts == {"base": 84, "swap": 22, "negation": 39, "thing": 41, "number": 50, "place": 50, "time": 50}
    every = TEXTS.calibration + TEXTS.judged
    assert len(set(every)) == len(every) == 772
    assert all(10 <= len(text.split()) <= 24 for text in every)
    assert all(text[0].isupper() or text[0].isdigit() for text in every) and all(text[-1] in ".?" for text in every)


def test_members_of_a_group_are_alike_and_groups_are_not():
    def common(one, other):
        one, other = (set(text.lower().split()) for text in (one, other))
        return len(one & other) / len(one | other)

    firsts = [text for text, detail in zip(TEXTS.statements, TEXTS.details, strict=True) if detail == sentences.BASE]
    for text, group in zip(TEXTS.statements, TEXTS.groups, strict=True):
        alike = [common(text, first) for first in firsts]
        assert int(np.argmax(alike)) == group and alike[group] > 2 * max(alike[:group] + alike[group + 1 :]), text


def test_a_letter_that_differs_is_refused(tmp_path):
    changed = tmp_path / "sentences.csv"
    text = sentences.FILE.read_text(encoding="utf-8")
    changed.write_text(text.replace("kettle", "bottle", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"does not hold the lab's sentences: `git checkout -- data/sentences\.csv`"):
        sentences.load(changed)
    changed.write_text(text.replace("role,group", "part,group"), encoding="utf-8")
    with pytest.raises(InputError, match="does not hold"):
        sentences.load(changed)
    with pytest.raises(InputError, match="cannot be read"):
        sentences.load(tmp_path / "nowhere.csv")


def test_ends_of_lines_do_not_matter(tmp_path):
    with open(sentences.FILE, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    with open(tmp_path / "sentences.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    assert sentences.load(tmp_path / "sentences.csv").judged == TEXTS.judged


# --- measures


def test_each_paraphrase_looks_for_its_own_statement():
    statements = np.eye(4)
    paraphrases = np.array([[2, 1, 0, 0], [2, 1, 0, 0], [0, 0, 5, 0], [1, 1, 1, 1]], float)
    right = sentences.found(np.concatenate([statements, paraphrases]))
    assert right.tolist() == [True, False, True, False], "the last is as near to all of them"


def test_statements_look_for_their_paraphrases_as_well():
    """Directions in degrees of two statements and their paraphrases: of 60, 45 is the nearer one, and of 90 as well."""
    for angles, right in (((0, 90, 40, 50), [True] * 4), ((60, 90, 40, 45), [False, True, True, False])):
        vectors = np.exp(1j * np.radians(angles))
        vectors = np.stack([vectors.real, vectors.imag], axis=1)
        assert sentences.found_both_ways(vectors).tolist() == right
        assert sentences.found(vectors).tolist() == right[2:]


def test_vectors_that_are_all_alike_find_nothing():
    assert not sentences.found(np.ones((8, 3))).any()
    assert not sentences.found(np.zeros((8, 3))).any()


def test_groups_are_what_is_sampled():
    right = np.array([True, False, True, True, False, False])
    assert sentences.by_group(right, np.array([7, 7, 3, 3, 5, 5])).tolist() == [1.0, 0.0, 0.5]


def test_measures_do_not_see_a_turn_of_all_vectors():
    vectors = np.random.default_rng(1).normal(size=(40, 6))
    assert sentences.agreement(vectors, turned(vectors)) == pytest.approx(1)
    np.testing.assert_array_equal(sentences.found(vectors), sentences.found(turned(vectors)))


def test_fidelity_is_the_cosine_with_the_float_models():
    exact = np.array([[1.0, 0], [1, 0], [0, 2], [1, 1]])
    found = sentences.fidelity(exact, np.array([[3.0, 0], [0, 1], [0, -1], [1, 0]]))
    np.testing.assert_allclose(found, [1, 0, -1, np.sqrt(0.5)])


def test_agreement_is_spearmans_of_all_pairs():
    angles = np.deg2rad([0, 10, 30, 70])
    exact = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    angles = np.deg2rad([0, 20, 31, 90])  # the six differences keep their order but for two neighbours
    other = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert sentences.agreement(exact, other) == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert sentences.agreement(exact, np.ones((4, 2))) == 0.0


def test_what_cannot_be_judged_is_refused():
    good, bad = np.eye(4), np.full((4, 4), np.nan)
    for measure in (sentences.fidelity, sentences.agreement):
        with pytest.raises(InputError, match="NaN or infinity"):
            measure(good, bad)
        with pytest.raises(InputError, match="of the same sentences"):
            measure(good, good[:3])
    with pytest.raises(InputError, match="NaN or infinity"):
        sentences.found(bad)
