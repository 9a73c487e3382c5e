"""Boxes that a detector finds: read from its outputs, matched with the true ones, and their average precision.

A box is x1, y1, x2, y2. Average precision is that of COCO at an overlap of one half: the precision that is interpolated at 101
points of recall, averaged over the classes that occur (Lin et al. 2014, *Microsoft COCO*; pycocotools' `COCOeval`).
"""

from dataclasses import dataclass

import numpy as np

from helpers.evidence.stats import OfSet

OVERLAP = 0.5  # from which on a box counts as found; and above which two found ones are the same
MOST = 100  # boxes an image, the most certain
RECALLS = np.linspace(0, 1, 101)
FORMS = ("xyxy", "yxyx", "cxcywh", "xywh")


@dataclass(frozen=True)
class Found:
    """What is found in one image, the most certain first: boxes float (k, 4), classes int (k,), scores float (k,)."""

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def corners(boxes, form):
    """Boxes (..., 4) of a form of FORMS as x1, y1, x2, y2. c: of the centre; w, h: width and height."""
    one, two, three, four = np.moveaxis(np.asarray(boxes, float), -1, 0)
    if form == "xyxy":
        parts = one, two, three, four
    elif form == "yxyx":
        parts = two, one, four, three
    elif form == "xywh":
        parts = one, two, one + three, two + four
    else:
        parts = one - three / 2, two - four / 2, one + three / 2, two + four / 2
    return np.stack(parts, axis=-1)


def overlap(one, other):
    """Intersection over union of boxes (m, 4) with boxes (k, 4): (m, k); 0 where both are empty."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = _area(high - low)
    areas = [_area(each[:, 2:] - each[:, :2]) for each in (one, other)]
    either = areas[0][:, None] + areas[1][None] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def _area(sides):
    sides = np.maximum(sides, 0)
    return sides[..., 0] * sides[..., 1]


def best(boxes, scores):
    """Of one image: the MOST certain boxes after those are left out that overlap a more certain one of their class.

    boxes: float (a, 4), corners. scores: float (a, classes).
    """
    anchors, classes = np.unravel_index(np.argsort(-scores, axis=None, kind="stable")[: 10 * MOST], scores.shape)
    certain, kept = scores[anchors, classes], []
    used, of = np.unique(anchors, return_inverse=True)  # a box that several classes share is compared once
    apart = overlap(boxes[used], boxes[used]) <= OVERLAP
    free = np.isfinite(certain)
    for place in range(len(anchors)):
        if free[place] and len(kept) < MOST:
            kept.append(place)
            free &= apart[of[place], of] | (classes != classes[place])
    return Found(boxes[anchors[kept]], classes[kept], certain[kept])


def average_precision(found, true):
    """Mean average precision at an overlap of one half, as an `OfSet` over the images.

    found: a list of Found. true: float (n, m, 5), of each box its class and corners; a class below 0 is none.
    """
    classes, rows = np.unique(true[..., 0][true[..., 0] >= 0]).astype(int), {}
    wanted = {each: (true[..., 0] == each).sum(axis=1).astype(float) for each in classes}
    for each in classes:
        certain, right, image = [], [], []
        for place, (boxes, one) in enumerate(zip(true, found, strict=True)):
            chosen = one.classes == each
            certain.append(one.scores[chosen])
            right.append(_matched(one.boxes[chosen], boxes[boxes[:, 0] == each, 1:]))
            image.append(np.full(chosen.sum(), place))
        order = np.argsort(-np.concatenate(certain), kind="stable")
        rows[each] = np.concatenate(right)[order], np.concatenate(image)[order]

    def of(weights):
        values = np.stack([_precision(weights, *rows[each], wanted[each]) for each in classes])
        known = np.isfinite(values)
        return np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)

    return OfSet(len(true), of, max(len(right) for right, _ in rows.values()))


def _matched(boxes, true):
    """Which found boxes, the most certain first, have a true one that none before them has."""
    right, free = np.zeros(len(boxes), bool), np.ones(len(true), bool)
    if not len(true):
        return right
    table = overlap(boxes, true)
    for place in np.flatnonzero((table >= OVERLAP).any(axis=1)):
        row = np.where(free, table[place], -1)
        if row.max() >= OVERLAP:
            right[place], free[row.argmax()] = True, False
    return right


def _precision(weights, right, image, wanted):
    """Interpolated average precision of one class: (times,), NaN where no true box counts."""
    total = weights @ wanted
    if not len(right):
        return np.where(total > 0, 0.0, np.nan)
    # Precision has its peaks where a box is right: what lies between them decides nothing.
    seen = np.cumsum(weights[:, image], axis=1)[:, right]
    hits = np.cumsum(weights[:, image[right]], axis=1)
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    values = np.full(len(weights), np.nan)
    for draw in np.flatnonzero(total > 0):
        places = np.searchsorted(hits[draw] / total[draw], RECALLS, side="left")
        values[draw] = np.append(precision[draw], 0)[places].mean()
    return values
