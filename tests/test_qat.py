"""The calibrated start of quantization-aware training."""

import ast
import inspect
import types

import nbformat
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from helpers import data, equalization, files, litert, models, quantize, requantize, runtime_env


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k")


@pytest.fixture(scope="module")
def mlp(digits):
    runtime_env.seed_everything(0)
    model = models.compile_classifier(models.mlp())
    model.fit(data.unit_rows(digits.x_train), digits.y_train, 128, epochs=3, verbose=0)
    return model


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


def test_mlp_starts_where_ptq_ends(mlp, digits):
    x, y = data.unit_rows(digits.x_test), digits.y_test
    calibration = data.unit_rows(digits.x_train[::40])
    qat = tfmot.quantization.keras.quantize_model(mlp)
    before = models.correct(qat, x, y).mean()
    quantize.start_calibrated(qat, mlp, calibration)
    ptq = litert.predict(quantize.convert(mlp, "int8", calibration), x).argmax(1)
    ours = litert.predict(quantize.convert(qat, "qat"), x).argmax(1)
    assert before < 0.5 < 0.8 < (ours == y).mean()
    assert abs((ptq == y).mean() - (ours == y).mean()) <= 0.01
    assert (models.correct(qat, x, y) == (ours == y)).mean() > 0.99


def test_ranges_are_those_of_the_float_model():
    runtime_env.seed_everything(0)
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    qat = quantize.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x, batch=10)
    for layer in ("stem_relu", "sum"):
        output = tf.keras.Model(model.input, model.get_layer(layer).output)(x).numpy()
        low, high = range_of(qat, f"quant_{layer}", "output")
        assert high == pytest.approx(output.max(), abs=1e-5) and low == pytest.approx(min(0, output.min()), abs=1e-5)
    assert range_of(qat, "quant_logits", "post_activation")[1] == pytest.approx(model(x).numpy().max(), abs=1e-5)
    entry = next(layer.name for layer in qat.layers if layer.name.startswith("quantize_layer"))
    assert range_of(qat, entry, entry) == pytest.approx((x.min(), x.max()))


def test_weights_are_unchanged_and_it_converts_to_int8():
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")
    qat = quantize.hold_batch_norms(quantize.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x))
    for weight in model.get_layer("logits").weights:
        twin = next(
            w for w in qat.get_layer("quant_logits").weights if w.name.split("/")[-1] == weight.name.split("/")[-1]
        )
        np.testing.assert_array_equal(weight, twin)
    operators = litert.operators(quantize.convert(qat, "qat"))
    heavy = operators[operators.op.isin(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])]
    assert len(heavy) == 4 and (heavy.weights == "int8").all()


def test_held_batch_norms_keep_their_statistics():
    model = residual_network()
    x = np.random.default_rng(0).normal(size=(32, 16, 16, 3)).astype("float32")
    for held in (True, False):
        qat = quantize.start_calibrated(tfmot.quantization.keras.quantize_model(model), model, x)
        if held:
            quantize.hold_batch_norms(qat)
        models.compile_classifier(qat)
        before = [w.numpy() for w in qat.weights if "moving_mean" in w.name]
        qat.train_on_batch(x, np.zeros(32))
        after = [w.numpy() for w in qat.weights if "moving_mean" in w.name]
        assert held == all((a == b).all() for a, b in zip(before, after, strict=True))


def test_bad_calibration_is_refused(mlp):
    qat = tfmot.quantization.keras.quantize_model(mlp)
    with pytest.raises(quantize.ConversionError, match="calibration is empty"):
        quantize.start_calibrated(qat, mlp, np.zeros((0, 784)))
    with pytest.raises(quantize.ConversionError, match=r"calibration has shape \(3, 5\)"):
        quantize.start_calibrated(qat, mlp, np.zeros((3, 5)))


def test_softmax_at_the_end_is_refused():
    model = tf.keras.Sequential(
        [tf.keras.layers.Input((8,)), tf.keras.layers.Dense(3, activation="softmax", name="answers")]
    )
    qat = tfmot.quantization.keras.quantize_model(model)
    with pytest.raises(quantize.ConversionError, match="answers quantizes before its activation"):
        quantize.start_calibrated(qat, model, np.ones((4, 8)))


def test_drawing_calibration_samples():
    pool = np.arange(10)
    drawn = quantize.draw_calibration(pool, 4, seed=1)
    assert len(set(drawn)) == 4 and (drawn == quantize.draw_calibration(pool, 4, seed=1)).all()
    for samples in (0, 11):
        with pytest.raises(quantize.ConversionError, match=rf"calibration_samples={samples} must lie in \[1, 10\]"):
            quantize.draw_calibration(pool, samples, seed=0)


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
    for name, make in {"tfmot": tfmot.quantization.keras.quantize_model, "ours": quantize.quantization_aware}.items():
        qat = quantize.start_calibrated(make(model), model, calibration)
        layer = qat.get_layer("quant_dw")
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
    qat = quantize.start_calibrated(quantize.quantization_aware(model), model, x)
    models.compile_classifier(qat).train_on_batch(x, np.zeros(32))
    file = quantize.convert(qat, "qat")
    outputs = litert.predict(file, x)
    assert np.abs(outputs - qat(x, training=False).numpy()).max() < 0.05 * np.abs(outputs).max()
    qat.save(tmp_path / "qat.h5")
    with quantize.scope():
        reloaded = tf.keras.models.load_model(tmp_path / "qat.h5")
    np.testing.assert_array_equal(reloaded(x, training=False), qat(x, training=False))


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
    qat = quantize.start_calibrated(quantize.quantization_aware_per_tensor(folded), folded, samples)
    file = quantize.convert(qat, "qat")
    assert litert.per_channel(file).to_dict() == {
        "CONV_2D": "0 of 2",
        "DEPTHWISE_CONV_2D": "0 of 1",
        "FULLY_CONNECTED": "0 of 1",
    }
    ptq = quantize.convert(folded, "int8", samples, per_channel=False)
    for trained, converted in zip(litert.kernels_in(file).integers, litert.kernels_in(ptq).integers, strict=True):
        assert np.abs(trained.astype(int) - converted).max() <= 1
    in_keras = qat.predict(samples, verbose=0)
    assert np.abs(in_keras - litert.predict(file, samples)).max() < 0.1 * np.abs(in_keras).max()


def test_tfmot_s_own_per_tensor_scheme_still_leaves_kernels_out(residual):
    """When this fails, tfmot has mended it, and `quantization_aware_per_tensor` can go."""
    model, folded, _ = residual
    scheme = tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme(disable_per_axis=True)
    for network, wrong in ((model, "float32"), (folded, "per-channel")):
        with tfmot.quantization.keras.quantize_scope():
            qat = tfmot.quantization.keras.quantize_apply(
                tfmot.quantization.keras.quantize_annotate_model(network), scheme
            )
        file = quantize.convert(qat, "qat")
        if wrong == "float32":
            assert (litert.operators(file).weights == "float32").sum() == 3
        else:
            assert litert.per_channel(file)["DEPTHWISE_CONV_2D"] == "1 of 1"


def test_per_tensor_training_wants_batch_norms_folded(residual):
    with pytest.raises(quantize.ConversionError, match="is a batch norm"):
        quantize.quantization_aware_per_tensor(residual[0])


def test_four_bit_training_rounds_as_the_file_does(residual):
    model, _, samples = residual
    qat = quantize.start_calibrated(quantize.quantization_aware(model, kernel_bits=4), model, samples)
    kernel = {weight.name.split("/")[-1]: weight.numpy() for weight in qat.get_layer("quant_logits").weights}
    assert kernel["kernel_max:0"].shape == (5,)  # a range for every output
    float_file = quantize.convert(quantize.without_fake_quantization(qat, model))
    assert float_file == quantize.convert(model)  # nothing was trained yet
    four = {"*": requantize.Format(4, None)}
    file = requantize.apply(float_file, four)
    exact, in_file, in_keras = (
        model.predict(samples, verbose=0),
        litert.predict(file, samples),
        qat.predict(samples, verbose=0),
    )
    # Activations have 8 bits in Keras and 32 in the file: they agree with each other far better than with float32.
    assert np.abs(in_keras - in_file).mean() < 0.5 * np.abs(exact - in_file).mean()


def test_trained_weights_come_back_as_a_float_model(residual):
    model, _, samples = residual
    qat = quantize.start_calibrated(quantize.quantization_aware(model, kernel_bits=4), model, samples)
    models.compile_classifier(quantize.hold_batch_norms(qat)).fit(samples, np.arange(64) % 5, 16, epochs=1, verbose=0)
    trained = quantize.without_fake_quantization(qat, model)
    assert [layer.name for layer in trained.layers] == [layer.name for layer in model.layers]
    kernel = next(weight for weight in qat.get_layer("quant_logits").weights if weight.name.endswith("kernel:0"))
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
    plain, kept = quantize.quantization_aware(model), quantize.quantization_aware(model, keep_float=convolutions)
    for name in convolutions:
        assert has_range(plain, name, "kernel") and not has_range(kept, name, "kernel")
    for name in ("stem_relu", norm, "sum"):
        assert has_range(kept, name, "output")
    quantize.start_calibrated(kept, model, x)
    assert np.abs(kept(x) - model(x)).max() < np.abs(quantize.start_calibrated(plain, model, x)(x) - model(x)).max()
    twin = quantize.without_fake_quantization(kept, model)
    np.testing.assert_array_equal(twin(x), model(x))


def test_layers_to_keep_must_exist(mlp):
    with pytest.raises(quantize.ConversionError, match="'hidden_9'"):
        quantize.quantization_aware(mlp, keep_float=["hidden_9"])


def test_a_kept_dense_layer_leaves_its_neighbours_quantized(mlp):
    kept = quantize.quantization_aware(mlp, keep_float=["hidden_2"])
    assert has_range(kept, "hidden_1", "kernel") and has_range(kept, "logits", "kernel")
    assert not has_range(kept, "hidden_2", "kernel") and has_range(kept, "hidden_2", "output")


TAKEN = ["ConversionError", "representative", "start_calibrated", "hold_batch_norms", "_ranges", "_base_name"]


def test_what_notebook_04_says_to_take_along_runs_without_the_lab():
    cells = nbformat.read(files.find_notebook("04"), as_version=4).cells
    advice = next(cell.source for cell in cells if "In a project of your own" in cell.source)
    assert all(f"`{name}`" in advice for name in TAKEN)
    parts = ast.parse(inspect.getsource(quantize)).body
    names = [getattr(part, "name", "") for part in parts]
    scheme = parts[names.index("DepthwiseQuantizer") : names.index("scope") + 1]
    quiet = next(part for part in parts if isinstance(part, ast.With))
    own = [part for part in parts if isinstance(part, ast.Import)] + quiet.body
    body = own + [part for part in parts if getattr(part, "name", "") in TAKEN] + scheme
    taken = types.ModuleType("taken")
    exec(compile(ast.Module(body, []), "taken", "exec"), vars(taken))
    model = residual_network()
    with taken.scope():
        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        qat = tfmot.quantization.keras.quantize_apply(annotated, taken.PerChannelScheme())
    x = np.random.default_rng(0).normal(size=(20, 16, 16, 3)).astype("float32")
    taken.hold_batch_norms(taken.start_calibrated(qat, model, x))
    assert np.abs(qat(x, training=False) - model(x, training=False)).max() < 0.1
