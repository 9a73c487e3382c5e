"""Characters as identities: all different, in disjoint parts, photographed the same for the same seed."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.networks import glyphs


@pytest.fixture(scope="module")
def known():
    return glyphs.load()


def test_hundreds_of_identities_in_twelve_faces(known):
    assert known.pictures.shape == (len(known.characters), 12, 32, 32) and len(known) > 900
    assert known.pictures.dtype == np.uint8 and (known.pictures.max(axis=(2, 3)) > 127).all()
    assert len(set(known.characters)) == len(known) and {"A", "e", "è", "8", "Ж", "Ω"} <= set(known.characters)
    # A of Latin, Greek and Cyrillic are one shape.
    assert not {"\u0391", "\u0410"} & set(known.characters)


def test_a_glyph_fills_the_same_room_in_every_face(known):
    place = known.characters.index("8")
    for picture in known.pictures[place]:
        rows, columns = (np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0))
        assert 22 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 24
        assert abs(rows.mean() - 15.5) <= 1.5 and abs(columns.mean() - 15.5) <= 1.5


def test_parts_are_disjoint_whole_and_repeat(known):
    one, again, other = (glyphs.parts(known, seed) for seed in (0, 0, 1))
    together = "".join(part.characters for part in one.values())
    assert list(one) == ["train", "threshold", "test"] and sorted(together) == sorted(known.characters)
    assert len(one["train"]) == pytest.approx(0.6 * len(known), abs=1)
    assert all(one[name].characters == again[name].characters != other[name].characters for name in one)
    first = one["test"].characters[0]
    assert (one["test"].pictures[0] == known.pictures[known.characters.index(first)]).all()


def test_photographs_repeat_and_differ(known):
    part = glyphs.parts(known)["test"]
    x, who = glyphs.photographs(part, 6, seed=0)
    again, other = glyphs.photographs(part, 6, seed=0)[0], glyphs.photographs(part, 6, seed=1)[0]
    assert (
        x.shape == (6 * len(part), 32, 32, 1) and x.dtype == np.float32 and np.bincount(who).tolist() == [6] * len(part)
    )
    assert (x == again).all() and (x != other).any() and x.min() >= -1 and x.max() <= 1
    assert all((x[place] != x[place + 1]).any() for place in range(0, 60, 6))


def test_a_photograph_shows_its_character(known):
    """Over many photographs of one the mean is most like that character's own picture."""
    part = glyphs.Glyphs(known.pictures[:40], known.characters[:40])
    random = np.random.default_rng(0)
    plain = part.pictures[:, 0].reshape(40, -1) / 255.0
    plain = (plain - plain.mean(axis=1, keepdims=True)) / plain.std(axis=1, keepdims=True)
    for place in range(40):
        taken = glyphs.taken(np.repeat(part.pictures[place, :1], 200, axis=0), random).mean(axis=0).ravel()
        assert (plain @ (taken - taken.mean())).argmax() == place


def test_another_number_of_photographs_is_refused(known):
    with pytest.raises(InputError, match=r"each=13 must lie in \[1, 12\]"):
        glyphs.photographs(known, 13, 0)
