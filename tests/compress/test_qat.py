"""The calibrated start of quantization-aware training."""

import os
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from helpers.base import repository, runtime_env
from helpers.base.errors import InputError
from helpers.compress import affine, equalization, qat, quantize, requantize
from helpers.networks import data, flatten, models, training
from helpers.tflite import litert


def residual_network():
    layers = tf.keras.layers
    inputs = layers.Input((16, 16, 3))
    x = layers.ReLU(6.0, name="stem_relu")(
        layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs))
    )
    y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
    x = layers.GlobalAveragePooling2D()(layers.Add(name="sum")([x, y]))
    return tf.keras.Model(inputs, layers.Dense(5, name="logits")(x))


def range_of(model, layer, name):
    weights = {weight.name.split("/")[-1]: weight for weight in model.get_layer(layer).weights}
    return float(weights[f"{name}_min:0"]), float(weights[f"{name}_max:0"])


def test_mlp_starts_where_ptq_ends(trained_mlp, digits):
    x, y = data.unit_rows(digits.x_test), digits.y_test
    calibration = data.unit_rows(digits.x_train[::40])
    qat_model = tfmot.quantization.keras.quantize_model(trained_mlp)
    before = models.correct(qat_model, x, y).mean()
    qat.start_calibrated(qat_model, trained_mlp, calibration)
    ptq = litert.predict(quantize.convert(trained_mlp, "int8", calibration), x).argmax(1)
    ours = litert.predict(quantize.convert(qat_model, "qat"), x).argmax(1)
    assert before < 0.5 < 0.8 < (ours == y).mean()
    assert abs((ptq == y).mean() - (ours == y).mean()) <= 0.01
    assert (models.correct(qat_model, x, y) == (ours == y)).mean() > 0.99


def test_ranges_are_those_of_the_float_model():
    runtime_env.seed_everything(0)
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    qat_model = qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x, batch=10)
    for layer in ("stem_relu", "sum"):
        output = tf.keras.Model(model.input, model.get_layer(layer).output)(x).numpy()
        low, high = range_of(qat_model, f"quant_{layer}", "output")
        assert high == pytest.approx(output.max(), abs=1e-5) and low == pytest.approx(min(0, output.min()), abs=1e-5)
    assert range_of(qat_model, "quant_logits", "post_activation")[1] == pytest.approx(model(x).numpy().max(), abs=1e-5)
    entry = next(layer.name for layer in qat_model.layers if layer.name.startswith("quantize_layer"))
    assert range_of(qat_model, entry, entry) == pytest.approx((x.min(), x.max()))


def three_times(layer):
    def chain(x):
        for _ in range(3):
            x = tf.keras.layers.ReLU()(layer(x))
        return x

    return chain


def twice_side_by_side(layer):
    return lambda x: tf.keras.layers.Concatenate()([layer(x), layer(tf.keras.layers.AveragePooling2D(2, 1, "same")(x))])


def once_before_a_relu_and_once_into_a_sum(layer):
    def block(x):
        first = layer(x)
        return tf.keras.layers.Add()([first, layer(tf.keras.layers.ReLU()(first))])

    return block


def a_relu_behind_two_convolutions(layer):
    relu = tf.keras.layers.ReLU()
    return lambda x: relu(tf.keras.layers.Conv2D(3, 3, padding="same")(relu(layer(x))))


@pytest.mark.parametrize(
    "kind, body",
    [
        ("convolution", three_times),
        ("fused", twice_side_by_side),
        ("depthwise", once_before_a_relu_and_once_into_a_sum),
        ("convolution", once_before_a_relu_and_once_into_a_sum),
        ("depthwise", a_relu_behind_two_convolutions),
    ],
)
def test_every_use_of_a_shared_layer_counts(body, kind):
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    shared = {
        "convolution": layers.Conv2D(3, 3, padding="same"),
        "fused": layers.Conv2D(3, 3, padding="same", activation="relu"),
        "depthwise": layers.DepthwiseConv2D(3, padding="same"),
    }[kind]
    inputs = layers.Input((8, 8, 3))
    model = tf.keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(body(shared)(inputs))))
    weights = shared.get_weights()
    shared.set_weights([3 * weights[0], *weights[1:]])  # so that every use has a wider range than the one before
    x = np.random.default_rng(0).normal(size=(200, 8, 8, 3)).astype("float32")
    aware = qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
    exact = model.predict(x, verbose=0)
    ptq = affine.sqnr(exact, litert.predict(quantize.convert(model, "int8", x), x))
    one_range_for_all = 8  # dB that a single range may cost, where PTQ has one for every use; clipping costs 30
    assert affine.sqnr(exact, aware.predict(x, verbose=0)) > ptq - one_range_for_all
    assert affine.sqnr(exact, litert.predict(quantize.convert(aware, "qat"), x)) > ptq - one_range_for_all


def test_a_layer_that_another_model_uses_too_is_calibrated_by_this_one():
    layers = tf.keras.layers
    inputs = layers.Input((8,))
    dense = layers.Dense(4, activation="relu")
    model = tf.keras.Model(inputs, layers.Dense(3)(dense(inputs)))
    dense(100 * inputs)  # elsewhere
    x = np.random.default_rng(0).normal(size=(50, 8)).astype("float32")
    aware = qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
    assert range_of(aware, f"quant_{dense.name}", "post_activation")[1] == pytest.approx(dense(x).numpy().max())


def test_weights_are_unchanged_and_it_converts_to_int8():
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")
    qat_model = qat.hold_batch_statistics(
        qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
    )
    for weight in model.get_layer("logits").weights:
        twin = next(
            w
            for w in qat_model.get_layer("quant_logits").weights
            if w.name.split("/")[-1] == weight.name.split("/")[-1]
        )
        np.testing.assert_array_equal(weight, twin)
    operators = litert.operators(quantize.convert(qat_model, "qat"))
    heavy = operators[operators.op.isin(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])]
    assert len(heavy) == 4 and (heavy.weights == "int8").all()


def test_held_batch_norms_keep_their_statistics():
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")
    for held in (True, False):
        qat_model = qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
        if held:
            qat.hold_batch_statistics(qat_model)
        models.compile_classifier(qat_model)
        before = [w.numpy() for w in qat_model.weights if "moving_mean" in w.name]
        qat_model.train_on_batch(x, np.zeros(32))
        after = [w.numpy() for w in qat_model.weights if "moving_mean" in w.name]
        assert held == all((a == b).all() for a, b in zip(before, after, strict=True))


def test_bad_calibration_is_refused(trained_mlp):
    qat_model = tfmot.quantization.keras.quantize_model(trained_mlp)
    with pytest.raises(ValueError, match="calibration is empty"):
        qat.start_calibrated(qat_model, trained_mlp, np.zeros((0, 784)))
    with pytest.raises(ValueError, match=r"calibration has shape \(3, 5\)"):
        qat.start_calibrated(qat_model, trained_mlp, np.zeros((3, 5)))


@pytest.mark.parametrize("end, apart", [("softmax", False), ("softmax", True), ("sigmoid", True), ("tanh", False)])
def test_a_range_before_an_activation_is_that_of_its_input(end, apart):
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    inputs = layers.Input((8,))
    x = layers.Dense(6, "relu")(inputs)
    answer = layers.Dense(4, name="answer")(x) if apart else layers.Dense(4, end, name="answer")(x)
    model = tf.keras.Model(inputs, layers.Activation(end, name="end")(answer) if apart else answer)
    x = np.random.default_rng(0).normal(size=(100, 8)).astype("float32")
    aware = qat.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
    logits = tf.keras.Model(inputs, model.get_layer("answer").input)(x) @ model.get_layer("answer").kernel
    if not apart:
        assert range_of(aware, "quant_answer", "pre_activation")[1] == pytest.approx(logits.numpy().max(), rel=1e-5)
    ptq = affine.sqnr(model(x).numpy(), litert.predict(quantize.convert(model, "int8", x), x))
    assert affine.sqnr(model(x).numpy(), litert.predict(quantize.convert(aware, "qat"), x)) > ptq - 3


# A layer that tfmot does not know is named u0 or u1.
UNKNOWN = {
    "norms": lambda layers, x: layers.BatchNormalization(name="u1")(layers.LayerNormalization(name="u0")(x)),
    "rescaling, transposed": lambda layers, x: layers.Conv2DTranspose(6, 3, padding="same")(
        layers.Rescaling(2.0, 0.5, name="u0")(x)
    ),
    "mish": lambda layers, x: layers.Activation("mish", name="u0")(x),
    "separable": lambda layers, x: layers.SeparableConv2D(6, 3, padding="same")(x),
    "attention": lambda layers, x: layers.MultiHeadAttention(2, 4, name="u0")(x, x),
    "cross attention": lambda layers, x: layers.MultiHeadAttention(2, 4, name="u0")(x, layers.AveragePooling2D()(x)),
}


def unknown_layers(layers, kind):
    inputs = layers.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(6, 3, padding="same", name="first")(inputs))
    x = UNKNOWN[kind](layers, x)
    x = layers.Conv2D(6, 3, activation="elu" if kind == "mish" else "relu", name="second")(x)
    return tf.keras.Model(inputs, layers.Dense(4, name="answer")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_tfmot_does_not_know_stays_in_float_and_all_else_trains(kind):
    runtime_env.seed_everything(0)
    model, _ = flatten.flat(unknown_layers(tf.keras.layers, kind))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    aware = qat.start_calibrated(qat.quantization_aware(model), model, x)
    exact = model.predict(x, verbose=0)
    assert affine.sqnr(exact, aware.predict(x, verbose=0)) > 20
    assert affine.sqnr(exact, litert.predict(quantize.convert(aware, "qat"), x)) > 20
    in_float = {layer.name for layer in model.layers[1:] if qat.in_float(layer)}
    unknown = {layer.name for layer in model.layers if layer.name in ("u0", "u1")}
    assert in_float == unknown | ({"second"} if kind == "mish" else set())  # whose activation, elu, is unknown too
    before = [weight.numpy() for weight in aware.trainable_weights]
    models.compile_classifier(aware).fit(x, np.arange(64) % 4, verbose=0)
    assert all((old != new.numpy()).any() for old, new in zip(before, aware.trainable_weights, strict=True))


class Halved(tf.keras.layers.Layer):
    def call(self, x):
        return x / 2


def test_a_layer_of_the_authors_own_stays_in_float():
    inputs = tf.keras.layers.Input((8,))
    x = Halved()(tf.keras.layers.Dense(6, "relu")(inputs))
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    aware = qat.start_calibrated(qat.quantization_aware(model), model, x)
    assert affine.sqnr(model.predict(x, verbose=0), aware.predict(x, verbose=0)) > 25


def test_every_input_of_several_has_its_range():
    layers = tf.keras.layers
    left, right = layers.Input((4,), name="left"), layers.Input((6,), name="right")
    joined = layers.Concatenate()([layers.Dense(3, name="a")(left), layers.Dense(3, name="b")(right)])
    model = tf.keras.Model([left, right], layers.Dense(2, name="answer")(joined))
    random = np.random.default_rng(0)
    x = [random.normal(size=(30, 4)).astype("float32"), 7 * random.normal(size=(30, 6)).astype("float32")]
    aware = qat.start_calibrated(qat.quantization_aware(model), model, x)
    found = sorted(
        range_of(aware, layer.name, layer.name)[1] for layer in aware.layers if layer.name.startswith("quantize_layer")
    )
    assert found == pytest.approx([x[0].max(), x[1].max()])
    assert affine.sqnr(model.predict(x, verbose=0), aware.predict(x, verbose=0)) > 25


@pytest.mark.parametrize("order", ["apb", "pab", "ba", "abpa"])
def test_what_is_joined_is_joined_in_its_order(order):
    """tfmot's own transformation puts the inputs in the order of the model's list of layers."""
    layers = tf.keras.layers
    inputs = layers.Input((8, 8, 3))
    made = {
        "a": layers.ReLU(name="relu_a")(layers.Conv2D(4, 3, strides=2, name="a")(inputs)),
        "b": layers.ReLU(name="relu_b")(layers.Conv2D(4, 3, strides=2, name="b")(inputs)),
        "p": layers.MaxPooling2D(3, 2, name="p")(inputs),
    }
    model = tf.keras.Model(inputs, layers.Concatenate(name="joined")([made[name] for name in order]))
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    aware = qat.start_calibrated(qat.quantization_aware(model), model, x)
    assert affine.sqnr(model(x).numpy(), aware(x).numpy()) > 35


def test_whole_numbers_as_input_are_refused():
    inputs = tf.keras.layers.Input((4,), dtype="int32")
    model = tf.keras.Model(
        inputs, tf.keras.layers.Dense(2)(tf.keras.layers.Flatten()(tf.keras.layers.Embedding(9, 3)(inputs)))
    )
    with pytest.raises(ValueError, match="takes int32: tfmot quantizes every input"):
        qat.quantization_aware(model)


LAYERS = tf.keras.layers
REFUSED = {  # told -> (what tfmot cannot wrap, what the refusal advises); each of one feature map
    r"tf.__operators__.add\w*, a TFOpLambda": (  # Keras counts its layers through the process
        lambda x: x + LAYERS.Conv2D(3, 1)(x),
        lambda x: LAYERS.Add()([x, LAYERS.Conv2D(3, 1)(x)]),
    ),
    "tf.nn.silu, a TFOpLambda": (tf.nn.silu, LAYERS.Activation("swish")),
    "a Lambda": (LAYERS.Lambda(lambda x: 2 * x), LAYERS.Rescaling(2)),
    "a SeparableConv2D": (
        LAYERS.SeparableConv2D(4, 3),
        lambda x: LAYERS.Conv2D(4, 1)(LAYERS.DepthwiseConv2D(3)(x)),
    ),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_tfmot_cannot_wrap_is_refused_and_the_cure_works(told):
    x, models = LAYERS.Input((8, 8, 3)), []
    for part in REFUSED[told]:
        models.append(tf.keras.Model(x, LAYERS.Dense(2)(LAYERS.Flatten()(part(x)))))
    with pytest.raises(ValueError, match=told):
        qat.quantization_aware(models[0])
    samples = np.random.default_rng(0).normal(size=(30, 8, 8, 3)).astype("float32")
    aware = qat.start_calibrated(qat.quantization_aware(models[1]), models[1], samples)
    exact = models[1](samples).numpy()
    assert np.abs(aware(samples, training=False) - exact).max() < 0.05 * np.ptp(exact)


def test_a_layer_that_is_split_is_told_when_calibrated():
    model = tf.keras.Sequential(
        [LAYERS.Input((8, 8, 3)), LAYERS.SeparableConv2D(4, 3), LAYERS.Flatten(), LAYERS.Dense(2)]
    )
    with qat.scope():
        aware = tfmot.quantization.keras.quantize_apply(
            tfmot.quantization.keras.quantize_annotate_model(model), qat.PerChannelScheme()
        )
    with pytest.raises(ValueError, match="DepthwiseConv2D and a Conv2D"):
        qat.start_calibrated(aware, model, np.zeros((9, 8, 8, 3), "float32"))


def test_drawing_calibration_samples():
    pool = np.arange(10)
    drawn = training.draw_calibration(pool, 4, seed=1)
    assert len(set(drawn)) == 4 and (drawn == training.draw_calibration(pool, 4, seed=1)).all()
    for samples in (0, 11):
        with pytest.raises(InputError, match=rf"calibration_samples={samples} must lie in \[1, 10\]"):
            training.draw_calibration(pool, samples, seed=0)


def test_depthwise_channels_each_have_their_range():
    """Channels 1,000-fold apart: tfmot's single range kills the small ones, ours keeps all (model-optimization#808)."""
    inputs = tf.keras.layers.Input((8, 8, 4))
    x = tf.keras.layers.ReLU(6.0)(
        tf.keras.layers.BatchNormalization()(tf.keras.layers.DepthwiseConv2D(3, use_bias=False, name="dw")(inputs))
    )
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(2)(tf.keras.layers.GlobalAveragePooling2D()(x)))
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 1)) * np.array([10, 1, 0.1, 0.01])[:, None]
    model.get_layer("dw").depthwise_kernel.assign(kernel)
    calibration = np.random.default_rng(1).normal(size=(20, 8, 8, 4)).astype("float32")
    smallest = {}
    for name, make in {"tfmot": tfmot.quantization.keras.quantize_model, "ours": qat.quantization_aware}.items():
        qat_model = qat.start_calibrated(make(model), model, calibration)
        layer = qat_model.get_layer("quant_dw")
        _, quantizer = layer.quantize_config.get_weights_and_quantizers(layer.layer)[0]
        ranges = {
            end: next(w for w in layer.weights if w.name.endswith(f"depthwise_kernel_{end}:0"))
            for end in ("min", "max")
        }
        faked = quantizer(
            tf.constant(kernel, tf.float32), False, weights={"min_var": ranges["min"], "max_var": ranges["max"]}
        )
        smallest[name] = len(np.unique(faked.numpy()[:, :, 3]))
    assert smallest["tfmot"] == 1 and smallest["ours"] >= 7


def test_per_channel_model_trains_converts_and_reloads(tmp_path):
    runtime_env.seed_everything(0)
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")
    qat_model = qat.start_calibrated(qat.quantization_aware(model), model, x)
    models.compile_classifier(qat_model).train_on_batch(x, np.zeros(32))
    file = quantize.convert(qat_model, "qat")
    outputs = litert.predict(file, x)
    assert np.abs(outputs - qat_model(x, training=False).numpy()).max() < 0.05 * np.abs(outputs).max()
    qat_model.save(tmp_path / "qat.h5")
    with qat.scope():
        reloaded = tf.keras.models.load_model(tmp_path / "qat.h5")
    np.testing.assert_array_equal(reloaded(x, training=False), qat_model(x, training=False))


def test_a_sequential_model_keeps_its_order_and_is_saved_when_let_go(tmp_path):
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((12, 12, 1))])
    for convolution in (layers.Conv2D(4, 3), layers.DepthwiseConv2D(3), layers.Conv2D(6, 1)):
        for layer in (convolution, layers.BatchNormalization(), layers.ReLU(6.0)):
            model.add(layer)
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    x = np.random.default_rng(0).random((32, 12, 12, 1), dtype=np.float32)
    aware = qat.start_calibrated(qat.quantization_aware(model), model, x)
    exact = model(x, training=False).numpy()
    assert np.abs(aware(x, training=False) - exact).max() < 0.05 * np.abs(exact).max()

    models.compile_classifier(qat.hold_batch_statistics(aware)).train_on_batch(x, np.zeros(32))
    with pytest.raises(ValueError, match="name already exists"):
        aware.save(tmp_path / "qat.h5")
    qat.hold_batch_statistics(aware, held=False).save(tmp_path / "qat.h5")
    with qat.scope():
        reloaded = tf.keras.models.load_model(tmp_path / "qat.h5")
    np.testing.assert_array_equal(reloaded(x, training=False), aware(x, training=False))


# --- per-tensor, and four bits


@pytest.fixture(scope="module")
def residual():
    """A small network with batch norms that have seen something, the same folded, and samples."""
    runtime_env.seed_everything(0)
    model = residual_network()
    samples = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    models.compile_classifier(model).fit(samples, np.arange(64) % 5, 16, epochs=2, verbose=0)
    return model, equalization.fold_batch_norms(model), samples


def test_per_tensor_training_gives_a_file_with_one_scale_for_each_kernel(residual):
    _, folded, samples = residual
    qat_model = qat.start_calibrated(qat.quantization_aware_per_tensor(folded), folded, samples)
    file = quantize.convert(qat_model, "qat")
    assert litert.per_channel(file).to_dict() == {
        "CONV_2D": "0 of 2",
        "DEPTHWISE_CONV_2D": "0 of 1",
        "FULLY_CONNECTED": "0 of 1",
    }
    ptq = quantize.convert(folded, "int8", samples, per_channel=False)
    for trained, converted in zip(litert.kernels_in(file).integers, litert.kernels_in(ptq).integers, strict=True):
        assert np.abs(trained.astype(int) - converted).max() <= 1
    in_keras = qat_model.predict(samples, verbose=0)
    assert np.abs(in_keras - litert.predict(file, samples)).max() < 0.1 * np.abs(in_keras).max()


def test_tfmot_s_own_per_tensor_scheme_still_leaves_kernels_out(residual):
    """When this fails, tfmot has mended it, and `quantization_aware_per_tensor` can go."""
    model, folded, _ = residual
    scheme = tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True)
    for network, wrong in ((model, "float32"), (folded, "per-channel")):
        with tfmot.quantization.keras.quantize_scope():
            qat_model = tfmot.quantization.keras.quantize_apply(
                tfmot.quantization.keras.quantize_annotate_model(network), scheme
            )
        file = quantize.convert(qat_model, "qat")
        if wrong == "float32":
            assert (litert.operators(file).weights == "float32").sum() == 3
        else:
            assert litert.per_channel(file)["DEPTHWISE_CONV_2D"] == "1 of 1"


def test_per_tensor_training_wants_batch_norms_folded(residual):
    with pytest.raises(ValueError, match="is a batch norm"):
        qat.quantization_aware_per_tensor(residual[0])


def test_four_bit_training_rounds_as_the_file_does(residual):
    model, _, samples = residual
    qat_model = qat.start_calibrated(qat.quantization_aware(model, kernel_bits=4), model, samples)
    kernel = {weight.name.split("/")[-1]: weight.numpy() for weight in qat_model.get_layer("quant_logits").weights}
    assert kernel["kernel_max:0"].shape == (5,)  # a range for every output
    float_file = quantize.convert(qat.without_fake_quantization(qat_model, model))
    assert float_file == quantize.convert(model)  # nothing was trained yet
    four = {"*": requantize.Format(4, None)}
    file = requantize.apply(float_file, four)
    exact, in_file, in_keras = (
        model.predict(samples, verbose=0),
        litert.predict(file, samples),
        qat_model.predict(samples, verbose=0),
    )
    # Activations have 8 bits in Keras and 32 in the file: they agree with each other far better than with float32.
    assert np.abs(in_keras - in_file).mean() < 0.5 * np.abs(exact - in_file).mean()


def test_trained_weights_come_back_as_a_float_model(residual):
    model, _, samples = residual
    qat_model = qat.start_calibrated(qat.quantization_aware(model, kernel_bits=4), model, samples)
    models.compile_classifier(qat.hold_batch_statistics(qat_model)).fit(
        samples, np.arange(64) % 5, 16, epochs=1, verbose=0
    )
    trained = qat.without_fake_quantization(qat_model, model)
    assert [layer.name for layer in trained.layers] == [layer.name for layer in model.layers]
    kernel = next(weight for weight in qat_model.get_layer("quant_logits").weights if weight.name.endswith("kernel:0"))
    np.testing.assert_array_equal(trained.get_layer("logits").get_weights()[0], kernel.numpy())
    assert (trained.get_layer("logits").get_weights()[0] != model.get_layer("logits").get_weights()[0]).any()


def has_range(model, layer, name):
    wrapper = next(found for found in model.layers if found.name.removeprefix("quant_") == layer)
    return any(f"{name}_max" in weight.name for weight in wrapper.weights)


def test_kept_layers_are_trained_in_float_amid_int8_activations():
    runtime_env.seed_everything(0)
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    convolutions = [layer.name for layer in model.layers if type(layer) is tf.keras.layers.Conv2D]
    norm = [layer.name for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)][-1]
    plain, kept = qat.quantization_aware(model), qat.quantization_aware(model, keep_float=convolutions)
    for name in convolutions:
        assert has_range(plain, name, "kernel") and not has_range(kept, name, "kernel")
    for name in ("stem_relu", norm, "sum"):
        assert has_range(kept, name, "output")
    qat.start_calibrated(kept, model, x)
    assert np.abs(kept(x) - model(x)).max() < np.abs(qat.start_calibrated(plain, model, x)(x) - model(x)).max()
    twin = qat.without_fake_quantization(kept, model)
    np.testing.assert_array_equal(twin(x), model(x))


def test_layers_to_keep_must_exist(trained_mlp):
    with pytest.raises(ValueError, match="'hidden_9'"):
        qat.quantization_aware(trained_mlp, keep_float=["hidden_9"])


def test_a_kept_dense_layer_leaves_its_neighbours_quantized(trained_mlp):
    kept = qat.quantization_aware(trained_mlp, keep_float=["hidden_2"])
    assert has_range(kept, "hidden_1", "kernel") and has_range(kept, "logits", "kernel")
    assert not has_range(kept, "hidden_2", "kernel") and has_range(kept, "hidden_2", "output")


BEFORE = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import sys
import numpy as np
import tensorflow as tf

layers = tf.keras.layers
model = tf.keras.Sequential([layers.Input((16, 16, 3))])
for width in (8, 4):
    for layer in (layers.Conv2D(width, 1), layers.DepthwiseConv2D(3), layers.BatchNormalization(), layers.ReLU()):
        model.add(layer)
model.add(layers.Flatten())
model.add(layers.Dense(3))
calibration = x_train = np.random.default_rng(0).normal(size=(20, 16, 16, 3)).astype("float32")
y_train, your_loss = np.zeros(20), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
"""
AFTER = """
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter(model_content=int8_file).get_signature_runner()
(given,), (made,) = runner.get_input_details(), runner.get_output_details()
with qat.scope():
    reloaded = tf.keras.models.load_model("aware.h5")
print("lab:", sorted(name for name in sys.modules if name.startswith("helpers")))
print("difference:", np.abs(runner(**{given: x_train})[made] - reloaded(x_train, training=False)).max())
"""


def told_in_notebook_04():
    """The code that its section "In a project of your own" prints."""
    cells = nbformat.read(repository.NOTEBOOKS / "04_per_channel_quantization.ipynb", as_version=4).cells
    [section] = [cell.source for cell in cells if "### In a project of your own" in cell.source]
    return section.split("```python\n")[1].split("```")[0]


def test_the_file_runs_in_a_project_without_the_lab(tmp_path):
    shutil.copy(qat.__file__, tmp_path)
    (tmp_path / "project.py").write_text(BEFORE + told_in_notebook_04() + AFTER)
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run([sys.executable, "project.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "lab: []" in run.stdout, run.stderr
    assert float(run.stdout.split("difference:")[1]) < 0.1


def test_a_transposed_convolution_of_4_bits_has_a_range_for_each_output_channel():
    source = tf.keras.layers.Input((8, 8, 3))
    model = tf.keras.Model(source, tf.keras.layers.Conv2DTranspose(6, 3, name="up")(source))
    aware = qat.quantization_aware(model, 4)
    layer = aware.get_layer("quant_up")
    assert [each.shape for each in layer.weights if "kernel_m" in each.name] == [(6,), (6,)]
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    qat.start_calibrated(aware, model, x)
    kernel = model.get_layer("up").get_weights()[0]
    steps = np.abs(kernel).max((0, 1, 3), keepdims=True) / 7
    rounded = tf.keras.models.clone_model(model)
    rounded.set_weights([np.round(kernel / steps) * steps, *model.get_layer("up").get_weights()[1:]])
    assert affine.sqnr(rounded(x).numpy(), aware(x).numpy()) > 30 > affine.sqnr(model(x).numpy(), aware(x).numpy())
    config = layer.quantize_config.get_config()
    assert config["transposed"] and qat.KernelConfig.from_config(config).get_config() == config


def test_weights_of_one_name_in_a_layer_are_not_mixed_up():
    source = tf.keras.layers.Input((5, 4))
    model = tf.keras.Model(source, tf.keras.layers.Bidirectional(tf.keras.layers.LSTM(3))(source))
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    for trained in (model, qat.quantization_aware(model)):
        np.testing.assert_allclose(qat.without_fake_quantization(trained, model)(x), model(x), atol=1e-6)


def test_sizes_that_a_model_leaves_open_are_those_of_the_samples():
    layers = tf.keras.layers
    source = layers.Input((None, None, 3))
    model = tf.keras.Model(source, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(source))))
    aware, x = qat.quantization_aware(model), np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    assert affine.sqnr(model(x).numpy(), qat.start_calibrated(aware, model, x)(x).numpy()) > 20
    with pytest.raises(ValueError, match="this model takes"):
        qat.start_calibrated(aware, model, x[..., :2])
