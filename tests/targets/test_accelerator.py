"""LiteRT's GPU accelerator, on whatever adapter is there, one in software at least; and what it refuses."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import InputError, RunError
from helpers.compress import quantize
from helpers.deploy import gate, policy
from helpers.networks import models
from helpers.targets import accelerator, known
from helpers.tflite import litert, measure
from tests import several_signatures

layers = tf.keras.layers
X = np.random.default_rng(0).random((12, 16, 16, 3)).astype("float32")
FILES = ("float32", "float16", "int8", "full_int8")


@pytest.fixture(scope="module")
def files():
    tf.keras.utils.set_random_seed(0)
    model = models.cnn(16, 5)
    return {recipe: quantize.convert(model, recipe, X if "int8" in recipe else None) for recipe in FILES}


@pytest.fixture
def nothing_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPRESSION_LAB_CACHE", str(tmp_path))
    for known_once in (accelerator.adapters, accelerator._variables):
        known_once.cache_clear()
    yield
    for known_once in (accelerator.adapters, accelerator._variables):
        known_once.cache_clear()


def test_it_answers_as_the_processor_does(gpu, files):
    frame, machine = measure.report(files, "float32", X, target=known.opened("gpu"))
    assert frame.difference[["float32", "float16"]].max() < 1e-4 and (frame.same[["float32", "float16"]] == 1).all()
    step = np.ptp(litert.predict(files["float32"], X)) / 50
    assert frame.difference[["int8", "full_int8"]].max() < step  # each product in float, rounded where the file rounds
    assert machine["gpu"] and ("milliseconds" in frame) is not accelerator.in_software()


def test_several_inputs_and_outputs_keep_their_names(gpu):
    """In an order of the signature that is not that of the graph."""
    tf.keras.utils.set_random_seed(0)
    a, b = layers.Input((4,), name="zz"), layers.Input((6,), name="aa")
    model = tf.keras.Model(
        [a, b], [layers.Dense(3, name="q")(layers.Concatenate()([a, b])), layers.Dense(2, name="b")(b)]
    )
    x = {"zz": X.reshape(12, -1)[:, :4], "aa": X.reshape(12, -1)[:, 4:10]}
    frame, _ = measure.report({"one": quantize.convert(model)}, "one", x, target=known.opened("gpu"))
    assert frame.same["one"] == 1 and frame.difference["one"] < 1e-5


def test_the_gate_on_it(gpu, files):
    decision = gate.judge(files["int8"], files["float32"], np.tile(X, (9, 1, 1, 1)), target=known.opened("gpu"))
    [check] = [check for check in decision.checks if check.name == "answers on the target"]
    assert check.outcome == "pass" and decision.machine["gpu"]
    if accelerator.in_software():
        with pytest.raises(InputError, match="min_speedup=1 cannot be judged on gpu, which tells no latency"):
            gate.judge(
                files["int8"], files["float32"], X, policy=policy.Policy(min_speedup=1), target=known.opened("gpu")
            )


def test_what_it_cannot_run_is_said(gpu, tmp_path):
    open_size = tf.keras.Sequential(
        [layers.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    )
    several = several_signatures.converted(tmp_path, "see", "weigh")
    for file, told in ((quantize.convert(open_size), "needs fixed sizes"), (several, "it has 2 signatures")):
        with measure.staged({"a": file}, {"a": X}) as (folder, names):
            [answer] = known.opened("gpu").run_all([measure.prediction(names["a"])], folder)
        assert told in answer.get("error", answer.get("unusable", "")), answer


def test_no_adapter(nothing_prepared):
    if accelerator.adapters():
        pytest.skip("this machine has an adapter of its own")
    with pytest.raises(
        RunError, match=r"finds no adapter: .* make an adapter in software by `compression-lab target prepare gpu`"
    ):
        known.opened("gpu")
    assert ("gpu", False) in [row[:2] for row in known.listed()]


def test_a_package_without_it(nothing_prepared, monkeypatch):
    if not shutil.which("dpkg"):
        pytest.skip("there is no dpkg here")
    monkeypatch.setattr(accelerator.debian, "fetch", lambda *_, **__: [])
    with pytest.raises(
        RunError, match=r"holds no libvulkan.so.1: install mesa-vulkan-drivers or your GPU's driver instead"
    ):
        accelerator.prepare()
