"""Identities to tell apart: characters, each in twelve typefaces, taken as a camera would take them.

To recognize a face is to tell identities apart that nobody trained on, hundreds of them, by a few pictures of each. No data
set of faces comes with the packages. The typefaces of DejaVu come with matplotlib, and have what matters here: many
identities, some of them alike as siblings (e, è, ê), and pictures of one that differ as much as those of two.
"""

import functools
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import ft2font
from PIL import Image

from helpers.base.errors import InputError

FACES = tuple(
    f"DejaVu{family}{style}"
    for family, styles in {
        "Sans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "SansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "Serif": ("", "-Bold", "-Italic", "-BoldItalic"),
    }.items()
    for style in styles
)
SIDE, LONGER = 32, 24  # pixels of a picture, and of the longer side of a glyph in it
TWINS = 0.92  # correlation from which on two characters are one
KINDS = "LN"  # letters and numbers; marks, dots and lines have hardly a shape of their own
PARTS = {"train": 0.6, "threshold": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Glyphs:
    """pictures: uint8 (identities, faces, SIDE, SIDE), bright on dark, undistorted. characters: str, one an identity."""

    pictures: np.ndarray
    characters: str

    def __len__(self):
        return len(self.pictures)


@functools.cache
def load():
    """All characters that every face has and that can be told from those before: Glyphs, always the same, in some seconds.

    They are scaled to one size. Of those that look alike, such as A in Latin, Greek and Cyrillic, the first one stays.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ft2font.FT2Font(str(folder / f"{face}.ttf")) for face in FACES]
    shared = set.intersection(*(set(font.get_charmap()) for font in fonts))
    codes = sorted(code for code in shared if unicodedata.category(chr(code))[0] in KINDS)
    drawn = np.stack([[_drawn(font, code) for code in codes] for font in fonts], axis=1)
    kept = _different(drawn[:, 0])
    return Glyphs(drawn[kept], "".join(chr(codes[place]) for place in kept))


def parts(glyphs, seed=0):
    """Disjoint identities: name of PARTS -> Glyphs, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(glyphs))
    ends = np.round(np.cumsum(list(PARTS.values())) * len(glyphs)).astype(int)
    found = {}
    for name, some in zip(PARTS, np.split(order, ends[:-1]), strict=True):
        some = np.sort(some)
        found[name] = Glyphs(glyphs.pictures[some], "".join(glyphs.characters[place] for place in some))
    return found


def photographs(glyphs, each, seed):
    """Pictures of every identity: x, float32 (identities * each, SIDE, SIDE, 1) in [-1, 1], and who is on them, int (n,).

    each: how many, every one in another face, at most 12. Each is turned, sheared, scaled, moved, lit and blurred by noise at
    random. The same seed gives the same. Raises InputError for another number.
    """
    if not 1 <= each <= len(FACES):
        raise InputError(f"each={each} must lie in [1, {len(FACES)}]: there are so many faces.")
    random = np.random.default_rng(seed)
    who = np.repeat(np.arange(len(glyphs)), each)
    faces = np.concatenate([random.permutation(len(FACES))[:each] for _ in range(len(glyphs))])
    return taken(glyphs.pictures[who, faces], random), who


def taken(pictures, random):
    """Pictures, uint8 (n, SIDE, SIDE), as they are photographed: float32 (n, SIDE, SIDE, 1) in [-1, 1]."""
    n = len(pictures)
    turn, shear, scale = random.uniform(-1, 1, (3, n)) * np.array([[0.25], [0.2], [0.15]])
    cos, sin, scale = np.cos(turn), np.sin(turn), np.exp(scale)
    matrix = np.stack([np.stack([cos + shear * sin, shear * cos - sin]), np.stack([sin, cos])]) / scale
    moved, middle = random.uniform(-2.5, 2.5, (2, n)), (SIDE - 1) / 2
    grid = np.indices((SIDE, SIDE)).reshape(2, -1) - middle
    row, column = np.einsum("ijn,jp->inp", matrix, grid) + (moved + middle)[:, :, None]
    found = _sampled(pictures.astype(np.float32) / 255, row, column).reshape(n, SIDE, SIDE)
    dark, light = random.uniform(0, 0.35, n), random.uniform(0.55, 1, n)
    found = dark[:, None, None] + (light - dark)[:, None, None] * found
    found = np.clip(found + random.normal(0, 0.08, found.shape), 0, 1)
    return (2 * found - 1).astype(np.float32)[..., None]


def _drawn(font, code):
    """One character, its longer side of LONGER pixels, in the middle of a picture: uint8 (SIDE, SIDE)."""
    font.set_size(64, 72)
    font.set_text(chr(code), flags=ft2font.LoadFlags.NO_HINTING)
    font.draw_glyphs_to_bitmap(antialiased=True)
    image, picture = np.asarray(font.get_image()), np.zeros((SIDE, SIDE), np.uint8)
    if not image.any():
        return picture
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(side * LONGER / max(image.shape))) for side in image.shape)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    picture[top : top + height, left : left + width] = Image.fromarray(image).resize((width, height))
    return picture


def _different(pictures):
    """Indices of pictures, uint8 (n, SIDE, SIDE), that show something, and nothing that one before them shows."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    size = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.maximum(size, 1e-6)
    alike, kept = flat @ flat.T > TWINS, []
    for place in np.flatnonzero(size[:, 0]):
        if not alike[place, kept].any():
            kept.append(int(place))
    return np.array(kept)


def _sampled(pictures, row, column):
    """Values of pictures (n, SIDE, SIDE) at places (n, p), between pixels; 0 outside."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    row, column = (np.clip(each + 1, 0, SIDE + 0.999) for each in (row, column))
    top, left = row.astype(int), column.astype(int)
    down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
    which = np.arange(len(pictures))[:, None]
    upper = padded[which, top, left] * (1 - right) + padded[which, top, left + 1] * right
    lower = padded[which, top + 1, left] * (1 - right) + padded[which, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down
