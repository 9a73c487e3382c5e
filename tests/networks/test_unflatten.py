"""A model of Keras 3 comes back narrow, as it was put together, and computes what its narrowed flat copy computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.base.errors import StructureError
from helpers.compress import channels
from helpers.networks import flatten, unflatten
from tests import architectures

layers = keras.layers


def plain_cnn():
    inputs = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="first", kernel_regularizer="l2")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3, strides=2, name="second")(x))
    x = layers.Dense(10, "hard_silu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="answer")(x))


def residual():
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(inputs)
    for number in range(2):
        y = layers.Conv2D(8, 3, padding="same", name=f"wide_{number}")(x)
        y = layers.Activation("relu")(layers.BatchNormalization(axis=3)(y))
        x = x + layers.Conv2D(6, 3, padding="same", name=f"back_{number}")(y)  # an operator, no layer
    return keras.Model(inputs, layers.Dense(4, name="answer")(layers.GlobalAveragePooling2D()(x)))


def depthwise():
    """Two entries a channel in the depthwise convolution, and a separable one, which the flat copy takes apart."""
    inputs = layers.Input((12, 12, 3))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, name="first")(inputs))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")(x)
    x = layers.Conv2D(8, 1, activation="relu", name="point")(x)
    x = layers.SeparableConv2D(10, 3, depth_multiplier=2, activation="relu", name="apart")(x)
    return keras.Model(inputs, layers.Dense(4, name="answer")(layers.GlobalMaxPooling2D()(x)))


def transfer():
    """A frozen backbone inside the model, augmentation before it, preprocessing by operators, a head of its own."""
    backbone = keras.Sequential(
        [
            layers.Input((20, 20, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(12, 3, activation="relu", name="features"),
        ],
        name="backbone",
    )
    backbone.trainable = False
    inputs = layers.Input((20, 20, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(layers.RandomFlip("horizontal")(inputs) * 255)
    x = layers.GlobalAveragePooling2D()(backbone(x, training=False))
    x = layers.Dropout(0.2)(layers.Dense(9, "gelu", name="conv")(x))  # a name that the backbone has as well
    return keras.Model(inputs, layers.Dense(4, name="answer")(x))


def encoder_and_head():
    """Two models inside the model: what the first puts out is narrowed too, and with it what the second takes."""
    encoder = keras.Sequential([layers.Input((12, 12, 3)), layers.Conv2D(8, 3), layers.Conv2D(10, 3)], name="encoder")
    inner = layers.Input((8, 8, 10), name="maps")
    x = layers.Conv2D(6, 1, activation="relu", name="mix")(layers.BatchNormalization()(inner))
    head = keras.Model(inner, layers.Dense(4, name="answer")(layers.GlobalAveragePooling2D()(x)), name="head")
    inputs = layers.Input((12, 12, 3), name="picture")
    return keras.Model(inputs, head(layers.ReLU()(encoder(inputs))), name="whole")


def built(build):
    """The model with weights of its own, those of norms included."""
    keras.utils.set_random_seed(0)
    model, random = build(), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight.numpy() + random.uniform(0, 0.3, weight.shape))
    return model


def narrowed(model, ratio=0.5):
    twin = channels.prune(flatten.flat(model)[0], ratio)
    return unflatten.narrowed(model, twin), twin


def assert_same(model, twin):
    x = architectures.samples(twin, 5)
    x = x[0] if len(x) == 1 else x
    for found, wanted in zip(*(tf.nest.flatten(each(x, training=False)) for each in (model, twin)), strict=True):
        np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [plain_cnn, residual, depthwise, transfer, encoder_and_head])
def test_the_narrow_model_of_keras_3_answers_as_its_flat_copy(build, tmp_path):
    model = built(build)
    before = [weight.numpy() for weight in model.weights]
    narrow, twin = narrowed(model)
    narrow.save(tmp_path / "narrow.keras")
    read = keras.models.load_model(tmp_path / "narrow.keras")
    assert_same(read, twin)
    assert np.abs(np.asarray(read(architectures.samples(twin, 5)[0]))).max() > 0.1
    held = sum(np.size(weight) for layer in twin.layers for weight in layer.get_weights())
    assert read.count_params() == held < 0.7 * model.count_params()
    assert [layer.name for layer in read.layers] == [layer.name for layer in model.layers]
    for weight, former in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, former)


def test_widths_of_layers_that_the_copy_takes_apart():
    narrow, _ = narrowed(built(depthwise))
    shapes = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in narrow.layers}
    assert shapes["deep"] == [(3, 3, 3, 2), (6,)]
    assert shapes["apart"] == [(3, 3, 4, 2), (1, 1, 8, 5), (5,)]
    assert narrow.get_layer("apart").filters == 5 and narrow.get_layer("answer").units == 4


def test_what_the_copy_leaves_out_or_opens_is_still_there():
    model = built(transfer)
    narrow, _ = narrowed(model)
    backbone = narrow.get_layer("backbone")
    assert isinstance(backbone, keras.Sequential) and backbone.get_layer("features").filters == 6
    assert narrow.get_layer("conv").units == 5 and not backbone.trainable_variables
    assert len(narrow.trainable_variables) == len(model.trainable_variables) == 4
    assert "RandomFlip" in {type(layer).__name__ for layer in narrow.layers}
    assert narrowed(built(plain_cnn))[0].get_layer("first").kernel_regularizer is not None


@pytest.mark.parametrize("name", ["two heads", "U-Net", "ViT", "mixed precision", "uint8 input"])
def test_architectures_that_people_bring(name):
    architectures.skip_without_half(name)
    model = architectures.build(name, keras)
    narrow, twin = narrowed(model)
    assert narrow.count_params() == twin.count_params() < model.count_params()
    assert {layer.compute_dtype for layer in narrow.layers} == {layer.compute_dtype for layer in model.layers}
    if name != "mixed precision":
        assert_same(narrow, twin)


def test_the_input_of_a_model_inside_is_narrowed_with_what_feeds_it():
    narrow, _ = narrowed(built(encoder_and_head))
    assert narrow.get_layer("encoder").output.shape == (None, 8, 8, 5)
    assert narrow.get_layer("head").get_layer("maps").batch_shape == (None, 8, 8, 5)
    assert narrow.get_layer("picture").batch_shape == (None, 12, 12, 3)


def test_a_recurrent_layer_stays_rolled_up():
    inputs = layers.Input((8, 5))
    x = layers.Conv1D(6, 3, activation="relu", name="before")(inputs)
    x = layers.Conv1D(6, 1, name="last")(x)
    x = layers.Dense(7, "relu", name="after")(layers.LSTM(4, name="memory")(x))
    narrow, twin = narrowed(built(lambda: keras.Model(inputs, layers.Dense(3)(x))))
    assert twin.get_layer("memory").unroll and not narrow.get_layer("memory").unroll
    assert narrow.get_layer("before").filters == 3
    assert_same(narrow, twin)


def test_named_inputs_and_outputs_keep_their_names():
    given = {"late": layers.Input((6,), name="late"), "early": layers.Input((6,), name="early")}
    x = layers.Dense(8, "relu", name="hidden")(layers.Subtract()([given["late"], given["early"]]))
    model = keras.Model(given, {"second": layers.Dense(2, name="b")(x), "first": layers.Dense(3, name="a")(x)})
    narrow, _ = narrowed(model)
    x = dict(zip(("late", "early"), np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32"), strict=True))
    found, wanted = narrow(x), model(x)
    assert {name: each.shape for name, each in found.items()} == {name: each.shape for name, each in wanted.items()}
    assert narrow.get_layer("hidden").units == 4


def test_a_copy_that_computes_something_else_is_refused():
    model = built(residual)
    twin = channels.prune(flatten.flat(model)[0], 0.5)

    def otherwise(layer):
        config = layer.get_config()
        return type(layer).from_config(config | ({"activation": "tanh"} if layer.name == "answer" else {}))

    other = tf.keras.models.clone_model(twin, clone_function=otherwise)
    other.set_weights(twin.get_weights())
    with pytest.raises(StructureError, match=r"Keras 3 would make \w+ answer otherwise \(by"):
        unflatten.narrowed(model, other)
    assert_same(unflatten.narrowed(model, twin), twin)


def test_weights_that_do_not_fit_are_refused():
    model = built(plain_cnn)
    other = channels.prune(flatten.flat(built(residual))[0], 0.5)
    with pytest.raises(StructureError, match=r"Keras 3 cannot build functional\w* anew \(No such layer: "):
        unflatten.narrowed(model, other)
