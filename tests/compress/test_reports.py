"""The commands on a file of the user's: any kind of model becomes the quantized file that was asked for, or a sentence."""

import functools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import affine, channels, own_model, quantize, reports, sensitivity_files
from helpers.tflite import litert
from helpers.tflite.heads import Purpose
from tests import architectures

KITS = {"2": tf.keras, "3": keras}


@functools.cache
def made(name, kit, number):
    """A model as the bytes of its file, arrays under the names that `convert` wants, and the model's answers."""
    model = architectures.build(name, kit)
    x = architectures.samples(model, number)
    with tempfile.TemporaryDirectory() as folder, runtime_env.quiet():
        model.save(Path(folder) / "model.keras")
        content = (Path(folder) / "model.keras").read_bytes()
    names = ["x"] if len(x) == 1 else [each.name for each in model.inputs]
    answers = tf.nest.flatten(model(x[0] if len(x) == 1 else x, training=False))
    return content, dict(zip(names, x, strict=True)), [np.asarray(each) for each in answers]


def given(name, folder, kit=tf.keras, number=40):
    """A model's file, an `.npz` with samples, and the model's answers."""
    content, arrays, answers = made(name, kit, number)
    (folder / "model.keras").write_bytes(content)
    np.savez(folder / "data.npz", **arrays)
    return folder / "model.keras", folder / "data.npz", answers


@pytest.mark.parametrize(
    "name, library",
    [
        ("small CNN", "3"),
        ("two inputs", "2"),
        ("two inputs", "3"),
        ("two heads", "3"),
        ("embedding of tokens", "2"),
        ("regression", "2"),
    ],
)
def test_a_model_of_any_ends_becomes_int8(name, library, tmp_path):
    path, data, _ = given(name, tmp_path, KITS[library])
    own, table = reports.convert_file(path, tmp_path / "small.tflite", "int8", data)
    file = (tmp_path / "small.tflite").read_bytes()
    assert (litert.tensors(file)["dtype"] == "int8").any()
    assert len(table) == len(own.outputs) and (table["sqnr_db"] > 15).all()


@pytest.mark.parametrize("recipe", ["float32", "float16", "dynamic", "int8", "full_int8", "int16x8"])
def test_every_recipe_is_to_be_had(recipe, tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    _, table = reports.convert_file(path, tmp_path / "small.tflite", recipe, data)
    assert table["sqnr_db"].iloc[0] > 15 and table["same"].iloc[0] > 0.8


@pytest.mark.parametrize("recipe", ["int8", "int16x8", "float32"])
def test_a_tflite_is_quantized_too(recipe, tmp_path):
    path, data, answers = given("small CNN", tmp_path)
    model = tf.keras.models.load_model(path, compile=False)
    (tmp_path / "half.tflite").write_bytes(quantize.convert(model, "float16"))
    own, _ = reports.convert_file(tmp_path / "half.tflite", tmp_path / "small.tflite", recipe, data)
    assert "float16 weights" in own.skipped
    x = np.load(data)["x"]
    assert affine.sqnr(answers[0], litert.predict((tmp_path / "small.tflite").read_bytes(), x)) > 20


def test_per_tensor_is_a_switch(tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    reports.convert_file(path, tmp_path / "small.tflite", "int8", data, per_channel=False)
    assert litert.per_channel(tmp_path / "small.tflite")["CONV_2D"] == "0 of 2"


def test_the_command_says_what_it_made(tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    words = ["convert", str(path), "--calibration", str(data), "--output", str(tmp_path / "small.tflite")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "small.tflite: " in done.output and "% of float32" in done.output
    assert "dB against float32; read as classification, the same answer for" in done.output


def test_only_answers_that_are_classes_can_be_the_same(tmp_path):
    inputs = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, activation="relu", padding="same")(inputs)
    boxes = keras.layers.Reshape((36, 4), name="boxes")(keras.layers.Conv2D(4, 1)(x))
    kind = keras.layers.Dense(3, "softmax", name="kind")(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(inputs, [boxes, kind]).save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(40, 24, 24, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x)
    words = ["convert", str(tmp_path / "model.keras"), "--calibration", str(tmp_path / "data.npz")]
    done = CliRunner().invoke(main, [*words, "--output", str(tmp_path / "small.tflite")])
    assert done.exit_code == 0, done.output
    exact = own_model.load(tmp_path / "model.keras").file
    one, other = (litert.run(file, {"x": x})["kind"].argmax(axis=1) for file in (exact, tmp_path / "small.tflite"))
    same = f"{(one == other).mean():.1%}"
    assert re.search(r"boxes: [\d.]+ dB against float32\.\n", done.output), done.output
    assert f" dB against float32; read as classification, the same answer for {same}." in done.output


@pytest.mark.parametrize("recipe", ["int8", "int16x8"])
def test_a_tflite_of_two_inputs_is_quantized_by_their_names(recipe, tmp_path):
    path, data, answers = given("two inputs", tmp_path)
    file, small = tmp_path / "model.tflite", tmp_path / "small.tflite"
    file.write_bytes(quantize.convert(tf.keras.models.load_model(path, compile=False)))
    with pytest.raises(InputError, match=r"needs calibration samples \(--calibration data.npz\)"):
        reports.convert_file(file, small, recipe)
    reports.convert_file(file, small, recipe, data)
    assert (litert.tensors(small)["dtype"] == "int8").any()
    [found] = litert.run(small, dict(np.load(data))).values()
    assert affine.sqnr(answers[0], found) > 20


def test_arrays_for_several_inputs_go_by_their_names(tmp_path):
    path, data, _ = given("two inputs", tmp_path)
    arrays = dict(np.load(data))
    np.savez(tmp_path / "wrong.npz", x=arrays["picture"])
    with pytest.raises(InputError, match=r"holds x: this model takes an array for each of picture, numbers, under"):
        reports.convert_file(path, tmp_path / "small.tflite", "int8", tmp_path / "wrong.npz")
    np.savez(tmp_path / "uneven.npz", picture=arrays["picture"], numbers=arrays["numbers"][:5])
    with pytest.raises(InputError, match="different numbers of samples"):
        reports.convert_file(path, tmp_path / "small.tflite", "int8", tmp_path / "uneven.npz")
    assert not (tmp_path / "small.tflite").exists()


@pytest.mark.parametrize(
    "recipe, calibration, message",
    [
        ("int8", None, "calibration is empty: integer recipes need"),
        ("dynamic", "data.npz", r"recipe='dynamic' needs a Keras model or a SavedModel: of a \.tflite there is int8"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(recipe, calibration, message, tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    if recipe == "dynamic":
        model = tf.keras.models.load_model(path, compile=False)
        path = tmp_path / "model.tflite"
        path.write_bytes(quantize.convert(model))
    with pytest.raises(InputError, match=message):
        reports.convert_file(path, tmp_path / "small.tflite", recipe, calibration and data)
    assert not (tmp_path / "small.tflite").exists()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_3_is_narrowed_into_one_that_keras_alone_opens(suffix, tmp_path):
    path, data, _ = given("Sequential in Sequential", tmp_path, keras)
    if suffix == ".h5":
        model, path = keras.models.load_model(path, compile=False), tmp_path / "model.h5"
        model.save(path)
    table, whole, totals, notes = reports.prune_file(path, tmp_path / "narrow.keras", 0.5)
    assert table["kept"].tolist() == [4, 8, 6] and "dense" in " ".join(whole)
    assert {"parameters", "macs", "bytes", "latency_ratio"} <= set(totals.index)
    assert notes == (reports.KERAS_3,)
    code = (
        "import sys, keras, numpy; model = keras.models.load_model('narrow.keras'); assert 'helpers' not in sys.modules;"
        "x = numpy.load('data.npz')['x']; numpy.save('answers.npy', model(x)); print(model.count_params())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) == totals.loc["parameters", "after"] < totals.loc["parameters", "before"]
    twin = channels.prune(own_model.load(path).keras, 0.5)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), twin(np.load(data)["x"]), atol=1e-5)


def test_a_file_of_keras_2_is_narrowed_into_one_of_keras_2(tmp_path):
    path, _, _ = given("augmentation inside", tmp_path)
    _, _, totals, notes = reports.prune_file(path, tmp_path / "narrow.keras", 0.5)
    assert "acts in training only: it is left out" in notes[0] and notes[-1] == reports.KERAS_2
    narrow = tf.keras.models.load_model(tmp_path / "narrow.keras", compile=False)
    assert narrow.count_params() == totals.loc["parameters", "after"]


OWN_REGULARIZER = """import keras
class Shy(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.01 * keras.ops.sum(x)
    def get_config(self):
        return {}
"""


def test_what_keras_3_cannot_build_anew_stays_a_file_of_keras_2_and_the_note_says_why(tmp_path):
    path, code, output = (tmp_path / name for name in ("model.keras", "code.py", "narrow.keras"))
    names = {}
    exec(OWN_REGULARIZER, names)
    hidden = keras.layers.Dense(8, "relu", kernel_regularizer=names["Shy"](), name="hidden")
    keras.Sequential([keras.layers.Input((6,)), hidden, keras.layers.Dense(3)], name="own").save(path)
    code.write_text(OWN_REGULARIZER)
    *_, notes = reports.prune_file(path, output, 0.5, code=code)
    assert notes[0].startswith("Keras 3 cannot build own anew (") and notes[1:] == (reports.KERAS_2,)
    assert "must be decorated with keras.saving.register_keras_serializable()" in notes[0]
    assert tf.keras.models.load_model(output, compile=False).get_layer("hidden").units == 4
    code.write_text(OWN_REGULARIZER.replace("class", "@keras.saving.register_keras_serializable()\nclass"))
    *_, notes = reports.prune_file(path, output, 0.5, code=code)
    assert notes == (reports.KERAS_3,)
    assert type(keras.models.load_model(output).get_layer("hidden").kernel_regularizer).__name__ == "Shy"


def test_what_cannot_be_counted_does_not_stop_the_report(tmp_path):
    path, _, _ = given("ViT", tmp_path)
    _, whole, totals, _ = reports.prune_file(path, tmp_path / "narrow.keras", 0.5)
    assert "macs" not in totals.index and totals.loc["parameters", "after"] < totals.loc["parameters", "before"]
    assert "added to others" in whole["down_0"]
    assert all("Parameters" in line or "Bytes" in line or "Latency" in line for line in reports.told(totals))


@pytest.mark.parametrize("kind", ["GroupNormalization", "ConvLSTM1D"])
def test_a_narrow_model_is_written_where_its_file_cannot_be_made_or_run(kind, tmp_path):
    layers = tf.keras.layers
    x = source = layers.Input((4, 12, 3) if kind == "ConvLSTM1D" else (12, 12, 3))
    if kind == "ConvLSTM1D":
        x = layers.ConvLSTM1D(4, 3)(x)
        x = layers.Conv1D(6, 3, name="read")(layers.Conv1D(8, 3, activation="relu", name="wide")(x))
    else:
        x = layers.Conv2D(6, 3, name="read")(layers.Conv2D(8, 3, activation="relu", name="wide")(x))
        x = layers.GroupNormalization(2)(x)
    tf.keras.Model(source, x).save(tmp_path / "model.keras")
    table, _, totals, _ = reports.prune_file(tmp_path / "model.keras", tmp_path / "narrow.keras", 0.5)
    assert table.set_index("group")["kept"]["wide"] == 4 and "parameters" in totals.index
    assert tf.keras.models.load_model(tmp_path / "narrow.keras", compile=False).get_layer("wide").filters == 4


def test_a_file_that_would_stop_the_interpreter_is_refused_with_a_cure_that_works(tmp_path):
    """16-bit activations with a layer normalization: the converter makes it, and running it aborts the process."""
    path, data, _ = given("Mixer", tmp_path, number=10)
    with pytest.raises(InputError, match=r"that stops LiteRT .*crashed.*choose another, such as int8 or dynamic"):
        reports.convert_file(path, tmp_path / "small.tflite", "int16x8", data)
    assert not (tmp_path / "small.tflite").exists()
    _, table = reports.convert_file(path, tmp_path / "small.tflite", "int8", data)
    assert (table["sqnr_db"] > 5).all()


# --- what a stranger with models of his own ran into


def test_a_file_that_cannot_be_run_is_refused_with_what_litert_says(tmp_path, monkeypatch):
    path, data, _ = given("MLP", tmp_path, number=10)
    monkeypatch.setattr(reports.runner, "run", lambda job, folder: {"kind": "refused", "error": "node 7 failed"})
    with pytest.raises(InputError, match=r"that LiteRT cannot run \(node 7 failed\): .*--recipe float32 first"):
        reports.convert_file(path, tmp_path / "small.tflite", "int8", data)
    assert not (tmp_path / "small.tflite").exists()


def test_a_calibration_set_of_another_shape_is_refused_by_every_recipe(tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    x = np.load(data)["x"]
    np.savez(tmp_path / "wrong.npz", x=np.concatenate([x, x], axis=1))
    for recipe in ("float32", "dynamic", "int8"):
        with pytest.raises(InputError, match=r"has x of shape .*: this model takes float32 \(n, "):
            reports.convert_file(path, tmp_path / "small.tflite", recipe, tmp_path / "wrong.npz")


def test_the_float32_file_is_the_one_that_others_are_compared_with(tmp_path):
    path, data, _ = given("MLP", tmp_path)
    own, table = reports.convert_file(path, tmp_path / "float.tflite", "float32", data)
    assert (tmp_path / "float.tflite").read_bytes() == own.file
    assert (table["same"] == 1).all()


@pytest.mark.parametrize("name", ["regression", "two heads", "MLP"])
def test_the_command_tells_of_every_output_what_can_be_told(name, tmp_path):
    """Numbers have no share of same answers, and a file may have nothing but numbers."""
    path, data, _ = given(name, tmp_path)
    arguments = [str(path), "--recipe", "int8", "--calibration", str(data), "--output", str(tmp_path / "int8.tflite")]
    told = CliRunner().invoke(main, ["convert", *arguments])
    assert told.exit_code == 0 and " dB" in told.output, told.output
    assert ("the same answer for" in told.output) == (name != "regression")


def test_a_file_is_not_converted_as_if_it_were_in_training(tmp_path):
    path, data, _ = given("MLP", tmp_path)
    with pytest.raises(InputError, match=r"recipe='qat' is unknown: choose one of float32, .*int16x8"):
        reports.convert_file(path, tmp_path / "small.tflite", "qat", data)


def test_text_saved_as_objects_is_refused_with_a_cure_that_works(tmp_path):
    path, data, answers = given("MLP", tmp_path)
    x, y = np.load(data)["x"], answers[0].argmax(axis=1)
    np.savez(tmp_path / "objects.npz", x=x, y=y.astype(object))
    with pytest.raises(InputError, match=r"holds an array of Python objects .*y\.astype\(str\)"):
        sensitivity_files.of_file(path, data, tmp_path / "objects.npz", None, None)
    np.savez(tmp_path / "cured.npz", x=x, y=y.astype(object).astype(str).astype(int))
    assert len(sensitivity_files.of_file(path, data, tmp_path / "cured.npz", None, None))


@pytest.mark.parametrize(("factor", "wanted"), [(64.0, 1), (1.0, 0)])
def test_the_table_of_layers_comes_with_what_all_of_them_suffer_from(factor, wanted, tmp_path):
    """One channel that is as many times as large, and read by weights as many times as small."""
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((12,)), layers.Dense(32, "relu"), layers.Dense(4)])
    weights = model.get_weights()
    weights[0][:, 17], weights[2][17] = weights[0][:, 17] * factor, weights[2][17] / factor
    model.set_weights(weights)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(64, 12)).astype("float32"))
    _, table = sensitivity_files.of_file(
        tmp_path / "model.keras", tmp_path / "data.npz", tmp_path / "data.npz", None, None
    )
    assert len(table.attrs["causes"]) == wanted
    assert not wanted or "channel 17 of" in table.attrs["causes"][0]
    arguments = [str(tmp_path / "model.keras"), "--calibration", str(tmp_path / "data.npz"), "--output", str(tmp_path)]
    told = CliRunner().invoke(main, ["sensitivity", *arguments])
    assert told.exit_code == 0, told.output
    assert ("Likely cause of what all together lose: channel 17 of" in told.output) == bool(wanted)


def test_labels_in_another_order_are_no_ground_to_judge_layers_on(tmp_path):
    path, data, answers = given("MLP", tmp_path, number=200)
    x, y = np.load(data)["x"], answers[0].argmax(axis=1)
    np.savez(tmp_path / "shuffled.npz", x=x, y=np.roll(y, 7))
    with pytest.raises(InputError, match=r"baseline has accuracy 0\.\d+ .* are the labels in the order of the samples"):
        sensitivity_files.of_file(path, data, tmp_path / "shuffled.npz", None, None)


def test_channels_of_a_tflite_are_refused_with_a_cure_that_works(tmp_path):
    path, _, _ = given("small CNN", tmp_path)
    model = tf.keras.models.load_model(path, compile=False)
    (tmp_path / "model.tflite").write_bytes(quantize.convert(model))
    with pytest.raises(InputError, match=r"give the \.keras or \.h5 file that it was made from"):
        reports.prune_file(tmp_path / "model.tflite", tmp_path / "narrow.keras", 0.5)
    assert len(reports.prune_file(path, tmp_path / "narrow.keras", 0.5)[0])


@pytest.mark.parametrize(
    "name, library", [("small CNN", "2"), ("two inputs", "3"), ("regression", "3"), ("embedding of tokens", "2")]
)
def test_a_model_of_any_ends_is_trained_for_four_bits(name, library, tmp_path):
    path, data, _ = given(name, tmp_path, KITS[library], 80)
    lesson = reports.Lesson(4, False, steps=60, learning_rate=3e-3)
    _, table, judged, known, files = reports.train_file(path, data, tmp_path / "small.tflite", lesson)
    assert (tmp_path / "small.tflite").read_bytes() == files["trained"]
    assert table["sqnr_db"]["trained"] >= table["sqnr_db"]["not trained"] - (1 if name == "small CNN" else 0)
    assert len(next(iter(judged.values()))) == 16 and known is None and ("same" in table) == (name != "regression")
    assert not list(tmp_path.glob("*.training.npz"))


def test_the_command_trains_and_asks_the_gate(tmp_path):
    path, data, answers = given("small CNN", tmp_path, number=200)
    np.savez(data, x=np.load(data)["x"], y=answers[0].argmax(axis=1))
    words = ["train", str(path), "--data", str(data), "--steps", "10", "--output", str(tmp_path / "small.tflite")]
    found = CliRunner().invoke(main, [*words, "--teacher", "labels", "--json", str(tmp_path / "table.json")])
    assert found.exit_code == 0, found.output
    assert "judged on 40 samples that were not trained on but chose which weights stay" in found.output
    assert "\ntrained against float32, top1:" in found.output and "not trained against float32, top1:" in found.output
    assert any(word in found.output for word in ("accepted", "undecided", "rejected"))
    assert (tmp_path / "table.json").is_file()
    sparse = CliRunner().invoke(main, [*words, "--weights", "float", "--sparsity", "0.5", "--test", str(data)])
    assert sparse.exit_code == 0, sparse.output
    assert "judged on 200 samples of --test" in sparse.output and "not trained" not in sparse.output
    kernels = litert.tensors(tmp_path / "small.tflite")
    convolutions = kernels[kernels["constant"] & (kernels["shape"].map(len) == 4)]
    assert (convolutions["zeros"] > 0.45).all()


def test_training_that_only_does_harm_is_told_with_a_cure_that_works(tmp_path):
    path, data, _ = given("small CNN", tmp_path, number=100)
    words = ["train", str(path), "--data", str(data), "--weights", "4", "--output", str(tmp_path / "small.tflite")]
    told = []
    for rate in ("0.5", "0.05", "0.005", "0.0005"):
        found = CliRunner().invoke(main, [*words, "--steps", "40", "--learning-rate", rate])
        assert found.exit_code in (0, 1, 2), found.output
        told.append(f"smaller --learning-rate than {rate}, such as {float(rate) / 10:g}." in found.output)
    assert told[0] and not told[-1] and told == sorted(told, reverse=True)


def test_what_judges_does_not_choose(tmp_path):
    path, data, answers = given("MLP", tmp_path, number=100)
    x, y = np.load(data)["x"], answers[0].argmax(axis=1)
    np.savez(tmp_path / "test.npz", x=x[60:], y=y[60:])
    np.savez(tmp_path / "fit.npz", x=x[:60], y=y[:60])
    lesson, made = reports.Lesson(4, steps=20, learning_rate=1e-2), []
    for test in (tmp_path / "test.npz", None):
        _, table, judged, known, files = reports.train_file(
            path, tmp_path / "fit.npz", tmp_path / "small.tflite", lesson, test
        )
        made.append(files["trained"])
        [samples] = judged.values()
        assert len(samples) == len(known) == (12 if test is None else 40)
        if test is not None:
            np.testing.assert_array_equal(samples, x[60:])
            found = litert.predict(files["trained"], x[60:]).argmax(axis=1) == y[60:]
            assert table["top1"]["trained"] == found.mean()
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("lesson", "arrays", "why"),
    [
        ({"teacher": "labels"}, {}, "holds no y: add the labels, or let the float file teach"),
        ({}, {"x": np.zeros((4, 24, 24, 3), "float32")}, "a fifth of them chooses .*, so give 10 or more"),
        ({}, {"x": np.zeros((40, 24, 24), "float32")}, r"has x of shape \(40, 24, 24\): this model takes"),
        ({"weights": None}, {}, "say what the file is trained for"),
        ({"sparsity": "a lot"}, {}, "must be a share"),
        ({"teacher": "labels"}, {"y": np.arange(40)}, "y"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(lesson, arrays, why, tmp_path):
    path, data, _ = given("small CNN", tmp_path)
    np.savez(data, **{"x": np.load(data)["x"], **arrays})
    with pytest.raises(InputError, match=why):
        reports.train_file(path, data, tmp_path / "small.tflite", reports.Lesson(**{"steps": 2, **lesson}))
    assert not list(tmp_path.glob("small*"))


@pytest.mark.parametrize(
    "purpose, y, why",
    [
        (Purpose("nosuch"), None, "task='nosuch' is unknown"),
        (None, {"y_kind": np.arange(60) % 5, "y_age": np.arange(60.0)}, "y labels 2 outputs"),
        (None, {"y": np.arange(60) % 5}, "are the labels in the order of the samples"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_training(purpose, y, why, tmp_path):
    path, data, _ = given("MLP", tmp_path, number=60)
    np.savez(data, x=np.load(data)["x"], **(y or {}))
    steps = []
    with pytest.raises(InputError, match=why):
        reports.train_file(
            path,
            data,
            tmp_path / "small.tflite",
            reports.Lesson(4, steps=2),
            progress=lambda each: (steps.append(step) or step for step in each),
            purpose=purpose,
        )
    assert not steps and not list(tmp_path.glob("small*"))


def test_a_few_labels_that_choose_need_not_show_again_what_all_have_shown(tmp_path):
    """A fifth of 50 samples, 8 of 10 right, is no more than chance could have."""
    source = tf.keras.layers.Input((4,))
    model = tf.keras.Model(source, tf.keras.layers.Dense(1, "sigmoid", use_bias=False)(source))
    model.layers[1].set_weights([np.array([[4.0], [0], [0], [0]])])
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    y = (x[:, 0] > 0).astype(int)
    y[::5] = 1 - y[::5]
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    words = ["train", "model.keras", "--data", "data.npz", "--steps", "2", "--output", "out.tflite"]
    done = CliRunner().invoke(main, [str(tmp_path / word) if "." in word else word for word in words])
    assert done.exit_code == 0 and (tmp_path / "out.tflite").is_file(), done.output
    np.savez(tmp_path / "data.npz", x=x, y=y[::-1])
    done = CliRunner().invoke(main, [str(tmp_path / word) if "." in word else word for word in words])
    assert done.exit_code == 2 and "cannot be told from" in done.output


def test_an_unknown_teacher():
    with pytest.raises(InputError, match="must be self or labels"):
        reports.Lesson(teacher="me")


def test_labels_are_taken_apart_with_the_samples_and_must_be_one_each():
    x = {"x": np.arange(100, dtype="float32")[:, None]}
    fit, labels, chosen, others = reports._apart(x, {"kind": np.arange(100), "there": np.arange(100) + 1}, 0)
    for samples, known in ((fit, labels), (chosen, others)):
        assert (samples["x"][:, 0] == known["kind"]).all() and (known["there"] == known["kind"] + 1).all()
    for y, told in ((np.arange(1000), "y has 1,000 labels"), ({"kind": np.arange(9)}, "y_kind has 9 labels")):
        with pytest.raises(InputError, match=f"{told} for 100 samples: give one a sample"):
            reports._apart(x, y, 0)


def test_a_model_of_tokens_has_its_channels_pruned(tmp_path):
    architectures.build("embedding of tokens", tf.keras).save(tmp_path / "model.keras")
    _, _, totals, _ = reports.prune_file(tmp_path / "model.keras", tmp_path / "narrow.keras", 0.5)
    assert "latency_ratio" in totals.index


def test_a_file_that_names_classes_itself_is_converted(tmp_path):
    weights = np.random.default_rng(0).normal(size=(8, 10)).astype("float32")
    function = tf.function(lambda x: tf.argmax(x @ weights, 1)).get_concrete_function(tf.TensorSpec((None, 8)))
    (tmp_path / "model.tflite").write_bytes(quantize.convert(function))
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(1).normal(size=(60, 8)).astype("float32"))
    _, table = reports.convert_file(tmp_path / "model.tflite", tmp_path / "small.tflite", "int8", tmp_path / "data.npz")
    assert (tmp_path / "small.tflite").is_file() and len(table) == 1
