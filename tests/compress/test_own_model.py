"""`notebooks/your_own_model.ipynb` on models of no other notebook, and each way in which a model or samples can be unusable."""

import keras as keras_3
import nbformat
import numpy as np
import pytest

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, own_keras, own_model, quantize, reports
from helpers.deploy import package
from helpers.lab import tour
from helpers.networks import data, models
from helpers.tflite import litert

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
NOTEBOOK = repository.NOTEBOOKS / "your_own_model.ipynb"


def digit_layers(kit):
    """The layers of a small network of digits, of either Keras."""
    return [
        kit.layers.Input((28, 28, 1)),
        kit.layers.Conv2D(8, 5, 2, activation="relu", name="wide"),
        kit.layers.DepthwiseConv2D(3, padding="same", name="spread"),
        kit.layers.BatchNormalization(name="norm"),
        kit.layers.Conv2D(24, 3, 2, activation="relu", name="mix"),
        kit.layers.Flatten(name="flat"),
        kit.layers.Dense(10, activation="softmax", name="answer"),
    ]


@pytest.fixture(scope="module")
def digits():
    found = data.load("mnist5k")
    return [part[..., None] / np.float32(255) for part in (found.x_train, found.x_test)], found.y_train, found.y_test


@pytest.fixture(scope="module")
def net(digits):
    (x, _), y, _ = digits
    runtime_env.seed_everything(0)
    model = tf.keras.Sequential(digit_layers(tf.keras), name="digits")
    model.compile(tf.keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, 64, 3, verbose=0)
    return models.copy(model)


@pytest.fixture(scope="module")
def shelf(net, digits, tmp_path_factory):
    """A folder with the network in every form, and samples; nothing in it is changed."""
    folder = tmp_path_factory.mktemp("shelf")
    modern = keras_3.Sequential(digit_layers(keras_3))
    modern.set_weights(net.get_weights())
    with runtime_env.quiet():
        net.save(folder / "digits.keras")
        net.save(folder / "digits.h5")
        net.save(folder / "digits_saved")
        modern.save(folder / "modern.keras")
        modern.export(folder / "modern_saved")
    (folder / "digits.tflite").write_bytes(quantize.convert(net))
    x, y = np.concatenate(digits[0]), np.concatenate(digits[1:])
    np.savez(folder / "digits.npz", x=x[3000:], y=y[3000:])
    return folder


# --- the notebook


def run(shelf, model, output, **given):
    changes = {"model_path": str(shelf / model), "data_path": str(shelf / "digits.npz"), "latency_rounds": 6, **given}
    failure = tour.execute(
        str(NOTEBOOK), changes, output / "copy.ipynb", {repository.OUTPUT_VARIABLE: str(output)}, progress=False
    )
    assert not failure, failure
    cells = nbformat.read(output / "copy.ipynb", as_version=4).cells
    return "".join(each.get("text", "") for cell in cells if cell.cell_type == "code" for each in cell.outputs)


def test_a_keras_model_becomes_a_package_that_verifies(shelf, net, digits, tmp_path):
    told = run(shelf, "digits.keras", tmp_path, max_drop=0.05, min_speedup=0.0)
    assert "a model of Keras 2, takes " in told and "float32 (n, 28, 28, 1), gives " in told and "MACs " in told
    assert "classification, judged by labels: accuracy 0.9" in told
    manifest = package.verify(tmp_path / "packages" / "digits")
    assert manifest["policy"]["max_drop"] == 0.05 and manifest["provenance"]["data"]["samples"] == 1330
    shipped = litert.content(tmp_path / "packages" / "digits" / "model.tflite")
    assert len(shipped) < 0.5 * len(quantize.convert(net))
    (_, x), _, y = digits
    assert (litert.predict(shipped, x).argmax(axis=-1) == y).mean() > models.correct(net, x, y).mean() - 0.05


def test_a_tflite_file_skips_what_needs_keras_and_an_impossible_target_ships_nothing(shelf, tmp_path):
    told = run(shelf, "digits.tflite", tmp_path, max_size=1000)
    assert "A .tflite cannot be converted anew" in told and "MACs " not in told
    assert "int8: rejected: size: " in told and "Nothing to ship: no candidate passed" in told
    assert "training helps" not in told
    assert not (tmp_path / "packages").exists()


# --- models


@pytest.mark.parametrize(
    "name, kind, prunable",
    [
        ("digits.keras", "a model of Keras 2", True),
        ("digits.h5", "a model of Keras 2", True),
        ("digits_saved", "a SavedModel of Keras 2", True),
        ("modern.keras", "a model of Keras 3", True),
        ("modern_saved", "a SavedModel without a Keras model", False),
        ("digits.tflite", "a .tflite file", False),
    ],
)
def test_every_form_of_a_model_answers_alike(shelf, net, digits, name, kind, prunable):
    own = own_model.load(shelf / name)
    assert (own.kind, own.inputs[0].shape, own.outputs[0].shape) == (kind, (28, 28, 1), (10,))
    assert bool(own.keras) is prunable and bool(own.skipped) is not prunable
    assert (own.graph is None) is (name == "digits.tflite")
    x = digits[0][1][:50]
    np.testing.assert_allclose(litert.predict(own.file, x), net(x), atol=1e-5)
    named = [layer.split("_")[0] for layer in litert.weight_layers(own.file).layer]  # Keras 3 may count: wide_1
    assert named == ["wide", "spread", "mix", "answer"]
    if own.graph:
        assert len(quantize.convert(own.graph, "int8", x)) < 0.6 * len(own.file)


def test_the_profile_counts_weights_and_operations(net):
    table = own_model.profile(quantize.convert(net)).set_index("op")
    assert list(table.weights) == [200, 72, 1728, 6000]
    assert list(table.macs) == [12 * 12 * 200, 12 * 12 * 72, 25 * 1728, 6000]
    assert list(table.layer) == ["wide", "spread", "mix", "answer"]
    assert table.weights_share.sum() == pytest.approx(1) == table.macs_share.sum()


def test_the_profile_of_open_sizes_counts_those_of_the_samples():
    x = layers.Conv2DTranspose(2, 2, 2, name="up")(layers.Conv2D(4, 3)(OPEN))
    model = ends(OPEN, layers.Dense(3, name="answer")(layers.GlobalAveragePooling2D()(x)))
    table = own_model.profile(quantize.convert(model), np.zeros((2, 12, 10, 3), "float32"), ["given", "answer"])
    assert list(table.macs) == [10 * 8 * 4 * 27, 10 * 8 * 2 * 2 * 2 * 4, 6] and table.layer.iloc[2] == "answer"


class Doubling(layers.Layer):
    def call(self, x):
        return 2 * x


def saved(model, path):
    with runtime_env.quiet():
        model.save(path)
    return path


def test_a_layer_of_the_authors_own_is_named(tmp_path):
    own = tf.keras.Sequential([layers.Input((4,)), Doubling(), layers.Dense(2)])
    for name in ("own.keras", "own.h5"):
        with pytest.raises(InputError, match="needs the class Doubling, which only its author's code has"):
            own_model.load(saved(own, tmp_path / name))
    assert own_model.load(saved(own, tmp_path / "own")).outputs[0].shape == (2,)
    code = tf.keras.Sequential([layers.Input((4,)), layers.Lambda(lambda x: 2 * x), layers.Dense(2)])
    with pytest.raises(InputError, match="holds Lambda layers, which are code"):
        own_model.load(saved(code, tmp_path / "code.keras"))


def ends(inputs, outputs):
    return tf.keras.Model(inputs, outputs)


FLAT, OTHER, OPEN = layers.Input((4,)), layers.Input((4,)), layers.Input((None, None, 3))
TOKENS = layers.Input((4,), dtype="int32")


@pytest.mark.parametrize(
    "model, takes, gives",
    [
        (ends([FLAT, OTHER], layers.Dense(3)(FLAT + OTHER)), ["float32 (n, 4)"] * 2, ["float32 (n, 3)"]),
        (
            ends(FLAT, [layers.Dense(3)(FLAT), layers.Dense(2)(FLAT)]),
            ["float32 (n, 4)"],
            ["float32 (n, 3)", "float32 (n, 2)"],
        ),
        (ends(TOKENS, layers.Dense(3)(tf.cast(TOKENS, "float32"))), ["int32 (n, 4)"], ["float32 (n, 3)"]),
        (ends(FLAT, layers.Reshape((2, 2))(FLAT)), ["float32 (n, 4)"], ["float32 (n, 2, 2)"]),
        (
            ends(OPEN, layers.Dense(3)(layers.GlobalAveragePooling2D()(OPEN))),
            ["float32 (n, ?, ?, 3)"],
            ["float32 (n, 3)"],
        ),
    ],
    ids=["inputs", "outputs", "dtype", "shape", "open size"],
)
def test_models_of_any_ends_are_loaded(tmp_path, model, takes, gives):
    own = own_model.load(saved(model, tmp_path / "other.keras"))
    assert [str(end) for end in own.inputs] == takes and sorted(str(end) for end in own.outputs) == sorted(gives)
    assert own.ends.startswith("takes ") and all(of in own.ends for of in (*takes, *gives))


def of_two_heads(kit, form):
    """The layers' names, or the keys of a dict in another order than the layers and the alphabet."""
    source = kit.layers.Input((6,), name="numbers")
    hidden = kit.layers.Dense(5, "relu")(source)
    low, high = kit.layers.Dense(3, name="low")(hidden), kit.layers.Dense(2, name="high")(hidden)
    return kit.Model(source, {"list": [low, high], "dict": {"zone": low, "area": high}}[form])


def of_list(answers, names):
    return [answers[name] for name in names] if isinstance(answers, dict) else answers


@pytest.mark.parametrize("recipe", ["float32", "dynamic", "int8"])
@pytest.mark.parametrize("form", ["list", "dict"])
@pytest.mark.parametrize("kit", [tf.keras, keras_3, None])
def test_several_outputs_keep_their_names(kit, form, recipe, tmp_path):
    model = of_two_heads(kit or tf.keras, form)
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    names = {"list": ("low", "high"), "dict": ("zone", "area")}[form]
    if kit is None:  # a SavedModel of no Keras, with a dict as its signature
        answer = tf.function(lambda numbers: dict(zip(names, of_list(model(numbers), names), strict=True)))
        spec = tf.TensorSpec((None, 6), name="numbers")
        holder = tf.Module()
        holder.model = model
        tf.saved_model.save(holder, tmp_path / "model", signatures=answer.get_concrete_function(spec))
    path = tmp_path / ("model" if kit is None else "model.keras")
    if kit is not None:
        model.save(path)
    np.savez(tmp_path / "data.npz", x=x)
    own, table = reports.convert_file(path, tmp_path / "small.tflite", recipe, tmp_path / "data.npz")
    assert {end.name for end in own.outputs} == set(table.index) == set(names)
    exact = dict(zip(names, of_list(model(x), names), strict=True))
    for file in (own.file, tmp_path / "small.tflite"):
        found = litert.run(file, {own.inputs[0].name: x})
        assert all(affine.sqnr(np.asarray(exact[name]), found[name]) > 20 for name in names)


def recurrent(kit, steps, **settings):
    inputs = kit.layers.Input((steps, 6))
    return kit.Model(inputs, kit.layers.Dense(3)(kit.layers.LSTM(5, **settings)(inputs)))


def masked(kit, **settings):
    inputs = kit.layers.Input((6, 4))
    return kit.Model(inputs, kit.layers.Dense(3)(kit.layers.LSTM(5, **settings)(kit.layers.Masking()(inputs))))


def counted(**settings):
    """Keras 3; that a step counts is also multiplied with, which keeps it from becoming a model of Keras 2."""
    inputs = keras_3.layers.Input((6, 4))
    there = keras_3.ops.any(keras_3.ops.not_equal(inputs, 0), (1, 2))
    x = keras_3.layers.LSTM(5, **settings)(keras_3.layers.Masking()(inputs))
    return keras_3.Model(inputs, keras_3.layers.Dense(3)(x) * keras_3.ops.cast(there, "float32")[:, None])


def convolved(kit, **settings):
    inputs = kit.layers.Input((4, 12, 3))
    x = kit.layers.ConvLSTM1D(4, 3, **settings)(inputs)
    return kit.Model(inputs, kit.layers.Dense(3)(kit.layers.Flatten()(x)))


@pytest.mark.parametrize(
    "model, shape, cure",
    [
        (recurrent(tf.keras, None), (7, 6), recurrent(tf.keras, 7)),
        (recurrent(keras_3, None), (7, 6), recurrent(keras_3, 7)),
        (counted(), (6, 4), counted(unroll=True)),
        (convolved(tf.keras), (4, 12, 3), None),
        (convolved(keras_3), (4, 12, 3), convolved(keras_3, unroll=True)),
    ],
    ids=["open, Keras 2", "open, Keras 3", "a mask read otherwise", "convolutional, Keras 2", "convolutional, Keras 3"],
)
def test_a_loop_over_steps_is_converted_and_its_int8_refused_with_a_cure_that_works(model, shape, cure, tmp_path):
    """The converter dies of calibrating it."""
    x = 2 * np.random.default_rng(0).normal(size=(40, *shape)).astype("float32")
    x[:20, -2:] = 0
    own = own_model.load(saved(model, tmp_path / "model.keras"))
    [found] = litert.run(own.file, {"x": x}).values()
    np.testing.assert_allclose(found, model(x), atol=1e-5)
    np.savez(tmp_path / "x.npz", x=x)
    words = (tmp_path / "small.tflite", "int8", tmp_path / "x.npz")
    for path in (tmp_path / "model.keras", tmp_path / "float.tflite"):
        (tmp_path / "float.tflite").write_bytes(own.file)
        with pytest.raises(StructureError, match="with a fixed number of steps and unroll=True"):
            reports.convert_file(path, *words)
    for recipe in ("float16", "dynamic"):
        _, table = reports.convert_file(tmp_path / "model.keras", words[0], recipe, words[2])
        assert table["sqnr_db"].min() > 30
    if cure is not None:
        own = own_model.load(saved(cure, tmp_path / "cured.keras"))
        (tmp_path / "cured.tflite").write_bytes(own.file)
        _, table = reports.convert_file(tmp_path / "cured.tflite", *words)
        assert table["sqnr_db"].min() > 15


@pytest.mark.parametrize(
    "recipe, does", [("int8", "is 0 for all calibration samples"), ("int16x8", "cannot be made of model")]
)
def test_what_the_converter_makes_no_file_of_that_runs_is_quantized_otherwise(recipe, does, tmp_path):
    x = 2 * np.random.default_rng(0).normal(size=(40, 6, 4)).astype("float32")
    np.savez(tmp_path / "x.npz", x=x)
    path = saved(masked(tf.keras), tmp_path / "model.keras")
    words = (recipe, tmp_path / "x.npz")
    with pytest.raises(InputError, match=rf"{does}.*--recipe float32 first, then --recipe {recipe} of that"):
        reports.convert_file(path, tmp_path / "small.tflite", *words)
    assert not (tmp_path / "small.tflite").exists()
    reports.convert_file(path, tmp_path / "float.tflite", "float32")
    _, table = reports.convert_file(tmp_path / "float.tflite", tmp_path / "small.tflite", *words)
    assert table["sqnr_db"].min() > 25


def vectorized(kit):
    inputs = kit.layers.Input((1,), dtype="string")
    return kit.Model(inputs, kit.layers.TextVectorization(10, output_sequence_length=4, vocabulary=["a", "b"])(inputs))


@pytest.mark.parametrize("kit", [tf.keras, keras_3], ids=["Keras 2", "Keras 3"])
def test_models_that_the_converter_cannot_take_are_told_the_cure(kit, tmp_path):
    own = own_model.load(saved(recurrent(kit, 7), tmp_path / "fixed.keras"))
    assert own.outputs[0].shape == (3,) and "unrolled over its 7 steps" in own.skipped
    with pytest.raises(InputError, match=r"takes text, .* save the part behind TextVectorization"):
        own_model.load(saved(vectorized(kit), tmp_path / "text.keras"))
    with pytest.raises(InputError, match=r"declares no inputs .*: save it as a SavedModel"):
        own_model.load(saved(kit.Sequential([kit.layers.Dense(3)]), tmp_path / "unbuilt.keras"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("none.keras", None, "does not exist: give a .keras, .h5 or .tflite file"),
        ("net.onnx", b"abc", "ends in .onnx: give a .keras"),
        ("net", b"abc", "ends in no suffix: give a .keras"),
        ("net.keras", b"abc", r"cannot be loaded as a model \(.+\)\."),
        ("net.h5", b"", r"cannot be loaded as a model \(.+\)\."),
        ("net.tflite", b"abcdefgh", "is not a TFLite model"),
    ],
)
def test_files_that_are_no_models(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        own_model.load(tmp_path / name)


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(InputError, match=r"is a folder without a saved_model\.pb"):
        own_model.load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be loaded as a SavedModel \(.+\): save it again"):
        own_model.load(tmp_path)


@pytest.mark.parametrize("recipe, dtype", [("int8", "int8"), ("dynamic", "int8")])
def test_a_compressed_tflite_is_refused(net, digits, tmp_path, recipe, dtype):
    (tmp_path / "small.tflite").write_bytes(quantize.convert(net, recipe, digits[0][1][:10]))
    with pytest.raises(InputError, match=f"has {dtype} weights already: give the float32 model"):
        own_model.load(tmp_path / "small.tflite")


def test_weights_that_are_not_finite_are_refused(net, tmp_path):
    broken = models.copy(net)
    broken.get_layer("answer").bias.assign(np.full(10, np.nan))
    with pytest.raises(InputError, match="hold NaN"):
        own_model.load(saved(broken, tmp_path / "broken.keras"))


@pytest.mark.parametrize("kit", [tf.keras, keras_3], ids=["Keras 2", "Keras 3"])
def test_a_layer_with_a_folded_normalization_keeps_its_own_name(kit, tmp_path):
    layers = kit.layers
    x = start = layers.Input((8, 8, 3))
    for number in (1, 2):
        x = layers.Conv2D(4, 3, use_bias=False, name=f"conv_{number}")(x)
        x = layers.BatchNormalization(name=f"a_longer_name_{number}")(x)
        x = layers.ReLU(6.0, name=f"relu_{number}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.BatchNormalization(name="normalized_before_it")(layers.Dense(8, activation="swish", name="wide")(x))
    kit.Model(start, layers.Dense(3, name="answer")(x)).save(tmp_path / "model.keras")
    own = own_model.load(tmp_path / "model.keras")
    assert list(litert.weight_layers(own.file, known=own.layers)["layer"]) == ["conv_1", "conv_2", "wide", "answer"]


def test_a_saved_model_with_live_augmentation_is_refused_with_a_cure_that_works(tmp_path):
    def built(*augmentation):
        stack = [keras_3.layers.Input((8, 8, 3)), *augmentation, keras_3.layers.Flatten(), keras_3.layers.Dense(3)]
        return keras_3.Sequential(stack)

    live, plain = built(keras_3.layers.RandomTranslation(0.1, 0.1)), built()
    archive = keras_3.export.ExportArchive()  # as a model exports itself that is told to go on training
    archive.track(live)
    spec = [tf.TensorSpec((None, 8, 8, 3))]
    archive.add_endpoint("serve", lambda x: live(x, training=True), input_signature=spec)
    archive.write_out(tmp_path / "live", verbose=False)
    with pytest.raises(
        InputError, match=r"cannot be frozen .*Give the \.keras file instead, or export the model without"
    ):
        own_model.load(tmp_path / "live")
    plain.export(tmp_path / "plain", verbose=False)
    assert own_model.load(tmp_path / "plain").outputs[0].shape == (3,)


def test_layers_of_keras_3_have_the_names_of_the_model_where_the_file_has_others(tmp_path):
    """Keras 3 numbers the layers that it exports, and the converter leaves a grouped convolution without a name."""
    layers = keras_3.layers
    inputs = layers.Input((8, 8, 6))
    x = layers.DepthwiseConv2D(3, name="deep")(layers.Conv2D(6, 3, name="conv")(inputs))
    x = layers.Conv2D(4, 1, name="conv_1")(keras_3.ops.flip(x, 1))  # which Keras 2 has no layer for
    model = keras_3.Model(inputs, layers.Dense(2, name="answer")(layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "model.keras")
    own = own_model.load(tmp_path / "model.keras")
    assert own.keras is None
    assert list(litert.weight_layers(own.file, own.layers)["layer"]) == ["conv", "deep", "conv_1", "answer"]


@pytest.mark.parametrize("kit", [tf.keras, keras_3], ids=["2", "3"])
def test_a_group_normalization_whose_file_would_not_run_gets_one_that_does(kit, tmp_path):
    inputs = kit.Input((12, 12, 3))
    x = kit.layers.GroupNormalization(4)(kit.layers.Conv2D(8, 3, padding="same", name="first")(inputs))
    model = kit.Model(inputs, kit.layers.Conv2D(3, 1, activation="softmax", name="last")(x))
    model.save(tmp_path / "model.keras")
    own = own_model.load(tmp_path / "model.keras")
    assert (own_keras.SINGLE in own.notes) == (kit is tf.keras)
    assert own.layers == ("first", "last")
    x = np.random.default_rng(0).normal(size=(20, 12, 12, 3)).astype("float32")
    wanted = np.asarray(model(x, training=False))
    for file, least in ((own.file, 100), (quantize.convert(own.graph, "int8", x), 25)):
        [found] = litert.run(file, {"x": x}).values()
        assert affine.sqnr(wanted, found) > least


def test_a_tflite_that_cannot_run_is_refused_with_a_cure_that_works(tmp_path):
    model = tf.keras.Sequential([layers.Input((12, 12, 4)), layers.GroupNormalization(2), layers.Conv2D(3, 1)])
    convert = tf.lite.TFLiteConverter.from_keras_model
    with runtime_env.quiet():
        (tmp_path / "any.tflite").write_bytes(convert(model).convert())
        one = tf.keras.Sequential([layers.Input((12, 12, 4), 1), *model.layers])
        (tmp_path / "one.tflite").write_bytes(convert(one).convert())
    with pytest.raises(InputError, match=r"LiteRT cannot run it: .*Convert the model again, for one sample"):
        own_model.load(tmp_path / "any.tflite")
    own = own_model.load(tmp_path / "one.tflite")
    x = np.random.default_rng(0).normal(size=(3, 12, 12, 4)).astype("float32")
    [found] = litert.run(own.file, {"x": x}).values()
    assert affine.sqnr(np.asarray(model(x)), found) > 100


@pytest.mark.parametrize("samples", [None, np.zeros((2, 16, 32), "float32")])
def test_a_dense_layer_on_a_sequence_is_counted_at_each_of_its_places(samples):
    source = layers.Input((16, 32))
    model = tf.keras.Model(source, layers.Dense(10)(layers.Dense(64, "relu")(source)))
    assert own_model.profile(quantize.convert(model), samples)["macs"].tolist() == [16 * 32 * 64, 16 * 64 * 10]


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (layers.Conv2D(8, 3, padding="same", dilation_rate=2), (16, 16, 3), 16 * 16 * 8 * 27),
        (layers.Conv1D(8, 3, padding="causal", dilation_rate=4), (32, 3), 32 * 8 * 9),
        (layers.TimeDistributed(layers.Conv2D(8, 3, padding="same")), (5, 16, 16, 3), 5 * 16 * 16 * 8 * 27),
    ],
)
def test_places_beside_the_samples_are_counted(layer, shape, macs, tmp_path):
    source = layers.Input(shape)
    file = own_model.load(saved(tf.keras.Model(source, layer(source)), tmp_path / "model.keras")).file
    assert own_model.profile(file)["macs"].tolist() == [macs]


@pytest.mark.parametrize("before", [1.0, 255.0])
def test_what_a_saved_model_serves_is_taken_not_the_model_inside(before, tmp_path):
    source = layers.Input((8,), name="raw")
    model = tf.keras.Model(source, layers.Dense(3)(source))
    serve = tf.function(
        lambda raw: {"out": model(raw / before)}, input_signature=[tf.TensorSpec((None, 8), name="raw")]
    )
    with runtime_env.quiet():
        model.save(tmp_path / "model", signatures={"serving_default": serve})
    own = own_model.load(tmp_path / "model")
    x = np.random.default_rng(0).normal(size=(9, 8)).astype("float32")
    np.testing.assert_allclose(litert.predict(own.file, x), serve(x)["out"], atol=1e-5)
    assert (own.keras is not None) == (before == 1)


def test_a_saved_model_of_keras_2_for_one_sample_is_loaded(tmp_path):
    source = layers.Input((6, 4), batch_size=1)
    model = tf.keras.Model(source, layers.Dense(3)(layers.LSTM(5)(source)))
    with runtime_env.quiet():
        model.save(tmp_path / "model")
    own, x = own_model.load(tmp_path / "model"), np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    wanted = np.concatenate([model(x[place : place + 1]) for place in range(3)])
    np.testing.assert_allclose(litert.predict(own.file, x), wanted, atol=1e-5)


def test_a_saved_model_with_a_loop_is_refused_with_cures_that_work(tmp_path):
    with runtime_env.quiet():
        recurrent(keras_3, 6).export(tmp_path / "loop", verbose=False)
    with pytest.raises(
        InputError, match=r"give the \.keras file, or make them with a fixed number of steps and unroll=True"
    ):
        own_model.load(tmp_path / "loop")
    assert own_model.load(saved(recurrent(keras_3, 6), tmp_path / "loop.keras")).outputs[0].shape == (3,)
    with runtime_env.quiet():
        recurrent(keras_3, 6, unroll=True).export(tmp_path / "unrolled", verbose=False)
    assert own_model.load(tmp_path / "unrolled").outputs[0].shape == (3,)


def test_a_saved_model_of_text_is_refused_with_the_cure(tmp_path):
    with runtime_env.quiet():
        vectorized(tf.keras).save(tmp_path / "text")
    with pytest.raises(InputError, match=r"takes text, .* save the part behind TextVectorization"):
        own_model.load(tmp_path / "text")


class Doubled(layers.Layer):
    """Without a get_config that would give its settings back."""

    def __init__(self, factor, **settings):
        super().__init__(**settings)
        self.factor = factor

    def call(self, x):
        return self.factor * x


def test_a_saved_model_of_keras_2_with_an_authors_layer_is_converted_as_a_graph(tmp_path):
    source = layers.Input((8,))
    model = tf.keras.Model(source, layers.Dense(3)(Doubled(2.0)(source)))
    with runtime_env.quiet():
        model.save(tmp_path / "model")
    own = own_model.load(tmp_path / "model")
    x = np.random.default_rng(0).normal(size=(9, 8)).astype("float32")
    np.testing.assert_allclose(litert.predict(own.file, x), model(x), atol=1e-5)
    assert own.keras is None and "Doubled" in own.notes[0]


def test_a_file_with_an_authors_activation_is_taken_with_its_code(tmp_path):
    (tmp_path / "mine.py").write_text("import tensorflow as tf\n\ndef half(x):\n    return 0.5 * tf.nn.relu(x)\n")
    names = {}
    exec((tmp_path / "mine.py").read_text(), names)
    source = layers.Input((8,))
    model = tf.keras.Model(source, layers.Dense(3, activation=names["half"])(source))
    own = own_model.load(saved(model, tmp_path / "model.keras"), code=tmp_path / "mine.py")
    x = np.random.default_rng(0).normal(size=(9, 8)).astype("float32")
    np.testing.assert_allclose(litert.predict(own.file, x), model(x), atol=1e-5)
    np.testing.assert_allclose(own.keras(x), model(x), atol=1e-5)


def test_a_cap_of_keras_3_is_kept(tmp_path):
    source = keras_3.Input((6,))
    hidden = keras_3.activations.relu(keras_3.layers.Dense(8)(source), max_value=0.5, negative_slope=0.1, threshold=0.2)
    model = keras_3.Model(source, keras_3.layers.Dense(3)(hidden))
    own = own_model.load(saved(model, tmp_path / "model.keras"))
    x = 255 * np.random.default_rng(0).random((9, 6), "float32")
    np.testing.assert_allclose(litert.predict(own.file, x), model(x), rtol=1e-3, atol=1e-3)
