"""Boxes in pixels and scores in one int8 tensor: nothing is left, and each of three cures brings it back, without training."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.compress import quantize, requantize
from helpers.deploy import gate
from helpers.deploy.policy import Policy
from helpers.evidence import stats
from helpers.networks import checkpoints, data, detector, scenes
from helpers.tflite import heads, inputs, litert, scales
from tests import architectures

BOXES = heads.Purpose("detection", informed=True)
EVERYTHING = {"*": requantize.Format()}


@pytest.fixture(scope="module")
def seen():
    """Scenes of test digits, their labels, and scenes of training digits to calibrate with."""
    digits = data.load("mnist5k")
    calibration, _ = scenes.scenes(digits.x_train, digits.y_train, 60, seed=0)
    return *scenes.scenes(digits.x_test, digits.y_test, 150, seed=1), calibration


@pytest.fixture(scope="module")
def files(seen):
    """head -> (float file, ranges, frozen model)."""
    model, made = checkpoints.load("detector_digits_64", size=64, classes=10), {}
    for head in detector.HEADS:
        frozen = quantize.freeze(detector.with_head(model, head))
        blob = quantize.convert(frozen)
        made[head] = blob, requantize.calibrate(blob, seen[2]), frozen
    return made


def lost(blob, candidate, x, y=None):
    """AP50 of a float file, and by how much another one's differs: two Estimates."""
    [head] = heads.of_file(blob, x, y, BOXES)
    answers = litert.run(candidate, inputs.by_name(x), batch=litert.BATCH)
    scores = head.task.scores(head.of(answers), head.truth)
    return stats.score(head.scores), stats.score_difference(head.scores, scores)


@pytest.mark.parametrize("maker", ["litert-quantizer", "converter"])
def test_pixels_beside_scores_lose_everything_and_shares_nothing(files, seen, maker):
    x, y, calibration = seen
    for head, labels in (("pixels", detector.labels(y)), ("unit", y), ("apart", y)):
        blob, ranges, frozen = files[head]
        made = (
            requantize.apply(blob, EVERYTHING, ranges)
            if maker == "litert-quantizer"
            else quantize.convert(frozen, "int8", calibration)
        )
        whole, change = lost(blob, made, x, labels)
        assert whole.value > 0.85
        if head == "pixels":
            assert whole.value + change.value < 0.02 and change.high < -0.8
        else:
            assert change.low > -0.06


def test_a_float_tail_keeps_pixels(files, seen):
    x, y, _ = seen
    blob, ranges, _ = files["pixels"]
    made = requantize.apply(blob, {**EVERYTHING, **detector.FLOAT_TAIL}, ranges)
    assert lost(blob, made, x, detector.labels(y))[1].low > -0.06
    kernels = litert.operators(made)
    convolutions = kernels[kernels["op"] == "CONV_2D"]
    assert len(convolutions) == 9 and (convolutions["input"] == "int8").all()
    assert set(kernels[kernels["op"].isin(["MUL", "CONCATENATION"])]["input"]) == {"float32"}


def test_dynamic_range_never_loses(files, seen):
    x, y, _ = seen
    blob, _, frozen = files["pixels"]
    assert lost(blob, quantize.convert(frozen, "dynamic"), x, detector.labels(y))[1].low > -0.03


def test_the_step_says_so_before(files, seen):
    """From the ranges of the float file alone: a step of pixels is larger than a score can be, one of shares much smaller."""
    for head, small in (("pixels", False), ("unit", True)):
        blob, ranges, _ = files[head]
        [row] = scales.of_outputs(requantize.apply(blob, EVERYTHING, ranges)).itertuples()
        of = ranges[row.tensor]
        step = scales.step((np.min(of["min"]), np.max(of["max"])))
        assert step == pytest.approx(row.step, rel=1e-3)
        assert step < 0.01 if small else step > 2


def test_the_gate_rejects_the_one_and_accepts_the_other(files, seen):
    x, y, _ = seen
    policy = Policy(max_drop=0.1)
    for head, labels, outcome in (("pixels", detector.labels(y), gate.REJECTED), ("unit", y, gate.ACCEPTED)):
        blob, ranges, _ = files[head]
        made = requantize.apply(blob, EVERYTHING, ranges)
        decision = gate.judge(made, blob, x, labels, policy, purpose=BOXES, speed=False)
        assert decision.outcome == outcome, [str(check) for check in decision.checks]


def test_another_detector_loses_everything_and_gets_it_back():
    """The zoo's, whose random boxes become squares all over a camera's picture: without labels, by its own answers."""
    model = architectures.build("detector", tf.keras)
    layer = model.get_layer("boxes")
    corner = 1000 * layer.get_weights()[0][..., :2]
    layer.set_weights([np.concatenate([corner, corner], axis=-1), np.array([600, 200, 660, 260], np.float32)])
    kernel, bias = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([10 * kernel, bias - 4])  # most places are empty
    [x] = architectures.samples(model, 60)
    blob = quantize.convert(model)
    ranges = requantize.calibrate(blob, x)
    whole, change = lost(blob, requantize.apply(blob, EVERYTHING, ranges), x)
    assert whole.value > 0.95 and whole.value + change.value < 0.3
    # All that carries boxes beside scores must be float, here the reshaping behind, too.
    half = requantize.apply(blob, {**EVERYTHING, "CONCATENATION": None}, ranges)
    cured = requantize.apply(blob, {**EVERYTHING, "CONCATENATION": None, "RESHAPE": None}, ranges)
    assert lost(blob, half, x)[1].high < -0.5 and lost(blob, cured, x)[1].value > -0.15
