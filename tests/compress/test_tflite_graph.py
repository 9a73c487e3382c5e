"""A float `.tflite` as a function: it answers as LiteRT does, its rounding is the quantized file's, and what cannot be is refused."""

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, own_model, quantize, requantize, tflite_graph
from helpers.networks import checkpoints, data, models
from helpers.tflite import flatbuffer, interpreting, litert, scales
from tests import architectures, single_operator

# In the Keras that is named: convolutions of every kind, attention, recurrence, several inputs and outputs, whole numbers.
MODELS = [
    *((name, "2") for name in ("MLP", "Mixer", "LSTM", "two heads", "two inputs", "Rescaling")),
    *((name, "3") for name in ("MobileNet 3", "ViT", "1-D CNN", "U-Net", "detector", "embedding of tokens", "GRU")),
]


def opened(name, library, folder):
    """The float file of an architecture, and samples by the names of its inputs."""
    import keras

    model = architectures.build(name, {"2": tf.keras, "3": keras}[library])
    model.save(folder / "model.keras")
    own, x = own_model.load(folder / "model.keras"), architectures.samples(model, 24)
    left, named = list(x), {}
    for end in own.inputs:  # their shapes tell which is which
        named[end.name] = next(each for each in left if each.shape[1:] == tuple(end.shape))
        left = [each for each in left if each is not named[end.name]]
    return own.file, named


@pytest.mark.parametrize(("name", "library"), MODELS)
def test_architectures(name, library, tmp_path):
    """Exact in float, a gradient for every weight, and rounded as the quantized file is."""
    file, x = opened(name, library, tmp_path)
    graph = tflite_graph.Graph(file)
    given = [tf.constant(x[each]) for each in graph.inputs]
    exact = list(litert.run(file, x).values())
    for wanted, found in zip(exact, graph(*given), strict=True):
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 5e-5 * np.abs(wanted).max()
    assert graph.check_trainable() == []
    variables = list(graph.weights.values())
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(each**2) for each in graph.logits(*given))
    assert all(np.isfinite(each).all() for each in tape.gradient(loss, variables))  # None is no array

    form = requantize.Format()
    quantized = requantize.apply(file, {"*": form}, requantize.calibrate(file, x))
    rounded = list(litert.run(quantized, x).values())
    for wanted, found, ideal in zip(rounded, graph.rounding_as(quantized)(*given), exact, strict=True):
        # What separates the two is a fraction of what separates either from float32.
        assert affine.sqnr(wanted, found.numpy()) > affine.sqnr(ideal, wanted) + 3
    again = litert.run(graph.written(), x)
    assert all(np.array_equal(*pair) for pair in zip(again.values(), exact, strict=True))


@pytest.fixture(scope="module")
def residual():
    model, fashion = checkpoints.load("resnet8_fashion_32"), data.load("fashion8k")
    file = quantize.convert(quantize.freeze(model))
    images = models.network_input(fashion.x_test[:400], 32).numpy()
    return file, images, requantize.calibrate(file, models.network_input(fashion.x_train[:100], 32).numpy())


FORMS = {
    "8 bits": requantize.Format(),
    "8 bits, per-tensor": requantize.Format(8, 8, False),
    "4 bits": requantize.Format(4),
    "4 bits, per-tensor": requantize.Format(4, 8, False),
    "16 bits": requantize.Format(8, 16),
    "weights": requantize.Format(4, None),
}


@pytest.mark.parametrize("kind", FORMS)
def test_simulation_and_file_have_the_same_answers(residual, kind):
    file, images, ranges = residual
    quantized = requantize.apply(file, {"*": FORMS[kind]}, ranges)
    [found] = tflite_graph.Graph(file).rounding_as(quantized)(images)
    wanted = litert.predict(quantized, images)
    assert (found.numpy().argmax(1) == wanted.argmax(1)).mean() >= 0.995
    assert affine.sqnr(wanted, found.numpy()) > 30


@pytest.mark.parametrize("kind", ["8 bits", "8 bits, per-tensor", "4 bits", "4 bits, per-tensor"])
def test_every_operator_gives_the_integers_of_the_kernel(residual, kind):
    """From the file's own integers before it, each operator makes those behind it, in the kernels that run by default: XNNPACK's,
    and the built-in ones of 4-bit convolutions, which round twice. A float32 near a half may be one step off."""
    file, images, ranges = residual
    quantized = requantize.apply(file, {"*": FORMS[kind]}, ranges)
    kinds = []
    for node, apart in steps_apart(file, quantized, images[:100]):
        assert apart.max() < 1.01 and (apart < 0.01).mean() > 0.9995, node
        kinds.append(node.kind)
    assert {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"} <= set(kinds) and len(kinds) >= 14


@pytest.mark.parametrize(
    ("kind", "bits", "layer", "share"),
    [
        ("AVERAGE_POOL_2D", 8, tf.keras.layers.AveragePooling2D(2), 0.9995),
        ("AVERAGE_POOL_2D", 8, tf.keras.layers.AveragePooling2D(3, 2, "same"), 0.9995),
        ("CONV_2D", 4, tf.keras.layers.Conv2D(8, 3, groups=2), 0.9995),
        ("CONV_2D", 4, tf.keras.layers.Conv2D(8, 3, 2, "same", activation="relu6"), 0.9995),
        ("TRANSPOSE_CONV", 8, tf.keras.layers.Conv2DTranspose(8, 3, 2, "same"), 0.995),  # rounds twice as well
    ],
)
def test_operators_with_a_rounding_of_their_own(kind, bits, layer, share):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.layers.Input((12, 12, 8))
    before, after = tf.keras.layers.Conv2D(8, 1), tf.keras.layers.Conv2D(4, 3)
    file = quantize.convert(tf.keras.Model(inputs, after(layer(before(inputs)))))
    x = np.random.default_rng(0).normal(size=(64, 12, 12, 8)).astype("float32")
    quantized = requantize.apply(file, {"*": requantize.Format(bits)}, requantize.calibrate(file, x))
    found = [(node.kind, apart) for node, apart in steps_apart(file, quantized, x)]
    assert kind in [each for each, _ in found]
    for each, apart in found:
        assert apart.max() < 1.01 and (apart < 0.01).mean() > (share if each == kind else 0.9995), each


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_that_lie_halfway_go_to_the_even_integer(per_channel):
    """As in the file: weights that were float16 once, or stand on any grid, lie there often."""
    dense = tf.keras.layers.Dense(5)
    model = tf.keras.Sequential([tf.keras.layers.Input((9,)), dense])
    halves = np.arange(-22, 23).reshape(9, 5) + 0.5
    halves[0] = 127  # so that a step is 1
    dense.set_weights([halves.astype("float32"), np.zeros(5, "float32")])
    file, x = quantize.convert(model), np.random.default_rng(0).normal(size=(50, 9)).astype("float32")
    form = requantize.Format(8, 8, per_channel)
    quantized = requantize.apply(file, {"*": form}, requantize.calibrate(file, x))
    [(_, apart)] = [each for each in steps_apart(file, quantized, x) if each[0].kind == "FULLY_CONNECTED"]
    assert (apart < 0.01).mean() > 0.99


def test_the_step_of_an_output_is_what_its_answers_are_multiples_of(residual):
    file, images, ranges = residual
    quantized = requantize.apply(file, {"*": requantize.Format()}, ranges)
    [step] = scales.of_outputs(quantized)["step"]
    whole = litert.predict(quantized, images) / step
    assert np.abs(whole - np.rint(whole)).max() < 0.01 and len(np.unique(np.rint(whole))) > 50
    weights_only = requantize.apply(file, {"*": requantize.Format(4, None)})
    assert np.isnan(scales.of_outputs(weights_only)["step"]).all()


def steps_apart(file, quantized, x):
    """(Node, how far what it makes of the file's tensors lies from what the file makes, in steps) for all that round."""
    loaded = litert.interpreter(with_all_tensors_as_outputs(quantized), batch=len(x))
    loaded.set_tensor(loaded.get_input_details()[0]["index"], x)
    loaded.invoke()
    ends = {each["index"]: each for each in (*loaded.get_input_details(), *loaded.get_output_details())}

    def real(index):
        return interpreting.real_numbers(loaded.get_tensor(index), ends[index])

    for node, found in tflite_graph.Graph(file).rounding_as(quantized).one_by_one(real):
        step = ends[node.outputs[0]]["quantization"][0]
        if step:
            yield node, np.abs(found.numpy() - real(node.outputs[0])) / step


def with_all_tensors_as_outputs(model):
    """A file that shows what a delegate has inside."""
    with flatbuffer.unpacked(model) as parsed:
        graph = parsed.subgraphs[0]
        for buffer in parsed.buffers:  # those behind the flatbuffer move into it
            buffer.data, buffer.offset, buffer.size = flatbuffer.stored(buffer, model), 0, 0
        graph.outputs, parsed.signatureDefs = [at for node in graph.operators for at in node.outputs], None
        builder = flatbuffers.Builder(len(model))
        builder.Finish(parsed.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def test_a_weight_that_is_trained_reaches_the_file(residual):
    file, images, ranges = residual
    graph = tflite_graph.Graph(file)
    for weight in graph.weights.values():
        weight.assign(weight * 1.1)
    written = graph.written()
    np.testing.assert_allclose(litert.predict(written, images[:8]), graph(images[:8])[0], atol=1e-4)
    quantized = requantize.apply(written, {"*": requantize.Format()}, ranges)
    [found] = tflite_graph.Graph(file).rounding_as(quantized)(images[:8])  # the variables rule, not the file's weights
    assert (
        affine.sqnr(litert.predict(requantize.apply(file, {"*": requantize.Format()}, ranges), images[:8]), found) > 25
    )


def test_layers_in_float_stay_in_float(residual):
    file, images, ranges = residual
    first = litert.weight_layers(file)["name"][0]
    quantized = requantize.apply(file, {"*": requantize.Format(4), first: None}, ranges)
    [found] = tflite_graph.Graph(file).rounding_as(quantized)(images)
    assert affine.sqnr(litert.predict(quantized, images), found.numpy()) > 30


def test_another_model_s_file_is_refused(residual):
    file, _, ranges = residual
    inputs = tf.keras.layers.Input((32, 32, 3))
    other = tf.keras.Model(inputs, tf.keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(StructureError, match="made from another"):
        tflite_graph.Graph(quantize.convert(other)).rounding_as(
            requantize.apply(file, {"*": requantize.Format()}, ranges)
        )


def test_quantized_files_and_broken_weights_are_refused(residual):
    file, _, ranges = residual
    with pytest.raises(InputError, match="quantized already: give the float32"):
        tflite_graph.Graph(requantize.apply(file, {"*": requantize.Format()}, ranges))
    graph = tflite_graph.Graph(file)
    weight = next(iter(graph.weights.values()))
    weight.assign(weight * np.nan)
    with pytest.raises(InputError, match=r"model has NaN or infinity in .+: train or convert it again"):
        tflite_graph.Graph(graph.written())


def test_an_operator_without_a_rule_is_named():
    x = np.zeros((1, 4, 4, 3), "float32")
    blob = single_operator.build("LOCAL_RESPONSE_NORMALIZATION", schema.LocalResponseNormalizationOptionsT, [x])
    with pytest.raises(StructureError, match="model has y0, and LOCAL_RESPONSE_NORMALIZATION has no rule here"):
        tflite_graph.Graph(blob)
    tanh = {"fusedActivationFunction": schema.ActivationFunctionType.TANH}
    with pytest.raises(StructureError, match="the activation that is fused into ADD has no rule"):
        tflite_graph.Graph(single_operator.build("ADD", schema.AddOptionsT, [x, x], **tanh))


def test_what_cannot_be_trained_is_refused_by_its_operator():
    inputs = tf.keras.layers.Input((4,))
    answer = tf.keras.layers.Lambda(lambda x: tf.argmax(x, -1))(tf.keras.layers.Dense(3)(inputs))
    with pytest.raises(StructureError, match=r"stands ARG_MAX .+ which has no gradient"):
        tflite_graph.Graph(quantize.convert(tf.keras.Model(inputs, answer))).check_trainable()
    x = np.zeros((1, 4), "float32")
    with pytest.raises(StructureError, match="nothing to train"):
        tflite_graph.Graph(single_operator.build("ABS", None, [x])).check_trainable()


def test_float16_and_sparse_weights_are_read():
    inputs = tf.keras.layers.Input((8, 8, 3))
    model = tf.keras.Model(inputs, tf.keras.layers.Conv2D(4, 3)(inputs))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype("float32")
    half = quantize.convert(model, "float16")
    graph = tflite_graph.Graph(half)
    assert "float16" in graph.notes[0]
    np.testing.assert_allclose(graph(x)[0], litert.predict(half, x), atol=1e-5)


@pytest.mark.parametrize(
    ("flat", "together"),
    [
        (lambda x: tf.reshape(x, (1, 12)), True),
        (lambda x: tf.reshape(tf.nn.softmax(tf.reshape(x, (1, 4, 3))), (1, 12)), True),
        (lambda x: tf.reshape(tf.transpose(x, (2, 0, 1)), (1, 12)), False),
        (lambda x: tf.reshape(x / tf.reduce_sum(x * x), (1, 12)), False),
        (lambda x: tf.reshape(tf.reverse(tf.reshape(x, (12,)), [0]), (1, 12)), False),
    ],
    ids=["reshaped", "twice", "transposed", "over all", "without an axis"],
)
def test_a_file_for_one_sample_has_many_together_only_if_each_answers_as_alone(flat, together):
    kernel = np.random.default_rng(1).normal(size=(12, 2)).astype("float32")
    function = tf.function(lambda x: flat(x) @ kernel)
    frozen = function.get_concrete_function(tf.TensorSpec((1, 3, 4)))
    file = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype("float32")
    graph = tflite_graph.Graph(file)
    np.testing.assert_allclose(graph(x)[0], np.concatenate([flat(each[None]) @ kernel for each in x]), atol=1e-5)
    traced = tf.function(graph.__call__).get_concrete_function(tf.TensorSpec(x.shape)).graph
    assert any("While" in each.type for each in traced.get_operations()) != together


def test_a_shared_kernel_is_one_variable():
    layers = tf.keras.layers
    left, right = layers.Input((4,), name="left"), layers.Input((4,), name="right")
    shared = layers.Dense(3, use_bias=False)
    model = tf.keras.Model([left, right], layers.Concatenate()([shared(left), shared(right)]))
    graph = tflite_graph.Graph(quantize.convert(model))
    assert len(graph.weights) == 1


def test_layers_that_the_converter_gave_one_bias_have_their_own():
    """It stores equal biases once, such as the zeros of convolutions without a bias."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(0)
    source = y = layers.Input((8, 8, 8))
    for _ in range(3):
        y = layers.Conv2D(8, 3, padding="same", activation="relu", use_bias=False)(y)
    file = quantize.convert(tf.keras.Model(source, y))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 8)).astype("float32")
    graph = tflite_graph.Graph(file)
    assert len({node.inputs[2] for node in graph.nodes() if node.kind == "CONV_2D"}) == 3
    np.testing.assert_array_equal(litert.predict(graph.file, x), litert.predict(file, x))
    formats = {"*": requantize.Format(4, 8, False)}
    ranges = requantize.calibrate(graph.file, x)
    rough = requantize.apply(graph.file, formats, ranges)
    graph.rounding_as(rough).correct_biases(x)
    corrected = requantize.apply(graph.written(), formats, ranges)
    means = [litert.predict(each, x).mean((0, 1, 2)) for each in (file, rough, corrected)]
    assert np.abs(means[2] - means[0]).max() < np.abs(means[1] - means[0]).max() / 4


def test_a_layer_that_is_used_twice_keeps_its_one_bias():
    layers = tf.keras.layers
    a, b, shared = layers.Input((6,)), layers.Input((6,)), layers.Dense(8, "relu", bias_initializer="ones")
    file = quantize.convert(tf.keras.Model([a, b], layers.Add()([shared(a), shared(b)])))
    assert len(tflite_graph.Graph(file).weights) == len({"kernel", "bias"})
