"""Folding, clearing and equalizing leave the function alone; what they do for per-tensor int8; what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base import runtime_env
from helpers.base.errors import InputError, StructureError
from helpers.compress import affine, quantize
from helpers.compress import equalization as eq
from helpers.networks import checkpoints, data, models, training
from helpers.tflite import litert, measure

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
EXACT = 1e-4  # of the largest output


@pytest.fixture(scope="module")
def mobilenet():
    return checkpoints.load("mobilenetv2_fashion_96")


# --- models to try


def built(make, side=10, channels=4):
    inputs = layers.Input((side, side, channels))
    return tf.keras.Model(inputs, make(inputs))


def shaken(model, seed=0):
    """Batch norms as after a training, and kernels whose channels lie far apart."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            for variable in layer.weights:
                positive = "variance" in variable.name
                shape = variable.shape
                variable.assign(10 ** random.uniform(-2, 1, shape) if positive else random.normal(0.2, 1, shape))
        elif eq.has_kernel(layer):
            kernel, *bias = layer.get_weights()
            spread = 10 ** random.uniform(-1, 1, kernel.shape[-2])[:, None]
            layer.set_weights([kernel * spread, *[random.normal(size=b.shape) for b in bias]])
    return model


blocks = st.fixed_dictionaries(
    {
        "cap": st.sampled_from(["linear", None, 6.0]),
        "width": st.integers(1, 6),
        "size": st.sampled_from([1, 3]),
        "stride": st.sampled_from([1, 2]),
        "multiplier": st.sampled_from([0, 1, 2]),  # 0: no depthwise layer
        "padded": st.booleans(),
        "norms": st.tuples(st.booleans(), st.booleans(), st.booleans()),
        "bias": st.booleans(),
        "residual": st.booleans(),
    }
)


def network(specifications):
    """A small MobileNet-like network: blocks as specified, and a classifier."""

    def block(x, cap, width, size, stride, multiplier, padded, norms, bias, residual):
        def normed(x, layer, norm, cap):
            x = layers.BatchNormalization()(layer(x)) if norm else layer(x)
            return x if cap == "linear" else layers.ReLU(cap)(x)

        start = x
        x = normed(x, layers.Conv2D(width, size, padding="same", use_bias=bias), norms[0], cap)
        if multiplier:
            x = layers.ZeroPadding2D(1)(x) if padded else x
            padding = "valid" if padded else "same"
            depthwise = layers.DepthwiseConv2D(3, stride, padding, multiplier, use_bias=not bias)
            x = normed(x, depthwise, norms[1], cap)
        x = normed(x, layers.Conv2D(start.shape[-1] if residual else width, 1), norms[2], "linear")
        return layers.Add()([start, x]) if x.shape == start.shape else x

    def make(x):
        for specification in specifications:
            x = block(x, **specification)
        return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))

    return built(make)


def images(model, seed=0, number=16):
    return np.random.default_rng(seed).normal(size=(number, *model.input_shape[1:])).astype("float32")


def assert_same(model, other, x=None):
    x = images(model) if x is None else x
    before, after = model(x, training=False).numpy(), other(x, training=False).numpy()
    assert np.abs(after - before).max() <= EXACT * np.abs(before).max()


def chain(cap=6.0, width=8):
    """Convolution, depthwise, convolution: two pairs to equalize, channels far apart."""

    def make(x):
        x = layers.ReLU(cap, name="first_relu")(layers.Conv2D(width, 3, name="first")(x))
        x = layers.ReLU(cap)(layers.DepthwiseConv2D(3, name="second")(x))
        return layers.Conv2D(5, 1, name="third")(x)

    return shaken(built(make))


def ranges_out(model, name):
    layer = model.get_layer(name)
    return np.abs(eq.by_output_channel(layer, layer.get_weights()[0])).max(axis=0)


def ranges_in(model, name):
    kernel = model.get_layer(name).get_weights()[0]
    return np.abs(np.moveaxis(kernel, -2, 0)).reshape(kernel.shape[-2], -1).max(axis=1)


# --- the function stays


@given(st.lists(blocks, min_size=1, max_size=3), st.integers(0, 2**16))
@settings(deadline=None, max_examples=10)
def test_all_three_leave_the_function_as_it_was(specifications, seed):
    model = shaken(network(specifications), seed)
    x = images(model, seed)
    folded = eq.fold_batch_norms(model)
    cleared = eq.clear_dead(folded)
    equalized = eq.equalize(cleared)
    for other in (folded, cleared, equalized, eq.equalize(folded)):
        assert not any(isinstance(layer, layers.BatchNormalization) for layer in other.layers)
        assert_same(model, other, x)


def test_mobilenet_v2_too(mobilenet):
    model, random = models.copy(mobilenet), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):  # each channel by itself, near what it was
            layer.set_weights([weight * random.uniform(0.7, 1.4, weight.shape) for weight in layer.get_weights()])
    folded, x = eq.fold_batch_norms(model), images(model, number=8)
    for other in (folded, eq.clear_dead(folded), eq.equalize(folded)):
        assert_same(model, other, x)


def test_a_model_without_batch_norm_comes_back_as_a_copy():
    model = chain()
    twin = eq.fold_batch_norms(model)
    assert twin is not model
    assert_same(model, twin)
    twin.layers[1].bias.assign_add(np.ones(8))
    assert not np.allclose(twin.layers[1].bias, model.layers[1].bias)


def test_an_equalized_model_reloads(tmp_path):
    equalized = eq.equalize(chain())
    assert any(isinstance(layer, eq.CappedReLU) for layer in equalized.layers)
    equalized.save(tmp_path / "equalized.keras")
    reloaded = tf.keras.models.load_model(tmp_path / "equalized.keras", compile=False)
    np.testing.assert_array_equal(reloaded(images(equalized)), equalized(images(equalized)))


# --- what equalization equalizes


@pytest.mark.parametrize("cap", [6.0, None])
def test_ranges_of_neighbours_become_equal(cap):
    model = eq.equalize(chain(cap))
    np.testing.assert_allclose(ranges_out(model, "first"), ranges_in(model, "second"), rtol=0.01)
    np.testing.assert_allclose(ranges_out(model, "second"), ranges_in(model, "third"), rtol=0.01)


def test_a_residual_stream_is_not_scaled_through():
    def make(x):
        stream = layers.Conv2D(4, 1, name="before")(x)
        branch = layers.Conv2D(4, 1, name="out")(layers.ReLU()(layers.Conv2D(6, 1, name="in")(stream)))
        return layers.Conv2D(3, 1, name="after")(layers.Add()([stream, branch]))

    model = shaken(built(make))
    equalized = eq.equalize(model)
    assert_same(model, equalized)
    for name in ("before", "after"):
        np.testing.assert_array_equal(model.get_layer(name).kernel, equalized.get_layer(name).kernel)
    np.testing.assert_allclose(ranges_out(equalized, "in"), ranges_in(equalized, "out"), rtol=0.01)


def test_weights_that_read_a_dead_channel_are_cleared():
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., :3], bias[:3] = 0, [-1, 0, 1]  # the third is constant, and alive
    model.get_layer("first").set_weights([kernel, bias])
    cleared = eq.clear_dead(model)
    assert (ranges_in(cleared, "second") > 0).tolist() == [False, False] + [True] * 6
    assert_same(model, cleared)
    assert_same(model, eq.equalize(cleared))


def test_channel_ranges_of_a_folded_model():
    model = chain()
    table = eq.channel_ranges(model)
    assert table.groupby("layer", sort=False).kind.first().to_dict() == {
        "first": "convolution",
        "second": "depthwise",
        "third": "pointwise",
    }
    second = table[table.layer == "second"]
    sizes = np.abs(model.get_layer("second").get_weights()[0]).max(axis=(0, 1, 3))
    np.testing.assert_allclose(second["range"], sizes)
    assert (second.levels == 2 * np.round(127 * sizes / sizes.max()) + 1).all() and second.levels.min() < 100


# --- what it is for


def test_per_tensor_int8_collapses_and_recovers(mobilenet):
    fashion = data.load("fashion8k")
    calibration = fashion.x_train[training.split(fashion)["calibration"][:100]]
    calibration, x = (models.network_input(part, 96).numpy() for part in (calibration, fashion.x_test[:500]))
    y = fashion.y_test[:500]

    def top1(model):
        file = quantize.convert(model, "int8", calibration, per_channel=False)
        weights = litert.tensors(file).query("constant and dtype == 'int8'")
        assert (weights.scales == 1).all()
        return measure.correct(file, x, y).mean()

    cleared = eq.clear_dead(eq.fold_batch_norms(mobilenet))
    float32 = measure.correct(quantize.convert(mobilenet), x, y).mean()
    assert top1(mobilenet) < 0.5 < 0.85 < top1(cleared)
    assert abs(top1(eq.correct_bias(eq.equalize(cleared), calibration)) - float32) <= 0.03


def test_corrected_biases_bring_the_mean_back():
    model = chain()
    x = images(model, number=64)

    def off(candidate):
        rough = models.copy(candidate)
        for layer in rough.layers:
            if eq.has_kernel(layer):
                kernel, bias = layer.get_weights()
                layer.set_weights([affine.rounded(kernel), bias])
        return np.abs((rough(x).numpy() - model(x).numpy()).mean(axis=(0, 1, 2)))

    corrected = eq.correct_bias(model, x)
    assert off(corrected).max() < 1e-3 * off(model).max()
    for name in ("first", "second", "third"):
        np.testing.assert_array_equal(
            corrected.get_layer(name).get_weights()[0], model.get_layer(name).get_weights()[0]
        )


# --- layers that carry nothing, or nonsense


def test_a_layer_of_zeros_and_a_constant_channel_stay_what_they_are():
    model = chain()
    for name, channels in (("first", slice(0, 1)), ("second", slice(None))):  # one constant channel, all of them
        kernel, bias = model.get_layer(name).get_weights()
        eq.by_output_channel(model.get_layer(name), kernel)[:, channels] = 0  # a view
        model.get_layer(name).set_weights([kernel, np.abs(bias)])
    cleared, x = eq.clear_dead(model), images(model)
    for other in (cleared, eq.equalize(model), eq.equalize(cleared), eq.correct_bias(model, x)):
        assert all(np.isfinite(weight).all() for weight in other.get_weights())
    assert_same(model, eq.equalize(cleared))
    assert (eq.channel_ranges(model).query("layer == 'second'").levels == 1).all()


def with_weight(value):
    model = chain()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[0, 0, 0, 0] = value
    model.get_layer("first").set_weights([kernel, -np.abs(bias)])
    return model


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_without_a_range_are_refused(bad):
    model = with_weight(bad)
    biases = lambda model: eq.correct_bias(model, images(model))  # noqa: E731
    for call in (eq.channel_ranges, eq.fold_batch_norms, eq.clear_dead, eq.equalize, biases):
        with pytest.raises(InputError, match="NaN or infinity"):
            call(model)


# --- what cannot be folded or equalized


def norm(**arguments):
    return layers.BatchNormalization(name="norm", **arguments)


def nested(x):
    return tf.keras.Sequential([layers.Input(x.shape[1:]), layers.Conv2D(3, 1)], name="inner")(x)


def read_twice(x):
    x = layers.Conv2D(4, 1, name="source")(x)
    return layers.Add()([x, norm()(x)])


@pytest.mark.parametrize(
    "make",
    [
        norm(),
        lambda x: norm()(layers.Add(name="sum")([x, layers.Conv2D(4, 1)(x)])),
        lambda x: norm()(layers.Conv2D(4, 1, activation="relu", name="source")(x)),
        read_twice,
        lambda x: norm()(layers.Conv2DTranspose(6, 3)(x)),
        lambda x: norm(axis=1)(layers.Conv2D(10, 1)(x)),
    ],
    ids=["input", "sum", "activation", "read twice", "transposed", "axis"],
)
def test_a_norm_that_cannot_be_folded_stays(make):
    model = shaken(built(make))
    folded = eq.fold_batch_norms(model)
    assert "norm" in [layer.name for layer in folded.layers]
    assert_same(model, folded)


@pytest.mark.parametrize("make", [nested, lambda x: tf.nn.relu(norm()(layers.Conv2D(4, 1)(x)))], ids=["nested", "relu"])
def test_what_is_not_flat_is_opened(make):
    model = shaken(built(make))
    folded = eq.fold_batch_norms(model)
    assert not any(isinstance(layer, (tf.keras.Model, layers.BatchNormalization)) for layer in folded.layers)
    assert_same(model, folded)


def fused(x, activation):
    x = layers.Conv2D(8, 3, activation=activation, name="first")(x)
    return layers.Conv2D(6, 1, name="second")(layers.DepthwiseConv2D(3, activation=activation, name="spread")(x))


@pytest.mark.parametrize("activation", ["relu", tf.nn.relu6, tf.keras.activations.relu])
def test_fused_activations_are_split_off_and_treated(activation):
    model = shaken(built(lambda x: fused(x, activation)))
    assert eq.pairs(model)[["first", "second", "channels"]].to_numpy().tolist() == [
        ["first", "spread", 8],
        ["spread", "second", 8],
    ]
    equalized = eq.equalize(model)
    assert_same(model, equalized)
    np.testing.assert_allclose(ranges_out(equalized, "first"), ranges_in(equalized, "spread"), rtol=0.01)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., :2], bias[:2] = 0, -1
    model.get_layer("first").set_weights([kernel, bias])
    cleared = eq.clear_dead(model)
    assert (ranges_in(cleared, "spread") > 0).tolist() == [False] * 2 + [True] * 6
    assert_same(model, cleared)


class Halved(layers.Layer):
    def call(self, x):
        return x / 2


@pytest.mark.parametrize(
    "read",
    [
        lambda one, norm: layers.MultiHeadAttention(2, 4)(one, value=norm),
        lambda one, norm: layers.MultiHeadAttention(2, 4)(one, norm),
        lambda one, norm: tf.math.divide_no_nan(norm, 1 + tf.abs(one)),
        lambda one, norm: tf.math.squared_difference(one, norm),
        lambda one, norm: tf.stack([one, norm], -1),
    ],
    ids=["by name", "second", "first", "second of an operator", "in a list"],
)
def test_a_norm_is_folded_whichever_argument_reads_it(read):
    runtime_env.seed_everything(0)
    inputs = layers.Input((8, 3))
    norm = layers.BatchNormalization()(layers.Conv1D(4, 1, use_bias=False)(inputs))
    model = tf.keras.Model(inputs, read(layers.Dense(4)(inputs), norm))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.3, 0.9, weight.shape))
    folded, x = eq.fold_batch_norms(model), random.normal(size=(5, 8, 3)).astype("float32")
    assert not any(isinstance(layer, layers.BatchNormalization) for layer in folded.layers)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_layer_of_the_authors_own_stands_beside():
    def make(x):
        x = layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False, name="first")(Halved()(x)))
        return layers.Conv2D(6, 1, name="second")(layers.ReLU()(x))

    model = shaken(built(make))
    equalized = eq.equalize(eq.fold_batch_norms(model))
    assert_same(model, equalized)
    np.testing.assert_allclose(ranges_out(equalized, "first"), ranges_in(equalized, "second"), rtol=0.01)


def test_a_relu_given_by_its_name_is_one():
    model = shaken(built(lambda x: layers.Conv2D(6, 1)(layers.Activation("relu")(layers.Conv2D(8, 3)(x)))))
    assert eq.pairs(model)["channels"].tolist() == [8]
    assert_same(model, eq.equalize(model))


@pytest.mark.parametrize("call", [eq.equalize, eq.clear_dead, eq.pairs])
def test_where_nothing_can_be_treated_it_is_said(call):
    model = built(lambda x: fused(x, "swish"))
    with pytest.raises(StructureError, match=r"it has swish.*: there is nothing to equalize"):
        call(model)


@pytest.mark.parametrize("call", [eq.equalize, eq.clear_dead])
def test_equalizing_wants_a_folded_model(call):
    with pytest.raises(StructureError, match=r"layer norm is a batch norm: call fold_batch_norms\(model\) first"):
        call(built(lambda x: norm()(layers.Conv2D(4, 1)(x))))


@pytest.mark.parametrize(
    "pair",
    [
        lambda: (layers.Conv2D(4, 1), layers.Conv2DTranspose(4, 3)),
        lambda: (layers.Conv2DTranspose(4, 3), layers.Conv2D(4, 1)),
        lambda: (layers.Conv2D(4, 1), layers.Conv2D(6, 3, groups=2)),
        lambda: (layers.Conv2D(4, 1, groups=2), layers.Conv2D(6, 3)),
    ],
)
def test_other_convolutions_are_left_alone_or_scaled_right(pair):
    first, second = pair()
    model = built(lambda x: second(layers.ReLU()(first(x))))
    for call in (eq.clear_dead, eq.equalize):
        try:
            assert_same(model, call(model))
        except StructureError as refused:
            assert "there is nothing to equalize" in str(refused)


def test_correcting_biases_wants_a_folded_model():
    model = built(lambda x: norm()(layers.Conv2D(4, 1, use_bias=False, name="bare")(x)))
    with pytest.raises(StructureError, match="call fold_batch_norms"):
        eq.correct_bias(model, images(model))
    corrected = eq.correct_bias(eq.fold_batch_norms(model), images(model))
    assert corrected.get_layer("bare").use_bias


def test_layers_without_a_bias_get_one_and_activations_are_split_off():
    model = shaken(
        built(lambda x: layers.Conv2D(4, 1)(layers.Conv2D(4, 1, activation="relu", use_bias=False, name="bare")(x)))
    )
    corrected = eq.correct_bias(model, images(model))
    assert np.abs(corrected.get_layer("bare").bias).max() > 0 and eq.structure.linear(corrected.get_layer("bare"))


@pytest.mark.parametrize("spoil", [lambda x: x[:0], lambda x: x * np.nan])
def test_correcting_biases_wants_samples(spoil):
    model = chain()
    with pytest.raises(InputError, match="calibration"):
        eq.correct_bias(model, spoil(images(model)))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: tf.nn.leaky_relu(x, alpha=0.01),
        lambda x: tf.nn.softmax(x, axis=1),
        lambda x: tf.clip_by_value(x, -1.0, 2.0),
        lambda x: tf.concat(tf.split(x, 2, axis=-1)[::-1], -1),
        lambda x: 2 * x[..., :4],
    ],
    ids=["slope", "axis", "bounds", "parts", "slice"],
)
def test_bare_operators_are_called_with_their_own_arguments(between):
    tf.keras.utils.set_random_seed(0)
    source = layers.Input((8, 8, 3))
    model = tf.keras.Model(source, layers.Conv2D(4, 3)(between(layers.Conv2D(8, 3)(source))))
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")

    def off(corrected):
        rough = models.copy(corrected)
        for layer in filter(eq.has_kernel, rough.layers):
            kernel, bias = layer.get_weights()
            layer.set_weights([affine.rounded(kernel), bias])
        return np.abs((rough(x) - model(x)).numpy().mean((0, 1, 2))).max()

    assert off(eq.correct_bias(model, x)) < off(model) / 1000
