"""A file that Keras never saw, with inputs (n, 1, 28, 28) and made for one sample, in every tool that takes a `.tflite`."""

import runpy

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base import repository
from helpers.compress import affine, requantize, tflite_graph, tflite_training
from helpers.networks import checkpoints, data
from helpers.tflite import litert

PATH = checkpoints.CHECKPOINTS / "pytorch_fashion_28.tflite"


@pytest.fixture(scope="module")
def images():
    """100 to calibrate with, 400 to train on, 400 to choose by, and 1,000 others with labels, none of which are shared."""
    fashion = data.load("fashion8k")
    fit, others = (
        (x.reshape(-1, 1, 28, 28) / np.float32(127.5) - 1).astype("float32") for x in (fashion.x_train, fashion.x_test)
    )
    return fit[:100], fit[100:500], fit[500:900], others[:1000], fashion.y_test[:1000]


def test_its_card_tells_its_accuracy(images):
    *_, x, y = images
    card = checkpoints.card(PATH.stem)
    assert (litert.predict(PATH.read_bytes(), x).argmax(axis=1) == y).mean() == pytest.approx(
        card["top1_test"]["value"], abs=0.03
    )
    assert {"torch", "litert-torch"} <= set(card["versions"]) and "MIT" in card["licence"]


def test_the_graph_is_exact_and_a_gradient_reaches_every_weight(images):
    *_, x, _ = images
    graph = tflite_graph.Graph(PATH)
    wanted, [found] = litert.predict(PATH.read_bytes(), x), graph(x)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert graph.check_trainable() == [] and len(graph.weights) == len(list(litert_weights())) == 34
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(graph.logits(x[:16])[0] ** 2)
    for gradient in tape.gradient(loss, list(graph.weights.values())):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def litert_weights():
    """Names of the kernels and biases, as the file itself has them."""
    table = litert.tensors(PATH)
    read = table[table["constant"] & (table["dtype"] == "float32")]
    return read[read["shape"].map(len) > 0]["name"]


@pytest.mark.parametrize(("form", "closest"), [((8, 8), 26), ((8, 8, False), 15), ((4, 8), 20), ((8, 16), 40)])
def test_the_simulation_has_the_answers_of_the_quantized_file(images, form, closest):
    calibration, *_, x, _ = images
    aware = tflite_training.quantization_aware(PATH, calibration, requantize.Format(*form))
    wanted, [found] = litert.predict(aware.quantized(), x[:500]), aware.forward(x[:500])
    assert affine.sqnr(wanted, found.numpy()) > closest
    assert (found.numpy().argmax(1) == wanted.argmax(1)).mean() >= 0.95


def test_four_bits_are_trained_without_labels(images):
    calibration, fit, chosen, x, y = images
    aware = tflite_training.quantization_aware(PATH, calibration, requantize.Format(4, 8, per_channel=False))
    before = aware.quantized()
    tflite_training.train(aware, fit, steps=150, learning_rate=1e-3, selection=chosen)
    exact, *found = (litert.predict(file, x) for file in (PATH.read_bytes(), before, aware.quantized()))
    assert affine.sqnr(exact, found[1]) > affine.sqnr(exact, found[0]) + 5
    top1 = [(each.argmax(axis=1) == y).mean() for each in found]
    assert top1[0] < 0.6 and top1[1] > top1[0] + 0.2


def test_the_commands_take_it(images, tmp_path):
    calibration, fit, _, x, y = images
    np.savez(tmp_path / "fit.npz", x=fit)
    np.savez(tmp_path / "test.npz", x=x, y=y)
    run = CliRunner().invoke
    small = str(tmp_path / "small.tflite")
    words = ["train", str(PATH), "--data", str(tmp_path / "fit.npz"), "--test", str(tmp_path / "test.npz")]
    done = run(main, [*words, "--weights", "4", "--steps", "40", "--learning-rate", "1e-3", "--output", small])
    assert done.exit_code == 0 and "judged on 1,000 samples of --test" in done.output, done.output
    done = run(main, ["convert", str(PATH), "--calibration", str(tmp_path / "fit.npz"), "--output", small])
    assert done.exit_code == 0, done.output
    judged = ["--baseline", str(PATH), "--data", str(tmp_path / "test.npz"), "--no-speed", "--limit", "max_drop=0.1"]
    done = run(main, ["gate", small, *judged])
    assert done.exit_code == 0, done.output
    np.savez(tmp_path / "some.npz", x=calibration[:20])
    words = ["sensitivity", str(PATH), "--calibration", str(tmp_path / "some.npz"), "--output", str(tmp_path)]
    done = run(main, [*words, "--csv", str(tmp_path / "table.csv")])
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "table.csv").read_text().splitlines()) > 18  # a row for each layer with weights


def test_the_script_makes_such_a_file(tmp_path):
    """Where its packages are: the lock does not have them."""
    pytest.importorskip("litert_torch")
    made = runpy.run_path(str(repository.REPOSITORY / "benchmarks" / "from_pytorch.py"))
    made["main"].__globals__["EPOCHS"] = 1
    made["main"](tmp_path)
    assert len((tmp_path / PATH.name).read_bytes()) == pytest.approx(PATH.stat().st_size, rel=0.01)
