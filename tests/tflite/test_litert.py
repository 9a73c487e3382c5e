"""A `.tflite` file in hand: batches give the very numbers of the one-sample loop, and bad files never crash."""

import gzip
import tempfile

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize, requantize, sparsity
from helpers.networks import models
from helpers.tflite import causes, interpreting, litert, measure, packing, runner

with runtime_env.quiet():
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

INPUTS, CLASSES = 48, 10
KERNELS = [(64, INPUTS), (32, 64), (CLASSES, 32)]  # as the file stores them: outputs first
SAMPLES = np.random.default_rng(0).random((130, INPUTS)).astype("float32")
RECIPES = ("float32", "dynamic", "int8", "full_int8", "int16x8")


@pytest.fixture(scope="module")
def mlp():
    runtime_env.seed_everything(0)
    return models.mlp((64, 32), INPUTS, CLASSES)


@pytest.fixture(scope="module")
def converted(mlp):
    """The same network by each recipe: name -> bytes."""
    return {recipe: quantize.convert(mlp, recipe, SAMPLES) for recipe in RECIPES}


@pytest.fixture(scope="module")
def pruned(mlp):
    return sparsity.one_shot(models.copy(mlp), 0.75)


def one_by_one(model, samples):
    """The loop of the official tutorials: one sample at a time, one thread."""
    runner = litert.interpreter(model)
    source, target = runner.get_input_details()[0], runner.get_output_details()[0]
    outputs = []
    for sample in samples:
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            sample = np.clip(np.rint(sample / scale) + zero_point, -128, 127).astype("int8")
        runner.set_tensor(source["index"], sample[None])
        runner.invoke()
        outputs.append(runner.get_tensor(target["index"])[0])
    outputs = np.array(outputs)
    if target["dtype"] == np.int8:
        scale, zero_point = target["quantization"]
        outputs = (outputs.astype("float32") - zero_point) * np.float32(scale)
    return outputs


# --- running


def recurrent():
    """A file with a layer that keeps its state, which TensorFlow makes of an LSTM of one sample."""
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.Input((8, 4), batch_size=1), layers.LSTM(6), layers.Dense(3)])
    traced = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, 8, 4), tf.float32))
    with tempfile.TemporaryDirectory() as folder, runtime_env.quiet():
        model.save(folder, save_format="tf", signatures=traced)
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def test_what_a_file_remembers_of_a_sample_is_forgotten_before_the_next():
    file, x = recurrent(), np.random.default_rng(0).normal(size=(5, 8, 4)).astype("float32")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in set(litert.operators(file)["op"])
    alone = np.concatenate([litert.predict(file, x[place : place + 1]) for place in range(5)])
    assert np.abs(np.diff(alone, axis=0)).max() > 0.01
    for found in (litert.predict(file, x), *litert.run(file, {"x": x}, batch=5).values()):
        np.testing.assert_array_equal(found, alone)
    with measure.staged({"it": file}, x) as (folder, names):
        answer = runner.run(measure.prediction(names["it"], show=5), folder)
    np.testing.assert_allclose(answer["first"][0], alone, rtol=1e-6)


class Remembering(tf.Module):
    def __init__(self):
        self.state = tf.Variable(tf.zeros((1, 4)))

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def serve(self, x):
        self.state.assign(0.5 * self.state + x)
        return {"y": self.state + 0.0}

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32), tf.TensorSpec((1, 4), tf.float32)])
    def cured(self, x, state):
        state = 0.5 * state + x
        return {"y": state + 0.0, "next": state}


def test_a_file_that_remembers_in_a_variable_is_refused_with_a_cure(tmp_path):
    """Which no interpreter forgets as long as it lives."""
    module, x = Remembering(), np.eye(4, dtype="float32")
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.experimental_enable_resource_variables = True
    file = converter.convert()
    told = "make its state an input and an output of the model"
    for ask in (lambda: litert.predict(file, x), lambda: litert.run(file, {"x": x})):
        with pytest.raises(InputError, match=told):
            ask()
    with measure.staged({"it": file}, x) as (folder, names):
        assert told in runner.run(measure.prediction(names["it"], show=5), folder)["unusable"]
    cured = quantize.convert(module.cured.get_concrete_function())
    found = litert.run(cured, {"x": x, "state": np.zeros_like(x)})
    np.testing.assert_array_equal(found["y"], x)


def test_what_pruning_wraps_assigns_the_same_each_time_and_runs():
    import tensorflow_model_optimization as tfmot

    model = tf.keras.Sequential([tf.keras.layers.Input((8,)), tf.keras.layers.Dense(4)])
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model)
    file, x = tf.lite.TFLiteConverter.from_keras_model(wrapped).convert(), np.eye(8, dtype="float32")
    assert "ASSIGN_VARIABLE" in set(litert.operators(file).op)
    np.testing.assert_allclose(litert.predict(file, x), model(x), atol=1e-6)


def test_pixels_are_not_taken_for_the_real_numbers_that_a_scale_rounds(small_network):
    x = np.random.default_rng(0).random((30, *small_network.input_shape[1:])).astype("float32")
    file, pixels = quantize.convert(small_network, "full_int8", x), (255 * x).astype("uint8")
    for ask in (lambda: litert.predict(file, pixels), lambda: litert.run(file, {"x": pixels})):
        with pytest.raises(InputError, match=r"int8 with a scale, .* give float samples"):
            ask()
    assert litert.predict(file, pixels / np.float32(255)).shape == litert.predict(file, x).shape
    tokens = quantize.convert(
        tf.function(lambda x: tf.cast(x, tf.float32)).get_concrete_function(tf.TensorSpec((1, 3), tf.int32))
    )
    with pytest.raises(InputError, match=r"int32 without a scale, .* give whole numbers"):
        litert.predict(tokens, np.array([[0.5, 1, 2]]))
    assert litert.predict(tokens, np.array([[1.0, 1, 2]])).tolist() == [[1, 1, 2]]


def test_samples_go_into_the_inputs_of_their_names_and_others_into_those_that_are_left():
    traced = tf.function(
        lambda a, b: {"y": a - b}, input_signature=[tf.TensorSpec((1, 2), tf.float32, name) for name in "ab"]
    )
    file = quantize.convert(traced.get_concrete_function())
    ones, zeros = np.ones((1, 2), "float32"), np.zeros((1, 2), "float32")
    in_order = 1 if interpreting.declared(litert.interpreter(file))[0][0]["name"] == "a" else -1
    for samples, wanted in (
        ({"a": ones, "b": zeros}, 1),
        ({"b": zeros, "a": ones}, 1),
        ({"a": ones, "other": zeros}, 1),
        ({"other": zeros, "a": ones}, 1),
        ({"other": ones, "b": zeros}, 1),
        # None is known: in the order of the file.
        ({"first": ones, "second": zeros}, in_order),
        ({"second": zeros, "first": ones}, -in_order),
    ):
        [found] = litert.run(file, samples).values()
        assert found.tolist() == [[wanted] * 2]
    with pytest.raises(InputError, match="samples hold no b: give an array for each of "):
        litert.run(file, {"a": ones})


@pytest.mark.parametrize("sides", [(96, 96), (None, None)])
def test_as_many_samples_are_kept_at_once_as_fit_whatever_sizes_a_file_leaves_open(sides):
    layers = tf.keras.layers
    source = layers.Input((*sides, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 3, padding="same")(source))
    file = quantize.convert(tf.keras.Model(source, pooled))
    x = np.zeros((300, 96, 96, 3), "float32")
    a_sample = 4 * 96 * 96 * (3 + 64)
    assert litert.KEPT_BYTES / a_sample / 2 < litert.at_once(file, {"x": x}) <= litert.KEPT_BYTES / a_sample


def test_a_file_without_names_is_read_as_one_with_them(mlp):
    file = quantize.convert(mlp)
    content = schema.ModelT.InitFromPackedBuf(file, 0)
    flatbuffer_utils.strip_strings(content)
    bare = packing.packed(content, file)
    np.testing.assert_array_equal(litert.predict(bare, SAMPLES), litert.predict(file, SAMPLES))
    assert litert.tensors(bare)["name"].is_unique
    assert litert.weight_layers(bare)["weights"].tolist() == litert.weight_layers(file)["weights"].tolist()
    ranges = requantize.calibrate(bare, SAMPLES)
    small = requantize.apply(bare, {"*": requantize.Format()}, ranges)
    whole = requantize.apply(file, {"*": requantize.Format()}, requantize.calibrate(file, SAMPLES))
    np.testing.assert_array_equal(litert.predict(small, SAMPLES), litert.predict(whole, SAMPLES))
    assert not causes.find(small, bare, {"x": SAMPLES})


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_give_the_bits_of_one_sample_at_a_time(converted, recipe):
    expected = one_by_one(converted[recipe], SAMPLES)
    for number in (1, 63, 64, 65, 130):
        found = litert.predict(converted[recipe], SAMPLES[:number])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected[:number], err_msg=f"{number} samples")


@pytest.mark.parametrize("batch, threads", [(1, 1), (7, 1), (64, 2), (130, 2), (1000, 1)])
def test_neither_batch_size_nor_threads_change_the_bits(converted, batch, threads):
    expected = litert.predict(converted["float32"], SAMPLES)
    np.testing.assert_array_equal(litert.predict(converted["float32"], SAMPLES, batch, threads), expected)


def test_a_model_that_is_int8_throughout_takes_and_gives_real_numbers(converted, mlp):
    details = litert.interpreter(converted["full_int8"]).get_output_details()[0]
    assert details["dtype"] == np.int8
    scale, zero_point = details["quantization"]
    found = litert.predict(converted["full_int8"], SAMPLES)
    steps = found / scale + zero_point
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
    np.testing.assert_allclose(found, mlp(SAMPLES).numpy(), atol=10 * scale)


def test_a_model_may_be_given_as_a_path(converted, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(converted["float32"])
    for given in (path, str(path)):
        np.testing.assert_array_equal(litert.predict(given, SAMPLES), litert.predict(converted["float32"], SAMPLES))
        assert litert.size(given) == litert.size(converted["float32"])


@pytest.mark.parametrize("x", [SAMPLES[:, :-1], SAMPLES[0], SAMPLES[:0], SAMPLES[..., None], np.float32(1), []])
def test_samples_of_another_shape_are_refused(converted, x):
    with pytest.raises(InputError, match=r"x has shape \(.*\): this model takes \(n, 48\), n at least 1"):
        litert.predict(converted["float32"], x)


@pytest.mark.parametrize("batch", [0, -1])
def test_an_impossible_batch_is_refused(converted, batch):
    with pytest.raises(InputError, match=f"batch={batch} must be 1 or more"):
        litert.predict(converted["float32"], SAMPLES, batch)


# --- looking inside


def test_size_is_bytes_before_and_after_gzip(converted, pruned):
    model = converted["float32"]
    assert litert.size(model).raw == len(model)
    assert litert.size(model).gzip == len(gzip.compress(model, 9, mtime=0))
    assert str(litert.Size(941_234, 249_876)) == "941 kB, gzipped 250 kB"
    zeros = quantize.convert(pruned)
    assert litert.size(zeros).raw == pytest.approx(litert.size(model).raw, rel=0.01)
    assert litert.size(zeros).gzip < 0.6 * litert.size(model).gzip


def kernels(model):
    """The rows of `litert.tensors` that describe the weights, first layer first."""
    table = litert.tensors(model)
    return table[table.constant & table["shape"].isin(KERNELS)].sort_values(
        "shape", key=lambda it: it.map(KERNELS.index)
    )


@pytest.mark.parametrize(
    "recipe, dtypes, scales, activation",
    [
        ("float32", ["float32"] * 3, [0, 0, 0], ("float32", 0)),
        ("dynamic", ["int8", "int8", "float32"], [64, 32, 0], ("float32", 0)),  # under 1,024 weights stay float32
        ("int8", ["int8"] * 3, [64, 32, 10], ("int8", 1)),
        ("full_int8", ["int8"] * 3, [64, 32, 10], ("int8", 1)),
        ("int16x8", ["int8"] * 3, [64, 32, 10], ("int16", 1)),
    ],
)
def test_tensors_tell_types_and_the_number_of_scales(converted, recipe, dtypes, scales, activation):
    found = kernels(converted[recipe])
    assert found["shape"].tolist() == KERNELS
    assert found["dtype"].tolist() == dtypes
    assert found["scales"].tolist() == scales
    table = litert.tensors(converted[recipe])
    hidden = table[~table.constant & (table["shape"] == (1, 64))]
    assert [(row.dtype, row.scales) for row in hidden.itertuples()] == [activation]
    assert table.zeros.notna().tolist() == (table.constant & table["dtype"].isin(["float32", "int8"])).tolist()


def test_tensors_count_zeros_however_they_are_stored(converted, pruned):
    assert kernels(converted["float32"]).zeros.tolist() == [0, 0, 0]
    for sparse in (False, True):
        assert kernels(quantize.convert(pruned, sparse=sparse)).zeros.tolist() == [0.75] * 3


@pytest.mark.parametrize(
    "recipe, expected",
    [
        ("float32", [("FULLY_CONNECTED", "float32", "float32")] * 3),
        ("full_int8", [("FULLY_CONNECTED", "int8", "int8")] * 3),
        (
            "int16x8",
            [("QUANTIZE", "float32", ""), *[("FULLY_CONNECTED", "int16", "int8")] * 3, ("DEQUANTIZE", "int16", "")],
        ),
    ],
)
def test_operators_are_listed_in_order_with_their_types(converted, recipe, expected):
    found = litert.operators(converted[recipe])
    assert list(found.itertuples(index=False, name=None)) == expected


# --- files that are none

LOOKING = [lambda model: litert.predict(model, SAMPLES), litert.tensors, litert.operators]


@pytest.mark.parametrize("look", [*LOOKING, litert.size])
@pytest.mark.parametrize(
    "blob, message",
    [
        (b"", r"model is empty \(0 bytes\)"),
        (b"\x1c\0\0\0", r"model \(4 bytes\) is not a TFLite model"),
        (b"<html>404 Not Found</html>" * 50, r"model \(1,300 bytes\) is not a TFLite model"),
    ],
)
def test_what_is_no_model_is_refused(look, blob, message, tmp_path):
    with pytest.raises(InputError, match=message):
        look(blob)
    path = tmp_path / "model.tflite"
    path.write_bytes(blob)
    with pytest.raises(InputError, match=r"model\.tflite"):
        look(path)


@pytest.mark.parametrize("look", [*LOOKING, litert.size])
def test_a_path_that_leads_nowhere_is_named(look, tmp_path):
    for path in (tmp_path / "nowhere.tflite", tmp_path):
        with pytest.raises(InputError, match=f"^model='{path}' cannot be read"):
            look(path)


@pytest.mark.parametrize("look", LOOKING)
@pytest.mark.parametrize("recipe", ["float32", "full_int8"])
def test_a_truncated_model_is_refused_wherever_it_ends(converted, recipe, look):
    model = converted[recipe]
    for length in np.linspace(8, len(model) - 1, 60, dtype=int):
        with pytest.raises(InputError, match=r"bytes\)? (cannot be loaded|is damaged)"):
            look(model[:length])


@pytest.mark.parametrize("look", [litert.tensors, litert.operators])
def test_looking_into_a_scrambled_model_gives_a_table_or_is_refused(converted, look):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        scrambled = bytearray(converted["full_int8"])
        scrambled[random.integers(8, len(scrambled))] ^= random.integers(1, 256)
        try:
            look(bytes(scrambled))
        except InputError:
            refused += 1
    assert 0 < refused < 200


# --- inside quantized layers


@pytest.fixture(scope="module")
def small_network():
    runtime_env.seed_everything(0)
    layers = tf.keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(5, 3, name="first")(inputs)
    x = layers.DepthwiseConv2D(3, name="second")(x)
    return tf.keras.Model(inputs, layers.Dense(7, name="third")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("bits", [8, 4])
def test_integers_times_scale_are_the_weights(small_network, bits):
    formats = {"*": requantize.Format(bits, None)}
    kernels = litert.kernels_in(requantize.apply(quantize.convert(small_network), formats)).set_index("op")
    first, third = (small_network.get_layer(name).get_weights()[0] for name in ("first", "third"))
    for op, wanted in (("CONV_2D", first.transpose(3, 0, 1, 2)), ("FULLY_CONNECTED", third.T)):
        row = kernels.loc[op]
        scales = row.scales.reshape(-1, *[1] * (wanted.ndim - 1))
        assert row.integers.shape == wanted.shape
        assert np.abs(row.integers).max() == 2 ** (bits - 1) - 1
        assert (np.abs(row.integers * scales - wanted) <= 0.501 * scales).all()
    assert kernels.loc["DEPTHWISE_CONV_2D"].axis == 3


def test_layer_outputs_are_those_of_keras(small_network):
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    probe = tf.keras.Model(
        small_network.inputs, [small_network.get_layer(n).output for n in ("first", "second", "third")]
    )
    for recipe, tolerance in (("float32", 1e-5), ("int8", 0.05)):
        outputs = litert.layer_outputs(quantize.convert(small_network, recipe, x), x)
        for wanted, got in zip(probe.predict(x, verbose=0), outputs, strict=True):
            np.testing.assert_allclose(got, wanted, atol=tolerance * np.abs(wanted).max())


def test_a_model_made_for_one_sample_is_run_one_by_one():
    inputs = tf.keras.Input((4,), batch_size=1)
    first = tf.keras.layers.Lambda(lambda x: tf.slice(x, [0, 0], [1, 4]))(tf.keras.layers.Dense(4)(inputs))
    model = tf.keras.Model(inputs, first)
    with runtime_env.quiet():
        file = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    x = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
    wanted = np.concatenate([model(sample[None]) for sample in x])
    np.testing.assert_allclose(litert.predict(file, x), wanted, atol=1e-5)
    (hidden,) = litert.layer_outputs(file, x)
    np.testing.assert_allclose(hidden, wanted, atol=1e-5)


def converted_function(function, shape, dtype):
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype, name="x")])
    return quantize.convert(traced.get_concrete_function())


def test_an_open_size_is_that_of_the_samples_in_batches_too():
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    file = converted_function(lambda x: tf.reduce_mean(tf.gather(vectors, x), 1), (None, None), tf.int32)
    for length in (3, 16):
        x = np.random.default_rng(length).integers(0, 50, (10, length))
        for batch in (1, 4):
            [found] = litert.run(file, {"x": x}, batch=batch).values()
            np.testing.assert_allclose(found, vectors[x].mean(axis=1), atol=1e-6)
            assert interpreting.admits_batches(file, 4, {"x": x})
            runner = interpreting.load(file, 1, batch, {"x": x})
            assert runner.get_input_details()[0]["shape"].tolist() == [batch, length]


def test_large_samples_are_shown_few_at_a_time(monkeypatch):
    """With the numbers that they have all at once."""
    file = converted_function(lambda x: tf.reduce_mean(x, (1, 2)), (None, 500, 500, 3), tf.float32)
    x = np.random.default_rng(0).random((5, 500, 500, 3), np.float32)  # of 3 MB each
    assert interpreting.at_a_time([x], 64) == 2 and interpreting.at_a_time([x[:, :100]], 64) == 5
    assert interpreting.at_a_time([x, x, x], 64) == 1 and interpreting.at_a_time([x], 1) == 1
    shown, real = [], interpreting.batches
    monkeypatch.setattr(interpreting, "batches", lambda *given: shown.append(given[2]) or real(*given))
    for answers in (litert.predict(file, x), litert.run(file, {"x": x}, batch=64)["output_0"]):
        np.testing.assert_allclose(answers, x.mean((1, 2)), rtol=1e-4)
    assert shown == [2, 2]


def test_whether_a_file_admits_batches_is_tried_once_for_its_content(monkeypatch, tmp_path):
    admits = converted_function(lambda x: x @ tf.ones((3, 2)), (None, 3), tf.float32)
    refuses = converted_function(lambda x: tf.reshape(x, (1, -1, 3)) + 1, (None, 3), tf.float32)
    tried, real = [], interpreting.load
    monkeypatch.setattr(interpreting, "load", lambda *given, **named: tried.append(given) or real(*given, **named))
    monkeypatch.setattr(interpreting, "_admitted", {})
    (tmp_path / "same.tflite").write_bytes(admits)
    x, wide = np.zeros((4, 3), "float32"), np.zeros((4, 5, 3), "float32")
    for model in (admits, bytes(bytearray(admits)), tmp_path / "same.tflite", str(tmp_path / "same.tflite")):
        assert interpreting.admits_batches(model, 4, {"x": x})
        assert not interpreting.admits_batches(refuses, 4, {"x": x})
    assert len(tried) == 4
    assert interpreting.admits_batches(admits, 2, {"x": x}) and not interpreting.admits_batches(admits, 4, {"x": wide})
    (tmp_path / "same.tflite").write_bytes(refuses)  # another content by the same name
    assert not interpreting.admits_batches(tmp_path / "same.tflite", 4, {"x": x})


@pytest.mark.parametrize("x", [[[0, 256]], [[-1, 0]], [[2**32, 0]]])
def test_whole_numbers_are_not_wrapped_around(x):
    file = converted_function(lambda x: tf.cast(x, tf.float32), (1, 2), tf.uint8)
    with pytest.raises(InputError, match=r"uint8, which holds 0 to 255: the samples go from -?[0-9]+ to [0-9]+"):
        litert.run(file, {"x": np.array(x)})
    assert litert.run(file, {"x": np.array([[0, 255]])})["output_0"].tolist() == [[0, 255]]


def test_every_output_has_a_name_of_its_own():
    def twice(x):
        return {"one": -x, "other": -x}

    file = converted_function(lambda x: {**twice(x), "a" * 999: x, "a" * 998: x + 1}, (1, 2), tf.float32)
    found = litert.run(file, {"x": np.ones((1, 2), "float32")})
    assert {"one", "other"} < set(found) and len(found) == 4
    assert sorted(of[0, 0] for of in found.values()) == [-1, -1, 1, 2]


def with_first_layer_named(file, name):
    """The file, kernel and output of its first operator having another name."""
    parsed = litert.schema.ModelT.InitFromPackedBuf(file, 0)
    operator, graph = parsed.subgraphs[0].operators[0], parsed.subgraphs[0]
    for index in (operator.inputs[1], operator.outputs[0]):
        graph.tensors[index].name = name.encode()
    builder = flatbuffers.Builder()
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(
    "tensor, layer",
    [
        ("net/relu/Relu6;net/norm/FusedBatchNormV3;net/conv/Conv2D1", "conv"),
        ("net_1/mix_1/Relu;net_1/mix_1/BiasAdd;net_1/mix_1/convolution;net_1/mix_1/Squeeze1", "mix_1"),
        ("net/odd/Einsum;net/other/Add", "odd"),
        ("net/wide/Tensordot/MatMul1", "wide"),
        ("net/attention/query/einsum_3/Einsum", "query"),
        ("net/norm/batchnorm/mul_1", "norm"),
        ("net/up/Gelu/mul_2;;net/up/Gelu/mul", "up"),
        ("net/Tensordot/MatMul", "Tensordot"),
        ("StatefulPartitionedCall:0", "StatefulPartitionedCall:0"),
    ],
)
def test_layers_are_named_shortly_whoever_named_the_tensors(converted, tensor, layer):
    assert litert.weight_layers(with_first_layer_named(converted["float32"], tensor)).layer[0] == layer


@pytest.mark.parametrize(
    "tensor, layer",
    [
        ("net/re_lu/Relu;net/norm/FusedBatchNormV3;net/conv/Conv2D1", "conv"),
        ("net/attention/query/einsum/Einsum", "attention/query"),
        ("net/memory/lstm_cell/MatMul", "memory/lstm_cell"),
        ("net/relu/Relu;net/conv/BiasAdd/ReadVariableOp/resource;net/conv/BiasAdd;net/conv/Conv2D1", "conv"),
        ("net/block/depthwise/depthwise1;net/block/depthwise/BN", "block/depthwise"),
        ("net/net/dense/MatMul", "dense"),
        ("net/strange/MatMul", "strange"),
    ],
)
def test_a_known_layer_is_called_by_its_name_and_part(converted, tensor, layer):
    known = ("conv", "attention", "memory", "block/depthwise", "block", "dense")
    assert litert.weight_layers(with_first_layer_named(converted["float32"], tensor), known).layer[0] == layer
