"""Quantizing a `.tflite`: what the file then holds, that it still computes the same, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, quantize, requantize
from helpers.compress.requantize import EVERYTHING, Format
from helpers.networks import data
from helpers.tflite import litert

with runtime_env.quiet():
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

layers = tf.keras.layers
INT8, PER_TENSOR, WEIGHTS_ONLY = Format(), Format(per_channel=False), Format(activations=None)
KERNELS = {
    "CONV_2D": [(16, 3, 3, 3), (24, 1, 1, 16)],
    "DEPTHWISE_CONV_2D": [(1, 3, 3, 16)],
    "FULLY_CONNECTED": [(9, 24)],
}
SAMPLES = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def network():
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((12, 12, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(16, 3, strides=2, padding="same")(x))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(24, 1)(x)))
    return quantize.convert(tf.keras.Model(inputs, layers.Dense(9)(x)))


@pytest.fixture(scope="module")
def ranges(network):
    return requantize.calibrate(network, SAMPLES)


def kernels(file):
    """What the file says of each kernel: shape -> (dtype, number of scales)."""
    table = litert.tensors(file)
    table = table[table.constant & (table["shape"].map(len) > 1)]
    return {row.shape: (row.dtype, row.scales) for row in table.itertuples()}


def off(file, float_file, x=SAMPLES):
    """The largest difference of outputs, as a share of the largest output."""
    expected = litert.predict(float_file, x)
    return np.abs(litert.predict(file, x) - expected).max() / np.abs(expected).max()


def assert_float32_outside(file):
    runner = litert.interpreter(file)
    assert {d["dtype"] for d in (*runner.get_input_details(), *runner.get_output_details())} == {np.float32}


# --- what the file holds


@pytest.mark.parametrize(
    "formats, per_tensor",
    [
        ({EVERYTHING: INT8}, set()),
        ({EVERYTHING: PER_TENSOR}, set(KERNELS)),
        ({EVERYTHING: INT8, "DEPTHWISE_CONV_2D": PER_TENSOR}, {"DEPTHWISE_CONV_2D"}),
        ({EVERYTHING: PER_TENSOR, "DEPTHWISE_CONV_2D": INT8}, {"CONV_2D", "FULLY_CONNECTED"}),
        ({EVERYTHING: WEIGHTS_ONLY}, set()),
        ({EVERYTHING: Format(activations=None, per_channel=False)}, set(KERNELS)),
        ({EVERYTHING: Format(activations=16)}, set()),
        ({EVERYTHING: Format(activations=requantize.DYNAMIC)}, set()),
    ],
)
def test_every_kernel_has_the_scales_that_were_asked_for(network, ranges, formats, per_tensor):
    file = requantize.apply(network, formats, ranges)
    expected = {
        shape: ("int8", 1 if operator in per_tensor else shape[-1 if operator == "DEPTHWISE_CONV_2D" else 0])
        for operator, shapes in KERNELS.items()
        for shape in shapes
    }
    assert kernels(file) == expected
    assert_float32_outside(file)
    assert off(file, network) < 0.05
    between = {8: "int8", 16: "int16", None: "float32", requantize.DYNAMIC: "float32"}[formats[EVERYTHING].activations]
    operators = litert.operators(file)
    assert set(operators[operators.op.isin(list(KERNELS))].input) == {between}


def test_dynamic_ranges_belong_to_a_row_each():
    """A row that is a thousand times larger than the others spoils them where one scale is for all, and nowhere else."""
    random = np.random.default_rng(0)
    keras = tf.keras.Sequential([tf.keras.layers.Input((16,)), tf.keras.layers.Dense(8, name="dense")])
    float_file = quantize.convert(keras)
    x = random.normal(size=(20, 16)).astype("float32")
    x[0] *= 1000
    ranges = requantize.calibrate(float_file, x)
    expected = litert.predict(float_file, x)[1:]
    made = {}
    for activations in (8, None, requantize.DYNAMIC):
        made[activations] = requantize.apply(float_file, {"FULLY_CONNECTED": Format(8, activations)}, ranges)
    error = {of: np.abs(litert.predict(file, x)[1:] - expected).max() for of, file in made.items()}
    assert error[8] > 10 * error[requantize.DYNAMIC] > error[None] > 0
    assert litert.operators(made[None]).op.tolist() == ["DEQUANTIZE", "FULLY_CONNECTED"]
    assert litert.operators(made[requantize.DYNAMIC]).op.tolist() == ["FULLY_CONNECTED"]


def test_four_bits_halve_the_kernels(network, ranges):
    four = Format(weights=4, activations=None)
    file = requantize.apply(network, {"CONV_2D": four})
    found = kernels(file)
    assert found[16, 3, 3, 3] == ("int4", 16) and found[24, 1, 1, 16] == ("int4", 24)
    assert found[1, 3, 3, 16] == found[9, 24] == ("float32", 0)
    assert len(file) < len(requantize.apply(network, {"CONV_2D": WEIGHTS_ONLY}))
    assert_float32_outside(file)
    assert 0 < off(file, network) < 0.3


def test_four_bits_of_the_mlp_next_to_eight(trained_mlp, digits):
    float_file, x = quantize.convert(trained_mlp), data.unit_rows(digits.x_test)
    eight = requantize.apply(float_file, {EVERYTHING: WEIGHTS_ONLY})
    four = requantize.apply(float_file, {EVERYTHING: Format(4, activations=None)})
    assert len(four) < 0.6 * len(eight) < 0.6 * 0.3 * len(float_file)
    assert {dtype for dtype, _ in kernels(four).values()} == {"int4"}
    assert (litert.predict(four, x).argmax(1) == litert.predict(float_file, x).argmax(1)).mean() > 0.9


def test_what_was_made_before_leaves_no_trace(network, ranges):
    """A float file is read once for all that is made of it."""
    asked = [{requantize.EVERYTHING: requantize.Format()}, {"CONV_2D": requantize.Format(4)}, {"FULLY_CONNECTED": None}]
    asked = [*asked[:2], asked[0] | asked[2]]
    first = [requantize.apply(network, formats, ranges) for formats in asked]
    requantize.dynamic(network)
    requantize.calibrate(
        network, np.zeros((2, *litert.interpreter(network).get_input_details()[0]["shape"][1:]), "float32")
    )
    for formats, made in reversed(list(zip(asked, first, strict=True))):
        assert requantize.apply(network, formats, ranges) == made
    assert len(set(first)) == 3


def test_later_formats_win_and_none_leaves_float(network, ranges):
    file = requantize.apply(network, {EVERYTHING: INT8, "CONV_2D": None}, ranges)
    found = kernels(file)
    assert found[16, 3, 3, 3] == found[24, 1, 1, 16] == ("float32", 0)
    assert found[1, 3, 3, 16] == ("int8", 16)
    everything = requantize.apply(network, {"CONV_2D": None, EVERYTHING: INT8}, ranges)
    assert everything == requantize.apply(network, {EVERYTHING: INT8}, ranges)


def test_constants_stored_behind_the_flatbuffer_are_seen(trained_mlp):
    converter = tf.lite.TFLiteConverter.from_concrete_functions([quantize.freeze(trained_mlp)], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_use_buffer_offset = True  # as large models are written
    with runtime_env.quiet():
        file = converter.convert()
    assert any(buffer.offset > 1 for buffer in schema.ModelT.InitFromPackedBuf(file, 0).buffers)
    pd.testing.assert_frame_equal(litert.tensors(file), litert.tensors(quantize.convert(trained_mlp, "dynamic")))


# --- as the converter does


@pytest.mark.parametrize("per_channel", [True, False])
def test_it_answers_as_the_converters_int8(trained_mlp, digits, per_channel):
    x, calibration = data.unit_rows(digits.x_test), data.unit_rows(digits.x_train[::40])
    float_file = quantize.convert(trained_mlp)
    ours = requantize.apply(
        float_file, {EVERYTHING: Format(per_channel=per_channel)}, requantize.calibrate(float_file, calibration)
    )
    theirs = quantize.convert(trained_mlp, "int8", calibration, per_channel=per_channel)
    assert kernels(ours) == kernels(theirs)
    assert (litert.predict(ours, x).argmax(1) == litert.predict(theirs, x).argmax(1)).mean() >= 0.97


def test_ranges_are_the_smallest_and_largest_values(network, ranges):
    entry, *_ = [value for name, value in ranges.items() if "serving_default_input" in name]
    assert (entry["min"].item(), entry["max"].item()) == (SAMPLES.min(), SAMPLES.max())


def made_for_one_sample(keep):
    """A file with batch 1 in its graph, by a network whose head is `keep`: maps (1, 4, 4, 8) -> (1, k)."""
    runtime_env.seed_everything(0)
    convolution = layers.Conv2D(8, 3, strides=3, padding="same", activation="relu")
    convolution.build((1, 12, 12, 3))
    dense = layers.Dense(5)
    network = tf.function(lambda x: dense(keep(convolution(x))))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [network.get_concrete_function(tf.TensorSpec((1, 12, 12, 3)))], tf.Module()
    )
    with runtime_env.quiet():
        return converter.convert()


def ranges_one_by_one(file, x):
    """Smallest and largest value of every tensor, from the interpreter itself: name -> (min, max)."""
    runner = litert.Interpreter(
        model_content=file,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    runner.allocate_tensors()
    found = {}
    for sample in x:
        runner.set_tensor(runner.get_input_details()[0]["index"], sample[None])
        runner.invoke()
        for tensor in runner.get_tensor_details():
            values = runner.get_tensor(tensor["index"])
            low, high = found.get(tensor["name"], (np.inf, -np.inf))
            found[tensor["name"]] = min(low, values.min()), max(high, values.max())
    return found


@pytest.mark.parametrize(
    "keep",
    [
        lambda x: tf.reshape(x, (1, 128)),
        lambda x: tf.reshape(tf.slice(x, (0, 1, 1, 0), (1, 2, 2, 8)), (-1, 32)),
        lambda x: tf.strided_slice(tf.reduce_mean(x, (1, 2)), (0, 0), (1, 8)),
    ],
    ids=["reshape", "slice", "strided slice"],
)
def test_files_made_for_one_sample_are_calibrated_on_all(keep):
    file = made_for_one_sample(keep)
    x = SAMPLES * np.linspace(0.1, 3, len(SAMPLES))[:, None, None, None].astype("float32")  # the first is the smallest
    expected = ranges_one_by_one(file, x)
    found = requantize.calibrate(file, x)
    checked = 0
    for name, seen in found.items():
        if seen and seen["min"].size == 1 and name in expected:
            np.testing.assert_allclose((seen["min"].item(), seen["max"].item()), expected[name], rtol=1e-5, atol=1e-5)
            checked += 1
    assert checked >= 3
    assert off(requantize.apply(file, {EVERYTHING: INT8}, found), file, x) < 0.05


@pytest.mark.parametrize("form", [INT8, Format(weights=4), Format(8, 16)], ids=["int8", "4-bit", "16-bit"])
def test_a_file_with_a_layer_that_answers_zero_to_all_samples_runs_in_every_format(form):
    inputs = layers.Input((6, 6, 3))
    dead = layers.ReLU(6.0)(layers.Conv2D(4, 3, bias_initializer=tf.constant_initializer(-100.0), name="dead")(inputs))
    x = layers.Dense(3, bias_initializer=tf.constant_initializer([1.0, -2.0, 3.0]))(
        layers.GlobalAveragePooling2D()(dead)
    )
    file = quantize.convert(tf.keras.Model(inputs, x))
    quantized = requantize.apply(file, {EVERYTHING: form}, requantize.calibrate(file, SAMPLES[:, :6, :6]))
    answers = litert.predict(quantized, SAMPLES[:2, :6, :6])
    np.testing.assert_allclose(answers, [[1, -2, 3]] * 2, atol=0.02)


def test_ranges_of_parts_are_those_of_the_whole(network, ranges, monkeypatch):
    monkeypatch.setattr(litert, "KEPT_BYTES", 5 * 4 * 12 * 12 * 3 * 10)  # a few samples at a time
    assert 1 < litert.at_once(network, {"x": SAMPLES}) < len(SAMPLES) / 2
    found = requantize.calibrate(network, SAMPLES)
    assert found.keys() == ranges.keys()
    for name, seen in found.items():
        for end in seen:
            np.testing.assert_array_equal(seen[end], ranges[name][end])


def test_a_path_serves_as_well(network, ranges, tmp_path):
    (tmp_path / "model.tflite").write_bytes(network)
    assert requantize.apply(tmp_path / "model.tflite", {EVERYTHING: INT8}, ranges) == requantize.apply(
        network, {EVERYTHING: INT8}, ranges
    )


# --- refusals


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weights": 3}, "weights=3 must be 2, 4 or 8 bits"),
        ({"activations": 4}, "activations=4 must be 8 or 16 bits, 'dynamic', or None"),
        ({"algorithm": "awq"}, "algorithm='awq' must be one of min_max, mse, octav, gptq, hadamard, oscar"),
        ({"block": 16}, "block=16 must be 32 or 64 weights, or None"),
    ],
)
def test_other_bits_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Format(**arguments)


@pytest.mark.parametrize(
    "formats, message",
    [
        ({EVERYTHING: INT8}, "ranges is empty: .* calibrate"),
        ({"CONV2D": WEIGHTS_ONLY}, "formats names 'CONV2D': there is no such operator"),
        ({"DEPTHWISE_CONV_2D": Format(4, None)}, r"formats asks Format\(weights=4.* of DEPTHWISE_CONV_2D.*try 8 bits"),
    ],
)
def test_a_bad_request_is_refused_by_name(network, formats, message):
    with pytest.raises(InputError, match=message):
        requantize.apply(network, formats)


@pytest.mark.parametrize(
    "calibration, message",
    [
        (SAMPLES[:0], r"calibration is empty: .* sample of shape \(12, 12, 3\)"),
        (None, "calibration is empty"),
        (SAMPLES[:, 1:], r"calibration has shape \(64, 11, 12, 3\): this model takes \(samples, 12, 12, 3\)"),
        (SAMPLES[0], r"calibration has shape \(12, 12, 3\)"),
        (SAMPLES * np.nan, "calibration holds NaN"),
    ],
)
def test_a_bad_calibration_set_is_refused(network, calibration, message):
    with pytest.raises(InputError, match=message):
        requantize.calibrate(network, calibration)


@pytest.mark.parametrize(
    "spoil", [lambda file: file[:1000], lambda file: file[:-10], lambda file: b"", lambda _: b"x" * 99]
)
def test_a_damaged_file_is_refused(network, ranges, spoil):
    with pytest.raises(InputError):
        requantize.calibrate(spoil(network), SAMPLES)
    with pytest.raises(InputError):
        requantize.apply(spoil(network), {EVERYTHING: WEIGHTS_ONLY})


# --- dynamic range


def for_one_sample(model):
    function = tf.function(lambda x: model(x, training=False))
    frozen = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:])))
    with runtime_env.quiet():
        return tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()


def test_dynamic_range_as_the_converters(trained_mlp, digits):
    file, x = quantize.convert(trained_mlp), data.unit_rows(digits.x_test)
    ours, theirs = requantize.dynamic(file), quantize.convert(trained_mlp, "dynamic")
    assert kernels(ours) == kernels(theirs)
    assert (litert.predict(ours, x).argmax(1) == litert.predict(theirs, x).argmax(1)).mean() >= 0.99
    assert len(requantize.dynamic(file, weights=4)) < 0.6 * len(ours)


def test_dynamic_range_of_convolutions(network):
    file = requantize.dynamic(network, weights=4)
    assert {shape: dtype for shape, (dtype, _) in kernels(file).items()} == {
        (16, 3, 3, 3): "int4",
        (24, 1, 1, 16): "int4",
        (1, 3, 3, 16): "int8",
        (9, 24): "int4",
    }
    assert 0 < off(requantize.dynamic(network), network) < 0.05 < off(file, network) < 0.5


@pytest.fixture(scope="module")
def with_outliers():
    """Two dense layers, of whose inputs one channel is 256 times as large as the others: file for any number of samples, for
    one, and samples."""
    runtime_env.seed_everything(0)
    model = tf.keras.Sequential([layers.Input((64,)), layers.Dense(64, name="first"), layers.Dense(8, name="second")])
    kernel, bias = model.layers[0].get_weights()
    factors = np.where(np.arange(64) == 17, 256.0, 1.0).astype("float32")
    model.layers[0].set_weights([kernel / factors[:, None], bias])
    x = np.random.default_rng(0).normal(size=(300, 64)).astype("float32") * factors
    return quantize.convert(model), for_one_sample(model), x


def test_against_outliers(with_outliers):
    whole, single, x = with_outliers
    exact = litert.predict(whole, x)
    noise = {
        None: requantize.dynamic(whole),
        requantize.OSCAR: requantize.dynamic(whole, against=requantize.OSCAR, calibration=x[:50]),
        requantize.HADAMARD: requantize.dynamic(single, against=requantize.HADAMARD),
    }
    found = {kind: affine.sqnr(exact, litert.predict(file, x)) for kind, file in noise.items()}
    assert found[requantize.OSCAR] > found[None] + 10
    assert found[requantize.HADAMARD] > found[None] + 3


def test_dynamic_range_is_refused_where_it_would_do_nothing(with_outliers):
    whole, single, _ = with_outliers
    with pytest.raises(InputError, match="must be 'oscar', 'hadamard' or None"):
        requantize.dynamic(whole, against="gptq")
    with pytest.raises(InputError, match="weights=2 must be 4 or 8 bits"):
        requantize.dynamic(whole, weights=2)
    with pytest.raises(InputError, match="needs samples"):
        requantize.dynamic(whole, against=requantize.OSCAR)
    with pytest.raises(InputError, match="convert the model for one sample"):
        requantize.dynamic(whole, against=requantize.HADAMARD)
    assert requantize.dynamic(single, against=requantize.HADAMARD)
    with pytest.raises(InputError, match="quantized already"):
        requantize.dynamic(requantize.dynamic(whole))
    inputs = layers.Input((8, 8, 3))
    convolutions = quantize.convert(tf.keras.Model(inputs, layers.Conv2D(4, 3)(inputs)))
    samples = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    with pytest.raises(StructureError, match="'oscar' changed nothing: it is for dense layers"):
        requantize.dynamic(convolutions, against=requantize.OSCAR, calibration=samples)
    assert requantize.dynamic(convolutions)


@pytest.fixture(scope="module")
def with_an_output_inside():
    """A network whose first output is what its second is made of, such as an embedding and its classes."""
    source = layers.Input((6,))
    early = layers.Dense(4, name="early")(source)
    return quantize.convert(tf.keras.Model(source, [layers.Dense(3, name="late")(early), early]))


@pytest.mark.parametrize(
    "asked",
    [
        *({EVERYTHING: form} for form in (Format(), Format(4), Format(8, 16), Format(8, "dynamic"))),
        *({name: form} for name in ("early", "late") for form in (Format(), Format(4))),
        *({EVERYTHING: Format(), name: form} for name in ("early", "late") for form in (None, Format(), Format(4))),
        *(
            {EVERYTHING: Format(), "early": one, "late": other}
            for one in (None, Format(4))
            for other in (None, Format(4))
        ),
    ],
)
def test_an_output_that_others_read_keeps_its_name_and_its_numbers(with_an_output_inside, asked):
    file, x = with_an_output_inside, np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    names = dict(litert.weight_layers(file)[["layer", "name"]].values)
    formats = {names.get(layer, layer): form for layer, form in asked.items()}
    made = requantize.apply(file, formats, requantize.calibrate(file, x))
    exact, found = litert.run(file, {"x": x}), litert.run(made, {"x": x})
    assert set(found) == set(exact) == {"output_0", "output_1"}
    assert min(affine.sqnr(exact[name], found[name]) for name in exact) > 15


def test_what_a_minimum_and_another_operator_read_is_not_cut_off():
    """As where a skip path passes a clip by."""
    source = layers.Input((8,))
    hidden = layers.Dense(16)(source)
    model = tf.keras.Model(source, layers.Dense(4)(layers.Add()([tf.minimum(hidden, 0.1), hidden])))
    file, x = quantize.convert(model), np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    made = requantize.apply(file, {EVERYTHING: Format()}, requantize.calibrate(file, x))
    exact, converters = litert.predict(file, x), litert.predict(quantize.convert(model, "int8", x), x)
    assert affine.sqnr(exact, litert.predict(made, x)) > affine.sqnr(exact, converters) - 3


@pytest.mark.parametrize("activations", [8, 16])
def test_operators_of_whole_numbers_behind_an_output_read_what_they_read(activations):
    """A comparison, a cast and the largest class are no integers of the quantizer's."""
    dense = tf.Variable(np.random.default_rng(0).normal(size=(6, 4)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec((1, 6), tf.float32)])
    def network(x):
        y = tf.nn.softmax(x @ dense)
        return {"y": y, "high": y > 0.4, "whole": tf.cast(10 * y, tf.int32), "kind": tf.argmax(y, 1)}

    file, x = (
        quantize.convert(network.get_concrete_function()),
        np.random.default_rng(1).normal(size=(60, 6)).astype("float32"),
    )
    made = requantize.apply(file, {EVERYTHING: Format(8, activations)}, requantize.calibrate(file, x))
    exact, found = litert.run(file, {"x": x}), litert.run(made, {"x": x})
    assert set(exact) == set(found) and len(exact) == 4
    for name, numbers in exact.items():
        if numbers.dtype == np.float32:
            assert affine.sqnr(numbers, found[name]) > 20
        else:
            assert (numbers == found[name]).mean() > 0.8, numbers.dtype


def test_an_infinite_mask_is_refused_with_a_cure_that_works():
    def masked(lowest):
        mask = np.triu(np.full((4, 4), lowest, "float32"), 1)
        source = layers.Input((4, 4))
        return quantize.convert(tf.keras.Model(source, layers.Dense(3)(tf.nn.softmax(source + mask))))

    x = np.random.default_rng(0).normal(size=(50, 4, 4)).astype("float32")
    with pytest.raises(
        InputError, match=r"holds infinity or the largest numbers there are, .* such as -30, instead of -inf"
    ):
        requantize.calibrate(masked(-np.inf), x)
    cured = masked(-30)
    made = requantize.apply(cured, {EVERYTHING: Format()}, requantize.calibrate(cured, x))
    assert affine.sqnr(litert.predict(cured, x), litert.predict(made, x)) > 15
