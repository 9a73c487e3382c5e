"""A flat copy in Keras 2 computes what the model of either Keras computes, whatever is inside it."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import StructureError
from helpers.networks import flatten
from tests import architectures

KITS = {"Keras 2": tf.keras, "Keras 3": keras}
FLAT = (
    "MLP",
    "small CNN",
    "MobileNet 2",
    "MobileNet 3",
    "ViT",
    "1-D CNN",
    "U-Net",
    "two heads",
    "two inputs",
    "LSTM",
    "bidirectional text",
)
OPENED = ("Rescaling", "tutorial transfer learning", "Sequential in Sequential", "mixed precision", "uint8 input")


def answers(model, samples):
    return [np.asarray(each, "float32") for each in tf.nest.flatten(model(samples, training=False))]


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("name", FLAT + OPENED)
def test_a_flat_copy_answers_as_the_model(name, kit):
    architectures.skip_without_half(name)
    model = architectures.build(name, KITS[kit])
    copy, _ = flatten.flat(model)
    assert isinstance(copy, tf.keras.Model) and flatten.is_flat(copy)
    assert not any(isinstance(layer, (tf.keras.Model, keras.Model)) for layer in copy.layers)
    x = architectures.samples(copy, 3)
    x = x[0] if len(x) == 1 else x
    for wanted, found in zip(answers(model, x), answers(copy, x), strict=True):
        np.testing.assert_allclose(
            found, wanted, atol=(3e-2 if name == "mixed precision" else 1e-4) * np.abs(wanted).max()
        )


@pytest.mark.parametrize("kit", KITS)
def test_names_of_layers_are_kept_and_none_occurs_twice(kit):
    kit = KITS[kit]
    inner = [architectures._small_cnn(kit, activation="relu", name=name) for name in ("left", "right")]
    for model in inner:
        model.layers[0]._name = model.layers[0].name
    inputs = kit.layers.Input((24, 24, 3))
    model = kit.Model(inputs, kit.layers.Add(name="sum")([each(inputs) for each in inner]))
    copy, _ = flatten.flat(model)
    names = [layer.name for layer in copy.layers]
    assert len(names) == len(set(names)) and "sum" in names


@pytest.mark.parametrize("kit", KITS)
def test_a_model_used_twice_shares_its_layers(kit):
    kit = KITS[kit]
    tower = kit.Sequential([kit.layers.Input((8,)), kit.layers.Dense(4, name="shared")])
    left, right = kit.layers.Input((8,)), kit.layers.Input((8,))
    model = kit.Model([left, right], kit.layers.Subtract()([tower(left), tower(right)]))
    copy, _ = flatten.flat(model)
    assert [layer.name for layer in copy.layers].count("shared") == 1 and copy.count_params() == tower.count_params()


def test_augmentation_is_left_out_and_said():
    copy, notes = flatten.flat(architectures.build("augmentation inside", tf.keras))
    assert not any(type(layer).__name__.startswith("Random") for layer in copy.layers)
    assert len(notes) == 2 and all("acts in training only: it is left out" in note for note in notes)


def test_mixed_precision_becomes_float32_and_is_said():
    architectures.skip_without_half("mixed precision")
    copy, notes = flatten.flat(architectures.build("mixed precision", tf.keras))
    assert {layer.compute_dtype for layer in copy.layers if layer.weights} == {"float32"}
    assert notes == ["Mixed precision (float16) became float32."]


def test_half_precision_that_fails_on_this_processor_is_refused_and_the_cure_works(monkeypatch):
    """As on processors with AVX512-FP16, where TensorFlow asks oneDNN for kernels that AVX2 does not have."""
    model = architectures.build("mixed precision", tf.keras)

    def fail(*_):
        raise tf.errors.AbortedError(None, None, "could not create a primitive descriptor")

    with monkeypatch.context() as patched, pytest.raises(StructureError, match="ONEDNN_MAX_CPU_ISA=DEFAULT before"):
        patched.setattr(flatten.tf.nest, "flatten", fail)
        flatten.difference(model, model)
    code = (
        "from helpers.networks import flatten; import tensorflow as tf; from tests import architectures; "
        "print(flatten.flat(architectures.build('mixed precision', tf.keras))[1])"
    )
    cured = {**os.environ, "ONEDNN_MAX_CPU_ISA": "DEFAULT"}
    done = subprocess.run([sys.executable, "-c", code], env=cured, capture_output=True, text=True, check=True)
    assert "became float32" in done.stdout


def test_preprocessing_becomes_a_layer():
    inputs = tf.keras.Input((8, 8, 3))
    x = tf.keras.applications.resnet50.preprocess_input(inputs)  # turns the channels round, takes the mean off
    y = tf.keras.applications.mobilenet_v2.preprocess_input(inputs)
    outputs = tf.keras.layers.Concatenate()([x, y, tf.nn.relu6(inputs), inputs * inputs])
    copy, _ = flatten.flat(tf.keras.Model(inputs, outputs))
    kinds = [type(layer).__name__ for layer in copy.layers]
    assert kinds.count("Rescaling") >= 2 and "ReLU" in kinds and "Multiply" in kinds


@pytest.mark.parametrize("kind", ["hard_silu", "hard_swish", "hard_sigmoid"])
@pytest.mark.parametrize("apart", [False, True])
def test_hard_activations_of_keras_3_become_layers_of_keras_2(kind, apart):
    inputs = keras.layers.Input((6,))
    if apart:
        x = keras.layers.Activation(kind, name="hard")(keras.layers.Dense(3, name="units")(inputs))
    else:
        x = keras.layers.Dense(3, activation=kind, name="units")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="answer")(x))
    model.get_layer("units").kernel.assign(10 * model.get_layer("units").kernel)
    copy, _ = flatten.flat(model)
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    np.testing.assert_allclose(copy(x), np.asarray(model(x)), atol=1e-5)


def test_what_answers_otherwise_is_refused_rather_than_copied():
    inputs = keras.layers.Input((6, 4))
    gates = keras.layers.LSTM(3, recurrent_activation="hard_sigmoid")  # another function in Keras 2
    model = keras.Model(inputs, gates(inputs))
    model.layers[1].cell.kernel.assign(10 * model.layers[1].cell.kernel)
    with pytest.raises(StructureError, match="would answer otherwise"):
        flatten.flat(model)


@pytest.mark.parametrize("kit", KITS)
@pytest.mark.parametrize("slope", [0.01, 0.3, 0.7])
def test_the_slope_of_a_leaky_activation_is_kept(kit, slope):
    kit = KITS[kit]
    inputs = kit.layers.Input((6,))
    leaky = kit.layers.LeakyReLU(slope)
    model = kit.Model(inputs, leaky(kit.layers.Dense(5, name="units")(inputs)))
    copy, _ = flatten.flat(model)
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    np.testing.assert_allclose(copy(x), np.asarray(model(x)), atol=1e-6)
    assert float(copy.layers[-1].alpha) == pytest.approx(slope)


def test_an_authors_activation_is_kept_in_keras_2_and_refused_in_keras_3():
    """It is nowhere to be found by its name; and it does nothing between 0 and 1."""
    for kit in KITS.values():

        def mine(x, kit=kit):
            return kit.activations.relu(x, max_value=2.0)

        inputs = kit.layers.Input((6,))
        model = kit.Model(inputs, kit.layers.Dense(6, activation=mine, name="units")(inputs))
        model.layers[1].set_weights([np.eye(6), np.zeros(6)])
        if kit is keras:
            with pytest.raises(StructureError, match=r"layer units \(Dense\) "):
                flatten.flat(model)
        else:
            copy, _ = flatten.flat(model)
            x = 9 * np.random.default_rng(0).random((50, 6), "float32")
            np.testing.assert_array_equal(copy(x), np.minimum(x, 2))


@keras.saving.register_keras_serializable(package="mine")
def capped(x):
    return keras.activations.relu(x, max_value=2.0)


def test_a_registered_activation_of_keras_3_is_not_taken_for_none():
    inputs = keras.layers.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(6, activation=capped, name="units")(inputs))
    with pytest.raises(StructureError, match=r"layer units \(Dense\) has its activation in Keras 3 alone"):
        flatten.flat(model)


@pytest.mark.parametrize(
    "kind, settings, told",
    [
        (
            "Resizing",
            {"height": 8, "width": 8, "pad_to_aspect_ratio": True},
            "has its pad_to_aspect_ratio in Keras 3 alone",
        ),
        ("Resizing", {"height": 8, "width": 8}, None),
        ("LayerNormalization", {"rms_scaling": True}, "has other weights in Keras 2"),
        ("LayerNormalization", {}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_setting_that_keras_2_lacks_is_refused(kind, settings, told):
    inputs = keras.layers.Input((4, 6, 3))
    model = keras.Model(inputs, getattr(keras.layers, kind)(name="it", **settings)(inputs))
    if told is None:
        flatten.flat(model)
    else:
        with pytest.raises(StructureError, match=rf"layer it \({kind}\) {told}"):
            flatten.flat(model)


def tokens(body):
    inputs = keras.layers.Input((6,), dtype="int32")
    return keras.Model(inputs, body(keras.layers.Embedding(9, 4, mask_zero=True)(inputs)))


def steps(body, value=0.0):
    inputs = keras.layers.Input((6, 4))
    return keras.Model(inputs, body(keras.layers.Masking(value)(inputs)))


MASKED = {
    "LSTM": lambda: tokens(lambda x: keras.layers.LSTM(5)(x)),
    "two": lambda: tokens(lambda x: keras.layers.LSTM(4)(keras.layers.LSTM(5, return_sequences=True)(x))),
    "both ways": lambda: tokens(lambda x: keras.layers.Bidirectional(keras.layers.GRU(5))(x)),
    "mean": lambda: tokens(lambda x: keras.layers.GlobalAveragePooling1D()(x)),
    "attention": lambda: tokens(lambda x: keras.layers.Flatten()(keras.layers.MultiHeadAttention(2, 2)(x, x))),
    "numbers": lambda: steps(lambda x: keras.layers.LSTM(5)(keras.layers.Dropout(0.1)(x))),
    "filled with -1": lambda: steps(lambda x: keras.layers.SimpleRNN(5)(x), -1.0),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.filterwarnings("ignore:Layer 'flatten")
def test_masks_of_keras_3_are_left_to_keras_2(name):
    keras.utils.set_random_seed(0)
    model, random = MASKED[name](), np.random.default_rng(0)
    numbers = random.normal(size=(50, 6, 4)).astype("float32")
    x = random.integers(1, 9, (50, 6)) if model.inputs[0].dtype == "int32" else numbers
    plain = np.asarray(model(x))
    x[:25, 3:] = -1 if name == "filled with -1" else 0
    copy, _ = flatten.flat(model)
    wanted = np.asarray(model(x))
    assert np.abs(wanted[:25] - plain[:25]).max() > 1e-3  # the mask counts
    np.testing.assert_allclose(copy(x), wanted, atol=1e-5)


def test_a_mask_that_is_read_otherwise_stays():
    inputs = keras.layers.Input((6,), dtype="int32")
    x = keras.layers.LSTM(5)(keras.layers.Embedding(9, 4, mask_zero=True)(inputs))
    there = keras.ops.cast(keras.ops.not_equal(inputs, np.zeros(6, "int32")), "float32")
    with pytest.raises(StructureError, match=r"operator not_equal.* of Keras 3 has no layer in Keras 2"):
        flatten.flat(keras.Model(inputs, [x, there]))


def test_a_difference_that_shows_beyond_one_is_seen():
    inputs = tf.keras.layers.Input((6,))
    one, other = (tf.keras.Model(inputs, tf.keras.layers.ReLU(cap)(inputs)) for cap in (6.0, 5.0))
    assert flatten.difference(one, other) == pytest.approx(1)
    assert flatten.difference(one, one) is None
    wild = tf.keras.Model(inputs, tf.math.log(inputs))  # of what is below 0
    assert flatten.difference(wild, wild) is None


def test_an_activation_that_keras_2_lacks_is_refused_by_its_layer():
    inputs = keras.layers.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="glu", name="gated")(inputs))
    with pytest.raises(StructureError, match=r"layer gated \(Dense\) cannot be had in Keras 2"):
        flatten.flat(model)


@pytest.mark.parametrize("name", ["subclassed", "custom layer"])
def test_what_has_no_graph_or_no_layer_in_keras_2_is_refused(name):
    with pytest.raises(StructureError, match=r"is not functional|is not known to Keras 2"):
        flatten.flat(architectures.build(name, keras))
