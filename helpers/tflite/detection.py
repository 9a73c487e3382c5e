"""The task of detectors: boxes with classes (`boxes` has their measure)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from helpers.base.errors import InputError
from helpers.evidence.boxes import FORMS, average_precision, best, corners
from helpers.evidence.stats import score
from helpers.tflite.scoring import ALIKE, Task, noise

UNLIKE = 4  # times as far from the corner: labels in pixels and boxes in shares of the side, or the reverse


@dataclass(frozen=True)
class Detection(Task):
    """Boxes with classes. Measure: average precision at an overlap of one half, as `average_precision` has it.

    form: how the outputs write a box, a word of `FORMS`. objectness: whether a number before the classes says that
    there is anything at all. y: float (n, boxes, 5), of each box its class, x1, y1, x2, y2 in the outputs' units; a class of -1
    fills up. Outputs: one of (boxes, 4) and one of (boxes, classes); or one with both, (boxes, 4 + classes), or (4 + classes,
    boxes).
    """

    name: ClassVar[str] = "detection"
    measure: ClassVar[str] = "ap50"
    told: ClassVar[str] = "AP50"
    options: ClassVar[tuple[str, ...]] = (*FORMS, "objectness")
    form: str = "xyxy"
    objectness: bool = False

    def misfit(self):
        shapes = [shape for shape in self.shapes.values() if len(shape) == 2]
        if len(self.shapes) == len(shapes) == 1 and min(shapes[0]) >= 5:
            return None
        boxes = [shape for shape in shapes if shape[1] == 4]
        if len(self.shapes) == len(shapes) == 2 and boxes and len({shape[0] for shape in shapes}) == 1:
            return None
        told = ", ".join(str((1, *shape)) for shape in self.shapes.values())
        return f"its outputs have shapes {told}: (1, boxes, 4) and (1, boxes, classes), or one with both, are needed"

    def truth(self, y, n, label="y"):
        y = np.asarray(y)
        if y.dtype.kind not in "fiu" or y.ndim != 3 or len(y) != n or y.shape[2] != 5:
            raise InputError(
                f"{label} is {y.dtype} of shape {y.shape}: give ({n}, boxes, 5), of each box its class, x1, y1, x2, y2, and "
                "rows of -1 where a sample has fewer."
            )
        y = np.where(np.isnan(y[..., :1]), -1, y).astype(float)
        there = y[..., 0] >= 0
        if not there.any():
            raise InputError(f"{label} has no box at all: give some samples with one.")
        if (y[there][:, 3:] < y[there][:, 1:3]).any():
            raise InputError(f"{label} has boxes that end before they begin: give x1, y1, x2, y2.")
        if y[..., 0].max() >= self.classes:
            raise InputError(f"{label} has classes up to {y[..., 0].max():g}: the model has {self.classes}, from 0.")
        return y

    @property
    def classes(self):
        shapes = list(self.shapes.values())
        if len(shapes) == 1:
            return min(shapes[0]) - 4 - self.objectness
        return next((shape[1] for shape in shapes if shape[1] != 4), 4) - self.objectness

    def parts(self, answers):
        """Corners, float (n, boxes, 4), and certainty, float (n, boxes, classes)."""
        if len(self.shapes) == 1:
            whole = answers[self.output]
            if self.shape[0] < self.shape[1]:  # (4 + classes, boxes), as YOLO's exporters write it
                whole = whole.swapaxes(1, 2)
            boxes, rest = whole[..., :4], whole[..., 4:]
        else:
            wide = [name for name, shape in self.shapes.items() if shape[1] == 4]
            named = [name for name in wide if "box" in name.lower()] or wide
            boxes = answers[named[0]]
            rest = next(answers[name] for name in self.shapes if name != named[0])
        if self.objectness:
            rest = rest[..., :1] * rest[..., 1:]
        return corners(boxes, self.form), rest

    def found(self, answers):
        return [best(*each) for each in zip(*self.parts(answers), strict=True)]

    def own(self, answers):
        found = self.found(answers)
        most = [each.scores[0] if len(each.scores) else -np.inf for each in found]
        certain = min(0.5, float(np.median(most)))
        kept = [each.scores >= certain for each in found]
        truth = np.full((len(found), max(max(map(np.sum, kept)), 1), 5), -1.0)
        for row, each, chosen in zip(truth, found, kept, strict=True):
            row[: chosen.sum(), 0], row[: chosen.sum(), 1:] = each.classes[chosen], each.boxes[chosen]
        return truth

    def scores(self, answers, truth):
        return average_precision(self.found(answers), truth)

    def alike(self, one, other):
        pairs = zip(self.parts(one), self.parts(other), strict=True)  # boxes and certainties each by themselves
        return np.all([noise(*pair) <= ALIKE for pair in pairs], axis=0)

    def advice(self, answers, truth):
        better = {form: score(replace(self, form=form).scores(answers, truth)).value for form in FORMS}
        best_form = max(better, key=better.get)
        if best_form != self.form and better[best_form] > 0.05:
            return f"with boxes read as {best_form} it has {better[best_form]:.3f}: say --task detection:{best_form}."
        ends = [each.boxes[0].max() for each in self.found(answers) if len(each.boxes)]
        reach, wanted = np.median(ends), np.median(truth[truth[..., 0] >= 0][:, 1:].max(axis=-1))
        if not 1 / UNLIKE < wanted / max(reach, 1e-9) < UNLIKE:
            return f"its boxes end near {reach:.3g}, those of y near {wanted:.3g}: give y in the units of the outputs."
        return super().advice(answers, truth)
