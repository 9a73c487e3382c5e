"""A file that collapses under one scale a kernel, rescued: what is written, what each step brought, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize, requantize, rescue, rescue_files, tflite_graph
from helpers.evidence import stats
from helpers.networks import checkpoints, data, models
from helpers.tflite import heads, litert

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
TEACHING = ("per_channel", "float", "trained")


def samples(number, seed=0):
    return np.random.default_rng(seed).normal(size=(number, 8, 8, 3)).astype("float32")


def network(dead=300):
    """A small classifier of noise, in four classes. dead: a channel of its first layer is always 0, and the weights that read it
    are so large, beside which one scale tells little else, as weight decay and batch norms leave it; 0 for no such channel."""
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, activation="relu", name="first")(x)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Conv2D(12, 1, activation="relu", name="mixed")(x)
    model = tf.keras.Model(inputs, layers.Dense(4, name="answer")(layers.GlobalAveragePooling2D()(x)))
    first, depthwise, answer = (model.get_layer(name) for name in ("first", "depthwise", "answer"))
    logits = model(samples(300, 3)).numpy()  # so that it is decided, and every class comes up
    answer.set_weights([answer.get_weights()[0] * 4 / logits.std(0), -4 * (logits / logits.std(0)).mean(0)])
    if dead:
        (kernel, bias), (reading, *rest) = first.get_weights(), depthwise.get_weights()
        kernel[..., 3], bias[3], reading[:, :, 3] = 1e-12, -1, dead
        first.set_weights([kernel, bias])
        depthwise.set_weights([reading, *rest])
    return model


@pytest.fixture(scope="module")
def file():
    return quantize.convert(network())


@pytest.fixture(scope="module")
def clothes():
    images = data.load("fashion8k")
    x = models.network_input(images.x_train[::25], 96).numpy()
    return x[:80], x[80:], models.network_input(images.x_test[::8], 96).numpy(), images.y_test[::8]


def one_scale_each(saved):
    """Whether every layer of weights is of integers with one scale, and nothing computes in float32."""
    kernels = litert.kernels_in(saved.file)
    whole = len(kernels) == len(litert.weight_layers(saved.file)) and set(kernels["scales"].map(len)) == {1}
    operators = litert.operators(saved.file)
    return whole and set(operators[operators.input == "float32"].op) <= {"QUANTIZE"}


def test_mobilenet_is_brought_back_without_labels(clothes):
    calibration, selection, x, y = clothes
    model = quantize.convert(checkpoints.load("mobilenetv2_fashion_96"))
    saved = rescue.rescue(model, calibration, selection)
    table = saved.table
    assert saved.reached and one_scale_each(saved) and saved.judged.endswith("by the baseline's own answers")
    assert table.change["per_tensor"] < -0.5 and table.same["per_tensor"] < 0.4  # the collapse
    assert table.change[saved.last] >= -0.01 and saved.last in (
        "cleared",
        "equalized",
        "capped",
        "migrated",
        "corrected",
    )
    right = [litert.predict(each, x, batch=64).argmax(1) == y for each in (model, saved.file)]
    assert stats.paired_difference(*right).value > -0.02


def test_each_step_is_told_and_the_first_that_suffices_is_the_last(file):
    saved = rescue.rescue(file, samples(60), samples(200, 1))
    table = saved.table
    assert list(table.index) == ["float32", "per_tensor", *list(rescue.STEPS)[: len(table) - 2]]
    assert saved.reached and saved.last == table.index[-1] and one_scale_each(saved)
    assert table.change["per_tensor"] < -0.2
    assert table.damage[saved.last] < table.damage["per_tensor"] / 4
    assert table.note["cleared"] == "2 channels of 2 tensors always the same"  # the dead one, and what is made of it
    exact = table.loc[table.index.isin(rescue.EXACT) & table.kept.astype(bool), "shift"]
    assert len(exact) and (exact <= 1e-6).all()
    assert (table.one_scale[1:] == table.kernels[1:]).all() and table.one_scale["float32"] == 0


def test_what_did_not_collapse_is_left_as_it_was():
    calm = quantize.convert(network(dead=0))
    saved = rescue.rescue(calm, samples(60), samples(100, 1), limit=0.05)
    assert saved.reached and saved.last == rescue.NOTHING and list(saved.table.index) == ["float32", "per_tensor"]
    form = {requantize.EVERYTHING: requantize.Format(per_channel=False)}
    assert saved.file == requantize.apply(calm, form, requantize.calibrate(calm, samples(60)))
    assert any("There is no collapse" in sentence for sentence in rescue_files.sentences(saved, 0.05))


def test_labels_judge_where_they_are_known(file):
    x = samples(200, 1)
    y = litert.predict(file, x).argmax(1)
    y[::10] = (y[::10] + 1) % 4  # as if the float file were wrong there
    saved = rescue.rescue(file, samples(60), x, y)
    assert saved.judged == "classification, judged by labels" and not saved.expected and saved.reached


def test_layers_are_named_only_where_nothing_else_helps(file):
    without = (*rescue.EXACT, "corrected")
    saved = rescue.rescue(file, samples(60), samples(200, 1), without=without)
    assert saved.reached and saved.last == "per_channel"
    table, several = saved.table, litert.kernels_in(saved.file)["scales"].map(len) > 1
    assert several.sum() == len(saved.named) == table.kernels["per_channel"] - table.one_scale["per_channel"]
    assert 1 <= len(saved.named) < 4  # fewest that suffice
    alone = rescue.rescue(file, samples(60), samples(200, 1), without=(*without, "per_channel"))
    assert alone.last == "float" and alone.table.in_float["float"] >= len(alone.named) >= 1


@pytest.mark.parametrize("asked", ["regression", "metric"])
def test_layers_are_named_by_the_task_that_was_asked(asked, tmp_path):
    """Of whole numbers no sweep could guess it."""
    model, x = network(), samples(200, 1)
    counts = tf.keras.Model(model.input, tf.floor(20 * model.output[:, :1]))
    file, y = quantize.convert(counts), None
    purpose = heads.Purpose("regression")
    if asked == "metric":
        (tmp_path / "mine.py").write_text("def near(out, y):\n    return abs(out.reshape(-1) - y) < 3\n")
        purpose, y = heads.Purpose(metric=f"{tmp_path / 'mine.py'}:near"), counts(x).numpy().reshape(-1)
    without = (*rescue.EXACT, "corrected", "float", "trained")
    saved = rescue.rescue(file, samples(60), x, y, purpose=purpose, without=without)
    assert saved.last == "per_channel" and saved.table.note["per_channel"].startswith("1 of 4 with a scale for each")
    assert saved.table.damage["per_channel"] < 0.2 * saved.table.damage["per_tensor"]


def test_training_is_the_last_resort():
    """It cannot make the largest weight smaller, but suits all others to the scale."""
    file, without = quantize.convert(network(dead=10)), tuple(step for step in rescue.STEPS if step != "trained")
    saved = rescue.rescue(file, samples(100), samples(200, 1), without=without)
    assert list(saved.table.index) == ["float32", "per_tensor", "trained"] and one_scale_each(saved)
    assert saved.table.damage["trained"] < 0.8 * saved.table.damage["per_tensor"] and saved.last == "trained"


def test_a_limit_that_no_step_reaches_leaves_the_best(file):
    saved = rescue.rescue(file, samples(60), samples(200, 1), limit=0, without=TEACHING)
    table = saved.table
    assert not saved.reached and table.damage[saved.last] == table.damage[1:].min()
    sentence = rescue_files.sentences(saved, 0.0)[-1]
    assert "No step brings it within 0 points" in sentence and saved.last in sentence and "--limit" in sentence
    more = -table.change[saved.last]  # the cure
    assert rescue.rescue(file, samples(60), samples(200, 1), limit=more, without=("capped", *TEACHING)).reached


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"limit": 1.5}, r"limit=1.5 must be a share in \[0, 1\): 0.01 is 1 point"),
        ({"limit": -0.1}, r"limit=-0.1 must be a share"),
        ({"without": ("equalised",)}, "without='equalised' is no step: choose of cleared, corrected, equalized"),
    ],
)
def test_settings_that_make_no_sense(file, settings, message):
    with pytest.raises(InputError, match=message):
        rescue.rescue(file, samples(10), samples(10), **settings)


def test_files_that_cannot_be_rescued(file):
    quantized = requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, samples(10)))
    with pytest.raises(InputError, match="quantized already: give the float32"):
        rescue.rescue(quantized, samples(10), samples(10))
    inputs = layers.Input((8, 8, 3))
    bare = quantize.convert(tf.keras.Model(inputs, layers.ReLU()(layers.MaxPooling2D()(inputs))))
    with pytest.raises(InputError, match="no convolution or dense layer: there is nothing to quantize"):
        rescue.rescue(bare, samples(10), samples(10))


@pytest.mark.parametrize("at_once", [None, 1])
def test_corrected_biases_bring_means_back(at_once):
    """Of the outputs and of every layer; a file that takes one sample at a time is corrected by a few of them."""
    model = network(dead=10)
    frozen = quantize.freeze(model)
    if at_once:
        made = tf.function(model).get_concrete_function(tf.TensorSpec((1, 8, 8, 3)))
        with runtime_env.quiet():
            file = tf.lite.TFLiteConverter.from_concrete_functions([made], tf.Module()).convert()
    else:
        file = quantize.convert(frozen)
    graph, x = tflite_graph.Graph(file), samples(64)
    ranges, form = requantize.calibrate(graph.file, x), {requantize.EVERYTHING: rescue.PER_TENSOR}
    before = requantize.apply(graph.file, form, ranges)
    graph.rounding_as(before).correct_biases(x)
    after = requantize.apply(graph.written(), form, ranges)
    means = [litert.predict(each, x).mean(0) for each in (graph.file, before, after)]
    assert np.abs(means[2] - means[0]).max() < np.abs(means[1] - means[0]).max() / (3 if at_once is None else 1.5)
    kinds = [litert.kernels_in(each)["integers"] for each in (before, after)]
    assert all(np.array_equal(*pair) for pair in zip(*kinds, strict=True))  # biases alone change


def test_expected_changes_are_those_of_a_model_that_knows_how_sure_it_is():
    """Labels drawn by the float model's own probabilities: what its changed answers cost is what was expected."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 5)).astype("float32")
    rough = logits + random.normal(scale=0.7, size=logits.shape).astype("float32")
    [head] = heads.heads({"out": logits}, None)
    likely = [head.task.likely({"out": logits}, {"out": each}) for each in (logits, rough)]
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.array([random.choice(5, p=each / each.sum()) for each in share.astype(float)])
    costs = stats.paired_difference(logits.argmax(1) == y, rough.argmax(1) == y)
    assert costs.low < likely[1].mean() - likely[0].mean() < costs.high and costs.value < -0.05
    np.testing.assert_allclose(likely[0], share.max(1), rtol=1e-5)
    again = head.task.likely({"out": share}, {"out": share})  # probabilities are taken as they are
    np.testing.assert_allclose(again, share.max(1), rtol=1e-5)


# --- the command


@pytest.fixture
def folder(tmp_path, file):
    (tmp_path / "model.tflite").write_bytes(file)
    np.savez(tmp_path / "calibration.npz", x=samples(300))
    x = samples(400, 2)
    np.savez(tmp_path / "test.npz", x=x, y=litert.predict(file, x).argmax(1))
    return tmp_path


def run(folder, *words):
    given = [str(folder / word) if "." in word and not word.startswith(("-", "0")) else word for word in words]
    return CliRunner().invoke(main, ["rescue", *given])


def test_the_command_writes_a_file_that_works(folder):
    words = ("--test", "test.npz", "--output", "out.tflite", "--json", "table.json", "--limit", "0.02")
    done = run(folder, "model.tflite", "--calibration", "calibration.npz", *words)
    assert done.exit_code == 0, done.output
    assert "on 400 samples of --test, which nothing was chosen by" in done.output and "Within 2 points" in done.output
    table = json.loads((folder / "table.json").read_text())
    assert table["per_tensor"]["kernels"] == 4 and table["per_tensor"]["one_scale"] == 4
    kernels = litert.kernels_in((folder / "out.tflite").read_bytes())
    assert len(kernels) == 4 and set(kernels["scales"].map(len)) == {1}


def test_the_command_takes_a_keras_file_and_says_where_it_falls_short(folder):
    network().save(folder / "model.keras")
    words = [word for step in rescue.STEPS for word in ("--without", step)]
    done = run(
        folder, "model.keras", "--calibration", "calibration.npz", "--output", "out.tflite", "--csv", "t.csv", *words
    )
    assert done.exit_code == 1 and "No step brings it within 1 point of" in done.output
    assert (folder / "out.tflite").is_file() and list(pd.read_csv(folder / "t.csv", index_col=0).index) == [
        "float32",
        "per_tensor",
    ]


def test_the_command_refuses_in_one_sentence_and_writes_nothing(folder):
    np.savez(folder / "wide.npz", x=np.zeros((9, 8, 9, 3), "float32"))
    np.savez(folder / "one.npz", x=samples(1))
    np.savez(folder / "three.npz", x=samples(3))
    for given, message in (
        (("model.tflite", "--calibration", "wide.npz"), "this model takes float32 (n, 8, 8, 3)"),
        (("model.tflite", "--calibration", "one.npz"), "half of them choose"),
        (("model.tflite", "--calibration", "three.npz"), "holds 3 samples: half of them choose, so give 100 or more"),
        (("model.tflite", "--calibration", "none.npz"), "cannot be read"),
        (("gone.tflite", "--calibration", "calibration.npz"), "does not exist"),
        (("model.tflite", "--calibration", "calibration.npz", "--limit", "2"), "must be a share"),
    ):
        done = run(folder, *given, "--output", "out.tflite")
        assert done.exit_code == 2 and message in done.output, done.output
        assert not (folder / "out.tflite").exists()
    done = run(folder, "model.tflite", "--calibration", "calibration.npz", "--output", "model.tflite")
    assert done.exit_code == 2 and "is the model itself: name another file" in done.output
