"""The routes of `benchmarks/training_a_file.py`, on a small network; and what it kept of the real one."""

import runpy

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import repository
from helpers.evidence import results
from helpers.lab import readme
from helpers.tflite import litert

MADE = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "training_a_file.py"))


@pytest.mark.parametrize("route", ["by_tfmot", "by_file"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_route_ends_in_a_file_that_answers_as_it_was_trained(route, bits):
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
    )
    random = np.random.default_rng(0)
    x, y = random.normal(size=(200, 8, 8, 1)).astype("float32"), random.integers(0, 10, 200)
    file, simulated, seconds = MADE[route](model, x[:50], x, y, bits, 0)
    told = litert.predict(file, x).argmax(1)
    assert (np.asarray(simulated(x)).argmax(1) == told).mean() > 0.95
    assert (MADE["by_builtin_kernels"](file, x) == told).mean() > 0.95
    assert set(seconds) == {"build", "step", "convert"}


def test_what_was_kept_holds_what_is_said_of_it():
    numbers = results.read("training", "training_a_file")["numbers"]
    for bits in (8, 4):
        assert abs(numbers[f"gain.tflite_over_tfmot_{bits}"].value) < 0.005
        assert numbers[f"gain.tflite_label_free_over_tfmot_{bits}"].low > -0.005
        # No simulation can agree on more with both kinds of kernels than they do with each other.
        assert numbers[f"agreement.tflite_{bits}"].value >= 0.995 > numbers[f"agreement.kernels_{bits}"].value
        took = {
            route: sum(numbers[f"seconds.{route}_{bits}.{part}"].value * times for part, times in steps(bits).items())
            for route in ("tfmot", "tflite")
        }
        assert took["tfmot"] > took["tflite"]
    page = readme.RESULTS.read_text(encoding="utf-8")
    assert all(part in page for part in readme.training())


def steps(bits):
    return {"build": 1, "step": MADE["STEPS"][bits], "convert": 1}
