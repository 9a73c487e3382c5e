"""A file cut between its operators: the parts together compute what the whole does, bit for bit, wherever it is cut."""

import numpy as np
import pytest
import tensorflow as tf

from helpers.base import runtime_env
from helpers.compress import quantize, requantize
from helpers.tflite import cut, flatbuffer, interpreting, litert, packing, replay

layers = tf.keras.layers
X = np.random.default_rng(0).normal(size=(20, 12, 12, 3)).astype("float32")
INT8, EVERYTHING = requantize.Format(), requantize.EVERYTHING


@pytest.fixture(scope="module")
def residual():
    """A net with a residual, a tensor that three operators read, and an output that comes early, which one later reads: float file."""
    runtime_env.seed_everything(0)
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    early = layers.Dense(3, name="early")(layers.GlobalAveragePooling2D()(x))
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="spread")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="mix")(y)])
    x = layers.Concatenate()([layers.Conv2D(4, 3, 2, name="left")(x), layers.Conv2D(4, 3, 2, name="right")(x)])
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), early])
    return quantize.convert(tf.keras.Model(inputs, [layers.Dense(5, "softmax", name="late")(x), early]))


@pytest.fixture(scope="module")
def files(residual):
    """Form of numbers -> the same net."""
    ranges = requantize.calibrate(residual, X)
    forms = {
        "int8": INT8,
        "4 bits": requantize.Format(4),
        "dynamic": requantize.Format(8, requantize.DYNAMIC),
        "weights": requantize.Format(8, None),
        "int16": requantize.Format(8, 16),
    }
    return {"float": residual} | {
        name: requantize.apply(residual, {EVERYTHING: form}, ranges) for name, form in forms.items()
    }


def run(file, values):
    """Arrays of the inputs as stored, in their order -> those of the outputs."""
    with runtime_env.quiet():
        loaded = interpreting.opened(file, runtime_env.LITERT_THREADS)
        sources = loaded.get_input_details()
        for source, array in zip(sources, values, strict=True):
            loaded.resize_tensor_input(source["index"], array.shape)
        loaded.allocate_tensors()
    return interpreting.answered(loaded, sources, loaded.get_output_details(), values)


def in_parts(file, places, values):
    """What the outputs of a file are where it is run in parts, from place to place."""
    whole = cut.Cuttable(file)
    known = dict(zip(whole.inputs, values, strict=True))
    for first, last in zip([0, *places], [*places, None], strict=True):
        assert set(whole.live(first)) <= set(known)
        known = {index: known[index] for index in known if index in whole.live(first)}  # nothing else is needed
        taken, given = whole.taken(first, last), whole.given(first, last)
        found = run(whole.part(first, last), [known[index] for index in taken])
        known.update(zip(given, found, strict=True))
    return [known[index] for index in whole.outputs]


@pytest.mark.parametrize("form", ["float", "int8", "4 bits", "dynamic", "weights", "int16"])
def test_two_parts_compute_what_the_whole_does_wherever_it_is_cut(files, form):
    file = files[form]
    whole = cut.Cuttable(file)
    wanted = run(file, [X])
    assert whole.places == list(range(whole.steps)) and len(wanted) == 2
    for place in whole.places[1:]:
        for found, exact in zip(in_parts(file, [place], [X]), wanted, strict=True):
            np.testing.assert_array_equal(found, exact)


def test_as_many_parts_as_steps(files):
    for file in files.values():
        places = cut.Cuttable(file).places[1:]
        for found, exact in zip(in_parts(file, places, [X]), run(file, [X]), strict=True):
            np.testing.assert_array_equal(found, exact)


def test_what_lives_at_a_place(residual):
    whole = cut.Cuttable(residual)
    with flatbuffer.unpacked(residual) as parsed:
        names = [tensor.name.decode() for tensor in parsed.subgraphs[0].tensors]
    assert whole.live(0) == whole.inputs and whole.live(whole.steps) == sorted(whole.outputs)
    ops = list(litert.operators(residual).op)
    behind = ops.index("DEPTHWISE_CONV_2D") + 1
    stem = next(index for index in whole.written(0))
    assert stem in whole.live(behind) and "stem" in names[stem]  # the residual
    assert set(whole.written(behind - 1)) <= set(whole.live(behind))
    assert not set(whole.inputs) & set(whole.live(1))


def test_weights_that_are_unpacked_go_with_whoever_reads_them(files):
    """A kernel among a part's inputs would not be known when its interpreter prepares it."""
    whole = cut.Cuttable(files["weights"])
    assert whole.steps == cut.Cuttable(files["float"]).steps < len(litert.operators(files["weights"]))
    assert all(len(whole.taken(place)) <= 3 for place in whole.places)
    assert "DEQUANTIZE" in set(litert.operators(whole.part(whole.steps - 2)).op)


def test_how_far_two_files_compute_the_same(residual, files):
    ranges, names = requantize.calibrate(residual, X), list(litert.weight_layers(residual).name)
    float_file, steps = cut.Cuttable(residual), litert.operators(residual)
    operators = [operator.outputs[0] for operator in _operators(residual)]
    for name in names:
        with flatbuffer.unpacked(residual) as parsed:
            tensors = [tensor.name.decode() for tensor in parsed.subgraphs[0].tensors]
        alone = requantize.apply(residual, {name: INT8}, ranges)
        common, twins = float_file.common(cut.Cuttable(alone))
        assert common == [tensors[index] for index in operators].index(name)
        assert set(float_file.live(common)) <= set(twins)
    everything = cut.Cuttable(files["int8"])
    assert everything.common(everything)[0] == everything.steps
    assert float_file.common(everything)[0] == 0
    assert len(steps) == float_file.steps


def _operators(file):
    with flatbuffer.unpacked(file) as parsed:
        return parsed.subgraphs[0].operators


@pytest.mark.parametrize("what", ["constant", "option", "scale", "shape"])
def test_one_difference_ends_what_is_common(files, what):
    """In the last convolution, of an int8 file."""
    file = files["int8"]
    with flatbuffer.unpacked(file) as parsed:
        graph = parsed.subgraphs[0]
        *_, last = (each for each in graph.operators if flatbuffer.operator_name(parsed, each) == "CONV_2D")
        number, kernel = graph.operators.index(last), graph.tensors[last.inputs[1]]
        if what == "constant":
            buffer = parsed.buffers[kernel.buffer]
            changed = np.array(flatbuffer.stored(buffer, file))
            changed[7] ^= 1
            buffer.data, buffer.offset, buffer.size = changed, 0, 0
        elif what == "option":
            last.builtinOptions.strideH += 1
        elif what == "scale":
            kernel.quantization.scale = np.asarray(kernel.quantization.scale) * 2
        else:
            kernel.shape = list(kernel.shape[::-1])
        other = packing.packed(parsed, file)
    assert cut.Cuttable(file).common(cut.Cuttable(other))[0] == number


def test_open_sizes_and_files_for_one_sample():
    inputs = layers.Input((None, None, 3))
    x = layers.Conv2D(6, 3, activation="relu")(inputs)
    open_size = quantize.convert(
        tf.keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))))
    )
    function = tf.function(lambda x: tf.nn.relu(tf.reshape(x * 3.0, (1, 36, 12)) + 1.0) * 2.0)
    frozen = function.get_concrete_function(tf.TensorSpec((1, 12, 12, 3)))
    one = tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()
    for file, x in ((open_size, X), (open_size, X[:, :9]), (one, X[:1])):
        for place in cut.Cuttable(file).places[1:]:
            for found, exact in zip(in_parts(file, [place], [x]), run(file, [x]), strict=True):
                np.testing.assert_array_equal(found, exact)


def test_no_place_where_only_a_size_is_handed_on():
    """A part would not know it before it runs, and could not prepare its kernels."""
    inputs = layers.Input((None, 4))
    size = tf.shape(inputs)
    x = layers.Dense(6, "relu")(layers.Dense(6, "relu")(inputs))
    file = quantize.convert(tf.keras.Model(inputs, tf.reshape(x, (size[0], size[1] * 6))))
    ops, whole = list(litert.operators(file).op), cut.Cuttable(file)
    assert "SHAPE" in ops
    shapes = {index for step, op in enumerate(ops) if op == "SHAPE" for index in whole.written(step)}
    assert not any(shapes & set(whole.live(place)) for place in whole.places)
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    for place in whole.places[1:]:
        np.testing.assert_array_equal(in_parts(file, [place], [x])[0], run(file, [x])[0])


def converted(function):
    frozen = tf.function(function).get_concrete_function(tf.TensorSpec((1, 6)))
    with runtime_env.quiet():
        return tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert()


def test_files_with_memory_chance_or_several_graphs_are_not_cut():
    def loop(x):
        return tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, tf.sin(x)), (0, x * 2.0))[1]

    plain = converted(lambda x: tf.sin(tf.nn.relu(x) + 1.0))
    with flatbuffer.unpacked(plain) as parsed:
        parsed.subgraphs[0].tensors[parsed.subgraphs[0].operators[1].outputs[0]].isVariable = True
        remembering = packing.packed(parsed, plain)
    assert len(cut.Cuttable(plain).places) == 3
    for file in (converted(loop), remembering, converted(lambda x: tf.sin(x + tf.random.uniform((1, 6), seed=1)))):
        assert cut.Cuttable(file).places == [0]
    several = cut.Cuttable(converted(loop))
    assert several.common(several)[0] == several.steps


@pytest.fixture
def worth_it(monkeypatch):
    """However small a file is."""
    monkeypatch.setattr(replay, "WORTH_BYTES", 0)


@pytest.mark.usefixtures("worth_it")
@pytest.mark.parametrize("number", [1, 20, 64, 70])
def test_a_replay_answers_as_litert_does(residual, files, number):
    """For one sample, one batch, and two of which the last is filled up."""
    x = {"input": np.random.default_rng(1).normal(size=(number, 12, 12, 3)).astype("float32")}
    ranges = requantize.calibrate(residual, X)
    for base, formats in (
        (residual, lambda name: {name: INT8}),
        (files["int8"], lambda name: {EVERYTHING: INT8, name: None}),
    ):
        begun, places = replay.Replay(base, x, True), []
        for name in litert.weight_layers(residual).name:
            variant = requantize.apply(residual, formats(name), ranges)
            found, exact = begun.answers(variant), litert.run(variant, x, batch=64, admits_batches=True)
            places.append(begun.place)
            assert len(found) == 2
            for one, other in zip(found.values(), exact.values(), strict=True):
                np.testing.assert_array_equal(one, other)
        assert places == sorted(places) and places[-1] > places[0]


@pytest.mark.usefixtures("worth_it")
def test_a_replay_for_one_sample_at_a_time(residual):
    x = {"input": X[:5]}
    variant = requantize.apply(
        residual, {litert.weight_layers(residual).name.iloc[-1]: INT8}, requantize.calibrate(residual, X)
    )
    begun = replay.Replay(residual, x, False)
    found, exact = begun.answers(variant), litert.run(variant, x)
    assert begun.place > 0
    for one, other in zip(found.values(), exact.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("worth_it")
def test_no_more_is_kept_than_allowed(residual):
    x = {"input": X}
    last = litert.weight_layers(residual).name.iloc[-1]
    variant = requantize.apply(residual, {last: INT8}, requantize.calibrate(residual, X))
    exact = litert.run(variant, x, batch=64)
    for kept, cuts in ((10_000_000, True), (20 * 11 * 4, True), (100, False)):
        begun = replay.Replay(residual, x, True, kept)
        for found, wanted in zip(begun.answers(variant).values(), exact.values(), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert (begun.place > 0) == cuts and begun.kept_bytes() <= kept


@pytest.mark.usefixtures("worth_it")
def test_a_file_that_is_cut_before_where_the_base_is_runs_whole(residual):
    x, names = {"input": X}, list(litert.weight_layers(residual).name)
    ranges = requantize.calibrate(residual, X)
    begun = replay.Replay(residual, x, True)
    for name in (names[-1], names[1]):
        variant = requantize.apply(residual, {name: INT8}, ranges)
        exact = litert.run(variant, x, batch=64)
        for found, wanted in zip(begun.answers(variant).values(), exact.values(), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.usefixtures("worth_it")
def test_parts_that_would_answer_otherwise_are_not_used(residual, monkeypatch):
    opened = replay._opened

    def inexact(part, taken, given, first):
        run, last = opened(part, taken, given, first), set(given) & set(cut.Cuttable(residual).outputs)
        if taken == cut.Cuttable(residual).inputs or not last:
            return run
        return lambda batch: {index: value * np.float32(1 + 1e-6) for index, value in run(batch).items()}

    monkeypatch.setattr(replay, "_opened", inexact)
    x, name = {"input": X}, litert.weight_layers(residual).name.iloc[-1]
    variant = requantize.apply(residual, {name: INT8}, requantize.calibrate(residual, X))
    begun = replay.Replay(residual, x, True)
    for found, exact in zip(begun.answers(variant).values(), litert.run(variant, x, batch=64).values(), strict=True):
        np.testing.assert_array_equal(found, exact)
    assert begun.kept_bytes() == 0


@pytest.mark.usefixtures("worth_it")
def test_a_file_whose_tensors_cannot_be_told_runs_whole(residual, monkeypatch):
    monkeypatch.setattr(replay, "_allocate", lambda *_: (_ for _ in ()).throw(RuntimeError("no such kernel")))
    begun = replay.Replay(residual, {"input": X}, True)
    for found, exact in zip(
        begun.answers(residual).values(), litert.run(residual, {"input": X}, batch=64).values(), strict=True
    ):
        np.testing.assert_array_equal(found, exact)
    assert begun.place == 0
