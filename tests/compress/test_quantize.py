"""Conversion: what the quick way through freezing gives is what the official converter gives, bit for bit."""

import json
import subprocess
import sys

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, quantize, requantize
from helpers.networks import models
from helpers.tflite import litert

with runtime_env.quiet():
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot

INPUTS = 48
SAMPLES = np.random.default_rng(0).random((100, INPUTS)).astype("float32")


@pytest.fixture(scope="module")
def mlp():
    runtime_env.seed_everything(0)
    return models.mlp((64, 32), INPUTS)


@pytest.fixture(scope="module")
def convolutional():
    """Convolutions, a depthwise one included, each with a batch norm whose statistics are not the initial ones."""
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2, weight.shape) for weight in layer.get_weights()])
    return model


def officially(model, recipe, calibration):
    """As TensorFlow's own guide converts."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if recipe != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if recipe == "int8":
        converter.representative_dataset = lambda: ([sample[None]] for sample in calibration)
    with runtime_env.quiet():
        return converter.convert()


# --- freezing


@pytest.mark.parametrize("recipe", ["float32", "dynamic", "int8"])
@pytest.mark.parametrize("architecture", ["mlp", "convolutional"])
def test_freezing_gives_the_outputs_of_the_official_converter(request, architecture, recipe):
    model = request.getfixturevalue(architecture)
    random = np.random.default_rng(1)
    calibration, x = random.random((2, 100, *model.input_shape[1:])).astype("float32")
    found = litert.predict(quantize.convert(model, recipe, calibration), x)
    expected = litert.predict(officially(model, recipe, calibration), x)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found, axis=0)) > 50, "the outputs hardly depend on the inputs: nothing was compared"


def test_freezing_leaves_the_batch_open_and_the_model_as_it_was(mlp):
    before = mlp.get_weights()
    function = quantize.freeze(mlp)
    (frozen,) = function(tf.constant(SAMPLES))
    np.testing.assert_array_equal(frozen, mlp(SAMPLES))
    assert function.inputs[0].shape.as_list() == [None, INPUTS]
    assert not function.variables
    for weight, former in zip(mlp.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, former)


@pytest.mark.parametrize("recipe", ["float32", "dynamic", "int8"])
def test_converting_what_freeze_made_is_converting_the_model(mlp, recipe):
    assert quantize.convert(quantize.freeze(mlp), recipe, SAMPLES) == quantize.convert(mlp, recipe, SAMPLES)


# --- what each recipe claims


@pytest.fixture
def registered():
    """Takes away the recipes that a test has added."""
    before = dict(quantize.RECIPES)
    yield
    quantize.RECIPES.clear()
    quantize.RECIPES.update(before)


def test_a_new_recipe_is_known_to_whoever_converts(mlp, registered):
    @quantize.recipe("own_half", "float16 weights, by a recipe of one's own")
    def configure(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    assert quantize.RECIPES["own_half"] == quantize.Recipe(
        "own_half", "float16 weights, by a recipe of one's own", configure, calibrated=False
    )
    assert quantize.convert(mlp, "own_half") == quantize.convert(mlp, "float16")
    with pytest.raises(InputError, match=r"recipe='int4' is unknown: choose one of float32, .*, own_half"):
        quantize.convert(mlp, "int4")


def test_a_new_recipe_that_is_calibrated_wants_samples(mlp, registered):
    @quantize.recipe("own_int8", "int8 throughout, by a recipe of one's own", calibrated=True)
    def configure(converter):
        quantize.RECIPES["full_int8"].configure(converter)

    with pytest.raises(InputError, match=r"calibration is empty: .* at least 1 sample of shape \(48,\)"):
        quantize.convert(mlp, "own_int8")
    assert quantize.convert(mlp, "own_int8", SAMPLES) == quantize.convert(mlp, "full_int8", SAMPLES)


def test_every_recipe_says_what_it_is():
    assert list(quantize.RECIPES) == ["float32", "float16", "dynamic", "int8", "full_int8", "int16x8", "qat"]
    for name, recipe in quantize.RECIPES.items():
        assert recipe.name == name and recipe.meaning
    assert [name for name, recipe in quantize.RECIPES.items() if recipe.calibrated] == ["int8", "full_int8", "int16x8"]


def matrices(table):
    return table[table.constant & (table["shape"].map(len) == 2)]


@pytest.mark.parametrize(
    "recipe, weights, between, outside",
    [
        ("float32", {"float32"}, {"float32"}, np.float32),
        ("float16", {"float16"}, {"float32"}, np.float32),
        ("dynamic", {"int8"}, {"float32"}, np.float32),
        ("int8", {"int8"}, {"int8"}, np.float32),
        ("full_int8", {"int8"}, {"int8"}, np.int8),
        ("int16x8", {"int8"}, {"int16"}, np.float32),
    ],
)
def test_each_recipe_writes_the_types_it_claims(recipe, weights, between, outside):
    model = models.mlp((64, 32), INPUTS, classes=40)
    converted = quantize.convert(model, recipe, SAMPLES)
    table = litert.tensors(converted)
    assert set(matrices(table)["dtype"]) == weights
    hidden = table[~table.constant & table["shape"].isin([(1, 64), (1, 32)])]
    assert set(hidden["dtype"]) == between
    runner = litert.interpreter(converted)
    assert {details["dtype"] for details in (*runner.get_input_details(), *runner.get_output_details())} == {outside}
    step = 0.05 * np.abs(model(SAMPLES)).max()
    np.testing.assert_allclose(litert.predict(converted, SAMPLES), model(SAMPLES), atol=step)


@pytest.mark.parametrize("recipe", ["int8", "dynamic"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_kernel_has_a_scale_for_each_channel_or_one_for_all(recipe, per_channel):
    layers = tf.keras.layers
    x = inputs = layers.Input((16, 16, 3))
    for layer in (layers.Conv2D(40, 3), layers.DepthwiseConv2D(7), layers.Flatten(), layers.Dense(20)):
        x = layer(x)  # each kernel has more than the 1,024 weights from which "dynamic" quantizes
    calibration = np.random.default_rng(0).random((10, 16, 16, 3)).astype("float32")
    model = tf.keras.Model(inputs, x)
    table = litert.tensors(quantize.convert(model, recipe, calibration, per_channel=per_channel))
    kernels = table[table.constant & (table["dtype"] == "int8")]
    found = dict(zip(kernels["shape"], kernels.scales, strict=True))
    channels = {(40, 3, 3, 3): 40, (1, 7, 7, 40): 40, (20, 2560): 20}
    assert found == {shape: number if per_channel else 1 for shape, number in channels.items()}


def test_sparse_encoding_leaves_zeros_out_and_the_answers_alone(mlp):
    model = models.copy(mlp)
    for layer in model.layers:
        layer.kernel.assign(np.where(np.random.default_rng(0).random(layer.kernel.shape) < 0.8, 0, layer.kernel))
    dense, sparse = quantize.convert(model), quantize.convert(model, sparse=True)
    assert len(sparse) < 0.6 * len(dense)
    np.testing.assert_allclose(litert.predict(sparse, SAMPLES), litert.predict(dense, SAMPLES), rtol=1e-5, atol=1e-6)


# --- why sparse encoding is refused for integer weights

# The interpreter may also crash on such a file: it runs in a process of its own.
RUN = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
runner = Interpreter(sys.argv[1], experimental_op_resolver_type=OpResolverType[sys.argv[2]])
runner.allocate_tensors()
answers = []
for sample in np.load(sys.argv[3]):
    runner.set_tensor(runner.get_input_details()[0]["index"], sample[None])
    runner.invoke()
    answers.append(int(runner.get_tensor(runner.get_output_details()[0]["index"]).argmax()))
print(json.dumps(answers))
"""


def test_block_sparse_dynamic_range_still_runs_with_wrong_answers(tmp_path):
    """The day this fails, LiteRT runs such files: `quantize.convert` need not refuse them any longer."""
    runtime_env.seed_everything(0)
    model = models.mlp((256,))
    blocks = model.layers[0].kernel.numpy().reshape(49, 16, 256)  # 16 weights along the input axis
    magnitude = np.abs(blocks).mean(axis=1, keepdims=True)
    pruned = np.where(magnitude < np.quantile(magnitude, 0.8), 0, blocks)
    model.layers[0].kernel.assign(pruned.reshape(784, 256))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([quantize.freeze(model)], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    with runtime_env.quiet():
        (tmp_path / "model.tflite").write_bytes(converter.convert())
    x = np.random.default_rng(0).random((200, 784)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    expected = model(x).numpy().argmax(axis=1)

    def agreement(resolver):
        done = subprocess.run(
            [sys.executable, "-c", RUN, tmp_path / "model.tflite", resolver, tmp_path / "x.npy"], capture_output=True
        )
        return 0 if done.returncode else np.mean(json.loads(done.stdout) == expected)

    assert agreement("BUILTIN_WITHOUT_DEFAULT_DELEGATES") > 0.95, "the file itself is wrong"
    assert agreement("AUTO") < 0.5


# --- refusals


def with_nan(model):
    broken = models.copy(model)
    kernel = broken.layers[1].kernel.numpy()
    kernel[0, 0] = np.nan
    broken.layers[1].kernel.assign(kernel)
    return broken


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"recipe": "int4"},
            "recipe='int4' is unknown: choose one of float32, float16, dynamic, int8",
        ),
        ({"recipe": "int8"}, r"calibration is empty: .* at least 1 sample of shape \(48,\)"),
        ({"recipe": "int8", "calibration": SAMPLES[:0]}, "calibration is empty"),
        (
            {"recipe": "full_int8", "calibration": SAMPLES[:, 1:]},
            r"calibration has shape \(100, 47\): .* \(samples, 48\)",
        ),
        ({"recipe": "int16x8", "calibration": SAMPLES[0]}, r"calibration has shape \(48,\)"),
        ({"recipe": "int8", "calibration": SAMPLES * np.nan}, "calibration holds NaN or infinity"),
        ({"recipe": "dynamic", "sparse": True}, "sparse=True goes with recipe='float32' only, not 'dynamic'"),
        ({"recipe": "int8", "sparse": True, "calibration": SAMPLES}, "sparse=True goes with .* not 'int8'"),
    ],
)
def test_a_bad_request_is_refused_by_name(mlp, arguments, message):
    with pytest.raises(InputError, match=message):
        quantize.convert(mlp, **arguments)


def test_weights_that_are_not_finite_are_refused_by_layer(mlp):
    with pytest.raises(InputError, match=r"weights of hidden_2/kernel.* hold NaN or infinity"):
        quantize.convert(with_nan(mlp))
    with pytest.raises(InputError, match=r"weights of hidden_2/kernel.* hold NaN or infinity"):
        quantize.freeze(with_nan(mlp))


def test_a_model_still_wrapped_for_pruning_is_refused(mlp):
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(models.copy(mlp), pruning_schedule=schedule)
    with pytest.raises(InputError, match=r"layer \w*hidden_1 is still wrapped.*strip_pruning"):
        quantize.convert(wrapped)
    quantize.convert(tfmot.sparsity.keras.strip_pruning(wrapped))


def test_a_layer_that_answers_0_to_all_samples_is_refused_with_cures_that_work():
    """LiteRT cannot load what the converter makes of it, or ends the process over it."""
    layers = tf.keras.layers
    runtime_env.seed_everything(0)
    inputs = layers.Input((16, 16, 3))
    seen = layers.Conv2D(8, 3, activation="swish")(inputs)
    gate = layers.Conv2D(2, 1, activation="relu", name="dead")(layers.GlobalAveragePooling2D(keepdims=True)(seen))
    gate = layers.Conv2D(8, 1, activation="sigmoid")(gate)
    model = tf.keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.Multiply()([seen, gate]))))
    kernel, _ = model.get_layer("dead").get_weights()
    model.get_layer("dead").set_weights([np.abs(kernel), np.full(2, -1.0)])
    x = np.random.default_rng(0).normal(size=(60, 16, 16, 3)).astype("float32")
    with pytest.raises(StructureError, match=r"model.*/dead/.* is 0 for all calibration samples, or nearly"):
        quantize.convert(model, "int8", x)
    exact = quantize.convert(model)
    cured = requantize.apply(exact, {"*": requantize.Format()}, requantize.calibrate(exact, x))
    assert affine.sqnr(litert.predict(exact, x), litert.predict(cured, x)) > 20
    reached = np.concatenate([x, 300 * np.abs(x[:4])])
    assert litert.predict(quantize.convert(model, "int8", reached), x).shape == (60, 5)
