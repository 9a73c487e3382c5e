"""Scenes to find things in: a data set's own pictures at random places and sizes of a dark canvas, with a box around each."""

import numpy as np
from PIL import Image

from helpers.base import ground_truth
from helpers.base.errors import InputError

SIDE = 64  # pixels of the canvas
SIZES = (16, 32)  # pixels of a thing's longer side, from and to
VISIBLE = 32  # of 255: what is as bright belongs to the thing
SHARED = 0.1  # of the smaller box, at most, lies in another
TRIALS = 20  # places that are tried for a thing before it is left out


def scenes(images, labels, number, seed, most=4):
    """So many scenes, each with one to `most` things: x, float32 (number, SIDE, SIDE, 1) in [-1, 1], and y, float32 (number,
    most, 5), of each thing its class and its box x1, y1, x2, y2 in shares of the canvas; rows of -1 fill up.

    images: uint8 (n, height, width), bright on dark; labels: int (n,). Boxes are tight around what is visible, and hardly
    overlap. No picture is shown a second time before all were shown once. The same seed gives the same scenes.
    Raises InputError for pictures in colour, too dark to see, or of another number than labels.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        raise InputError(f"images is {images.dtype} {images.shape}: give grey ones, uint8 (n, height, width).")
    labels = ground_truth.labels(labels, len(images), name="labels")
    dark = images.reshape(len(images), -1).max(axis=1) < 4 * VISIBLE  # may be lost when it is made smaller
    if dark.any():
        raise InputError(f"images has {dark.sum()} without a pixel of {4 * VISIBLE} or more: leave them out.")
    if number < 1 or most < 1:
        raise InputError(f"number={number} and most={most} must be 1 or more.")
    random, turns = np.random.default_rng(seed), _turns(len(images), seed)
    canvas, y = np.zeros((number, SIDE, SIDE), np.uint8), np.full((number, most, 5), -1, np.float32)
    for scene, truth in zip(canvas, y, strict=True):
        for row in truth[: random.integers(1, most + 1)]:
            chosen = next(turns)
            thing = _sized(images[chosen], random.integers(SIZES[0], SIZES[1] + 1))
            box = _place(thing.shape, truth[truth[:, 0] >= 0, 1:] * SIDE, random)
            if box is not None:
                left, top, right, bottom = box
                part = scene[top:bottom, left:right]
                np.maximum(part, thing, out=part)
                row[:] = labels[chosen], *(box / SIDE)
        order = np.argsort(truth[:, 0] < 0, kind="stable")  # one that found no place leaves a gap
        truth[:] = truth[order]
    return (canvas / 127.5 - 1).astype(np.float32)[..., None], y


def _turns(n, seed):
    """Every index in random order, then again in another."""
    random = np.random.default_rng([seed, 1])
    while True:
        yield from random.permutation(n)


def _sized(picture, longer):
    """What is visible of a picture, its longer side of so many pixels: uint8 (height, width)."""
    thing = _visible(picture)
    scale = longer / max(thing.shape)
    height, width = (max(1, round(side * scale)) for side in thing.shape)
    return _visible(np.asarray(Image.fromarray(thing).resize((width, height), Image.Resampling.BILINEAR)))


def _visible(picture):
    rows, columns = (np.flatnonzero((picture >= VISIBLE).any(axis=axis)) for axis in (1, 0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(shape, others, random):
    """Where a thing of a height and width goes, int (4,), corners in pixels; None where there is no room beside the others."""
    height, width = shape
    for _ in range(TRIALS):
        left, top = random.integers(0, SIDE - width + 1), random.integers(0, SIDE - height + 1)
        box = np.array([left, top, left + width, top + height])
        both = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        shared = np.prod(np.clip(both, 0, None), axis=1)
        smaller = np.minimum(np.prod(others[:, 2:] - others[:, :2], axis=1), height * width)
        if (shared <= SHARED * smaller).all():
            return box
    return None
