"""Steps of a file's outputs: as the interpreter has them, through DEQUANTIZE, and by hand from ranges."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from helpers.compress import quantize, requantize
from helpers.networks import models
from helpers.tflite import litert, scales


@pytest.fixture(scope="module")
def files():
    model = models.cnn(8, 3)
    x = np.random.default_rng(0).uniform(-1, 1, (40, 8, 8, 3)).astype("float32")
    frozen = quantize.freeze(model)
    made = {name: quantize.convert(frozen, name, x) for name in ("float32", "int8", "full_int8", "dynamic", "int16x8")}
    ranges = requantize.calibrate(made["float32"], x)
    made["requantized"] = requantize.apply(made["float32"], {"*": requantize.Format()}, ranges)
    return made, x, ranges


@pytest.mark.parametrize("name", ["int8", "requantized", "int16x8"])
def test_answers_are_multiples_of_the_step(files, name):
    made, x, _ = files
    [row] = scales.of_outputs(made[name]).itertuples()
    answers = litert.predict(made[name], x, batch=40)
    assert row.dtype == ("int16" if name == "int16x8" else "int8")
    np.testing.assert_allclose(answers / row.step, np.round(answers / row.step), atol=1e-3)
    assert row.low - 1e-6 <= answers.min() and answers.max() <= row.high + 1e-6
    assert row.high - row.low == pytest.approx(row.step * (65535 if name == "int16x8" else 255))


def test_an_integer_output_has_the_step_that_the_interpreter_tells(files):
    [row] = scales.of_outputs(files[0]["full_int8"]).itertuples()
    loaded = Interpreter(model_content=files[0]["full_int8"])
    scale, zero = loaded.get_output_details()[0]["quantization"]
    assert (row.step, row.low) == pytest.approx((scale, (-128 - zero) * scale))


@pytest.mark.parametrize("name", ["float32", "dynamic"])
def test_float_outputs_have_no_step(files, name):
    table = scales.of_outputs(files[0][name])
    assert table.dtype.tolist() == ["float32"] and table[["step", "low", "high"]].isna().all(axis=None)
    assert table.name.tolist() == list(litert.run(files[0][name], {"input": files[1]}, batch=40))


def test_the_step_is_known_from_the_ranges_before(files):
    made, _, ranges = files
    [row] = scales.of_outputs(made["requantized"]).itertuples()
    seen = ranges[litert.tensors(made["float32"])["name"].iloc[-1]]
    assert scales.step((seen["min"].item(), seen["max"].item())) == pytest.approx(row.step, rel=1e-4)


def test_steps_by_hand():
    assert scales.step((-1, 254)) == 1
    assert scales.step((100, 255)) == 1  # a step reaches down to 0
    assert scales.step([(0, 1), (-15, 240)]) == 1
    assert scales.step((0, 65535), bits=16) == 1
