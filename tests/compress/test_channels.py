"""Structured pruning: the narrow model computes what the masked one does; what is scored, kept, counted and refused."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import __main__
from helpers.base import runtime_env
from helpers.base.errors import StructureError
from helpers.compress import channels, equalization, qat, quantize
from helpers.networks import checkpoints, models

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
EXACT = 1e-5  # of the largest output


def built(make, side=10, width=4):
    inputs = layers.Input((side, side, width))
    return tf.keras.Model(inputs, make(inputs))


def shaken(model, seed=0):
    """Every weight as after some training: no batch norm, bias or slope is what it was initialized to."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            positive = "variance" in variable.name or "caps" in variable.name
            spread = random.normal(0.1, 0.5, variable.shape)
            variable.assign(np.abs(spread) + 0.1 if positive else spread)
    return model


def images(model, number=4, seed=0):
    return np.random.default_rng(seed).normal(size=(number, *model.input_shape[1:])).astype("float32")


def assert_same(model, other):
    x = images(model)
    before, after = (np.concatenate([np.ravel(y) for y in tf.nest.flatten(m(x))]) for m in (model, other))
    assert np.abs(after - before).max() <= EXACT * max(1, np.abs(before).max())


def chosen_masks(model, seed):
    random = np.random.default_rng(seed)
    masks = {}
    for name, group in channels.groups(model).items():
        masks[name] = random.random(group.width) < 0.5
        masks[name][random.integers(group.width)] = True
    return masks


# --- the narrow model computes what the masked one computes

blocks = st.fixed_dictionaries(
    {
        "sort": st.sampled_from(["chain", "inverted residual", "bottleneck", "branches"]),
        "width": st.integers(1, 6),
        "inner": st.integers(1, 9),
        "size": st.sampled_from([1, 3]),
        "stride": st.sampled_from([1, 2]),
        "padding": st.sampled_from(["same", "valid"]),
        "multiplier": st.sampled_from([1, 2]),
        "activation": st.sampled_from(["relu6", "prelu", "shared prelu", "capped", "own", "swish"]),
        "bias": st.booleans(),
        "norm": st.booleans(),
    }
)
heads = st.sampled_from(["flatten", "average", "maximum", "two dense"])


def activated(x, activation):
    if activation == "own":
        return x
    return {
        "relu6": lambda: layers.ReLU(6.0),
        "prelu": layers.PReLU,
        "shared prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
        "capped": equalization.CappedReLU,
        "swish": lambda: layers.Activation("swish"),
    }[activation]()(x)


def network(specifications, head, side=16):
    def block(x, sort, width, inner, size, stride, padding, multiplier, activation, bias, norm):
        own = "relu" if activation == "own" else None

        def normed(x, layer):
            x = layer(x)
            return activated(layers.BatchNormalization()(x) if norm else x, activation)

        def convolution(width, size=1, stride=1, padding="same"):
            return layers.Conv2D(width, size, stride, padding, use_bias=bias, activation=own)

        if sort == "chain":
            return layers.Dropout(0.2)(normed(x, convolution(width, size, stride, padding)))
        if sort == "branches":
            y = layers.ZeroPadding2D(1)(normed(x, convolution(inner)))
            return layers.Add()([layers.Conv2D(width, 3)(y), layers.Conv2D(width, 3, use_bias=bias)(y)])
        y = normed(x, convolution(inner))
        if sort == "inverted residual":
            y = normed(y, layers.DepthwiseConv2D(3, stride, "same", multiplier, use_bias=bias, activation=own))
        else:
            y = normed(y, convolution(inner + 1, 3, stride))
        y = layers.Conv2D(x.shape[-1] if stride == 1 else width, 1, use_bias=bias)(y)
        y = layers.BatchNormalization()(y) if norm else y
        return layers.ReLU()(layers.Add()([x, y])) if stride == 1 else y

    def make(x):
        for specification in specifications:
            x = block(x, **specification)
        x = activated(layers.Conv2D(5, 1)(x), specifications[0]["activation"])
        x = {
            "flatten": lambda: layers.Dropout(0.1)(layers.Flatten()(layers.MaxPooling2D(2, padding="same")(x))),
            "average": lambda: layers.GlobalAveragePooling2D()(x),
            "maximum": lambda: layers.GlobalMaxPooling2D(keepdims=True)(x),
            "two dense": lambda: layers.Dense(7, activation="tanh")(layers.BatchNormalization()(layers.Flatten()(x))),
        }[head]()
        return layers.Dense(3, activation="softmax")(x)

    return shaken(built(make, side))


@given(st.lists(blocks, min_size=1, max_size=3), heads, st.integers(0, 2**16))
@settings(deadline=None, max_examples=12)
def test_narrow_computes_what_masked_computes(specifications, head, seed):
    model = network(specifications, head)
    masks, weights = chosen_masks(model, seed), model.get_weights()
    narrow, masked = channels.narrow(model, masks), channels.masked(model, masks)
    assert_same(masked, narrow)
    assert [layer.name for layer in narrow.layers] == [layer.name for layer in model.layers]
    for name, mask in masks.items():
        assert narrow.get_layer(name).output_shape[-1] == mask.sum()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert_same(channels.masked(model, {name: mask | True for name, mask in masks.items()}), model)


def bare(inner=(6, 5)):
    """Convolution, depthwise, convolution, dense, dense: three groups."""

    def make(x):
        x = layers.ReLU(6.0)(layers.BatchNormalization(name="norm")(layers.Conv2D(inner[0], 3, name="first")(x)))
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="spread")(x)
        x = layers.Flatten(name="flat")(layers.Conv2D(inner[1], 3, strides=2, activation="relu", name="second")(x))
        return layers.Dense(3, name="logits")(layers.Dense(7, activation="relu", name="hidden")(x))

    return shaken(built(make))


@pytest.fixture(scope="module")
def net():
    return bare()


def test_nothing_reads_what_is_masked(net):
    masks = chosen_masks(net, 3)
    masked = channels.masked(net, masks)
    other = models.copy(masked)
    for name, mask in masks.items():
        kernel, bias = masked.get_layer(name).get_weights()
        other.get_layer(name).set_weights([np.where(mask, kernel, 7 * kernel + 1), np.where(mask, bias, 3)])
    np.testing.assert_allclose(other(images(net)), masked(images(net)), rtol=1e-6)
    assert np.abs(masked(images(net)).numpy() - net(images(net)).numpy()).max() > 0.1


@pytest.fixture(scope="module")
def mobilenet():
    return checkpoints.load("mobilenetv2_fashion_96")


def test_mobilenet_v2_is_exact_too(mobilenet):
    masks = channels.keep(channels.scores(mobilenet, "gamma"), 0.5)
    assert_same(channels.masked(mobilenet, masks), channels.narrow(mobilenet, masks))


def test_a_sequential_model_becomes_a_functional_one():
    model = models.mlp((9, 6), inputs=5, classes=3)
    masks = chosen_masks(model, 0)
    assert list(masks) == ["hidden_1", "hidden_2"]
    assert_same(channels.masked(model, masks), channels.narrow(model, masks))
    assert channels.narrow(model, masks).name == "mlp"


def test_layers_that_another_model_uses_too_are_read_right():
    mlp = models.mlp((6,), inputs=5, classes=3)
    model = tf.keras.Sequential([*mlp.layers, layers.ReLU(), layers.Dense(2, name="after")])
    model.build((None, 5))
    for one, expected in ((mlp, ["hidden_1"]), (model, ["hidden_1", "logits"])):
        masks = chosen_masks(one, 1)
        assert list(masks) == expected
        assert_same(channels.masked(one, masks), channels.narrow(one, masks))


# --- groups


def test_groups_tell_what_goes_along(net):
    first, second, hidden = channels.groups(net).values()
    assert (first.name, first.width) == ("first", 6)
    assert first.followers[0] == "norm" and first.followers[-1] == "spread" and first.consumers == ("second",)
    assert second.followers == ("flat",) and second.consumers == ("hidden",)
    assert hidden.followers == () and hidden.consumers == ("logits",)


def test_one_channel_less_saves_what_its_group_says(net):
    before = net.count_params(), channels.macs(net)
    for name, group in channels.groups(net).items():
        less = channels.narrow(net, {name: np.arange(group.width) > 0})
        assert (before[0] - less.count_params(), before[1] - channels.macs(less)) == (group.parameters, group.macs)


def test_mobilenet_v2_offers_its_expansions(mobilenet):
    found = channels.groups(mobilenet, "*_expand")
    assert len(found) == 16
    group = found["block_3_expand"]
    assert len(group.followers) == 6 and group.consumers == ("block_3_project",)
    outside_a_residual = {"Conv1", "expanded_conv_project", "block_16_project", "Conv_1"}
    assert set(channels.groups(mobilenet)) - set(found) == outside_a_residual


def test_resnet_50_offers_its_inner_channels():
    model = models.resnet50(32, 5)
    assert len(channels.groups(model, "conv?_block?_[12]_conv")) == len(channels.groups(model)) - 1 == 32
    masks = chosen_masks(model, 0)
    assert_same(channels.masked(model, masks), channels.narrow(model, masks))
    np.testing.assert_array_equal(model.get_weights()[0], models.resnet50(32, 5).get_weights()[0])


def test_a_residual_stream_and_the_output_stay_whole():
    model = models.resnet8(16, 4)
    assert list(channels.groups(model)) == ["stack_1_1_conv", "stack_2_1_conv", "stack_3_1_conv"]


def test_multiply_accumulates_are_counted_by_hand(net):
    convolutions = 8 * 8 * 6 * 4 * 9 + 6 * 6 * 12 * 9 + 2 * 2 * 5 * 12 * 9
    assert channels.macs(net) == convolutions + 20 * 7 + 7 * 3


# --- scores


def test_l1_is_the_norm_of_what_makes_the_channel(net):
    found = channels.scores(net, "l1")
    np.testing.assert_allclose(found["first"], np.abs(net.get_layer("first").kernel).sum(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found["hidden"], np.abs(net.get_layer("hidden").kernel).sum(axis=0), rtol=1e-6)
    assert all(values.dtype == np.float64 for values in found.values())


def test_gamma_is_the_scale_of_the_first_batch_norm(mobilenet):
    found = channels.scores(mobilenet, "gamma", only="block_5_expand")
    np.testing.assert_array_equal(found["block_5_expand"], np.abs(mobilenet.get_layer("block_5_expand_BN").gamma))


def test_gamma_wants_a_batch_norm(net):
    with pytest.raises(StructureError, match="none follows second"):
        channels.scores(net, "gamma")


def test_activation_is_what_the_next_layers_read(net):
    x = images(net, 50)
    found = channels.scores(net, "activation", x)
    read = tf.keras.Model(net.inputs, [net.get_layer(name).input for name in ("second", "hidden")])(x)
    spread, flat = (np.abs(values).reshape(-1, values.shape[-1]).mean(axis=0) for values in read)
    np.testing.assert_allclose(found["first"], spread.reshape(6, 2).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["second"], flat.reshape(-1, 5).mean(axis=0), rtol=1e-5)


def test_random_repeats_with_its_seed(net):
    first, again, other = (channels.scores(net, "random", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["first"], again["first"])
    assert (first["first"] != other["first"]).any()


# --- what to keep


def widths(masks):
    return [int(mask.sum()) for mask in masks.values()]


def test_the_lowest_scores_go():
    masks = channels.keep({"a": np.array([3.0, 1, 2, 4]), "b": np.array([1.0, 1, 1, 0])}, 0.5)
    assert masks["a"].tolist() == [True, False, False, True]
    assert masks["b"].tolist() == [True, True, False, False]


def test_one_threshold_for_all_layers():
    scores = {"even": np.ones(8), "one strong": np.array([9.0, *[1e-3] * 7]), "scaled": 1e6 * np.ones(8)}
    masks = channels.keep(scores, 7 / 24, "global")
    assert widths(masks) == [8, 1, 8]
    assert widths(channels.keep(scores, 0.9, "global")) == [1, 1, 1]


@given(
    st.lists(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), min_size=1, max_size=4),
    st.floats(0.001, 0.999),
    st.sampled_from(channels.SCOPES),
    st.sampled_from([1, 4, 8]),
)
@settings(max_examples=200, deadline=None)
def test_no_group_is_emptied_and_multiples_are_kept(lists, ratio, scope, multiple):
    scores = {str(number): np.array(values) for number, values in enumerate(lists)}
    masks = channels.keep(scores, ratio, scope, multiple)
    for name, values in scores.items():
        kept = masks[name]
        assert kept.sum() == len(values) or (kept.sum() >= multiple and kept.sum() % multiple == 0)
        assert kept.all() or values[kept].min() >= values[~kept].max()
    if multiple == 1 and scope == "global":
        total, protected = sum(map(len, lists)), len(lists)
        assert sum(widths(masks)) == max(total - round(ratio * total), protected)


@pytest.mark.parametrize("ratio, expected", [(0.99, 8), (0.45, 8), (0.4, 16), (0.2, 16), (0.01, 20)])
def test_widths_are_rounded_to_the_nearest_multiple(ratio, expected):
    assert widths(channels.keep({"a": np.arange(20.0)}, ratio, multiple=8)) == [expected]


# --- a narrow model is a model like any other


def test_a_narrow_model_saves_converts_trains_and_narrows_again(net, tmp_path):
    compiled = models.compile_classifier(models.copy(net))
    narrow = channels.prune(compiled, 0.5)
    assert [group.width for group in channels.groups(narrow).values()] == [3, 3, 3]
    x = images(net, 20)
    narrow.save(tmp_path / "narrow.keras")
    loaded = tf.keras.models.load_model(tmp_path / "narrow.keras", compile=False)
    np.testing.assert_array_equal(loaded(x), narrow(x))
    assert quantize.convert(narrow, "int8", x)[4:8] == b"TFL3"
    models.compile_classifier(narrow).fit(x, np.arange(20) % 3, verbose=0)
    twice = channels.prune(narrow, 0.4, "activation", "global", calibration=x)
    assert twice.count_params() < narrow.count_params()


def test_a_narrow_model_trains_quantization_aware():
    def residual(x):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", name="inner")(x)))
        x = layers.Add()([x, layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))])
        return layers.Dense(4)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))

    narrow = channels.prune(built(residual), 0.5, multiple=8)
    assert narrow.get_layer("inner").filters == 8
    x = images(narrow, 8)
    aware = qat.start_calibrated(qat.quantization_aware(narrow), narrow, x)
    assert np.abs(aware(x).numpy() - narrow(x).numpy()).max() < 0.1 * np.abs(narrow(x)).max()
    assert quantize.convert(aware, "qat")[4:8] == b"TFL3"


# --- refused, by name


def attention(x):
    x = layers.Conv2D(6, 1, name="source")(x)
    return layers.Dense(2)(layers.MultiHeadAttention(2, 3, name="attention")(x, x))


def squeezed(x):
    x = layers.Conv2D(6, 1, name="source")(x)
    weight = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Conv2D(2, 1)(layers.Multiply(name="product")([x, weight]))


def between(layer):
    return lambda x: layers.Conv2D(2, 1)(layer(layers.Conv2D(6, 1, name="source")(x)))


def shared(x):
    twice = layers.Conv2D(4, 1, name="twice")
    return layers.Dense(2)(twice(twice(x)))


def nested(x):
    return tf.keras.Sequential([layers.Input(x.shape[1:]), layers.Conv2D(3, 1)], name="inner")(x)


def joined(x):
    sides = [layers.Conv2D(3, 1, name=name)(x) for name in ("left", "right")]
    return layers.Conv2D(2, 1)(layers.Concatenate(name="joint")(sides))


@pytest.mark.parametrize(
    "make, whole, why",
    [
        (joined, "left", "cannot be followed through joint (Concatenate)"),
        (squeezed, "source", "cannot be followed through product (Multiply)"),
        (attention, "source", "cannot be followed through attention (MultiHeadAttention)"),
        (between(layers.Reshape((5, 20, 6), name="other")), "source", "through other (Reshape)"),
        (between(layers.Softmax(name="other")), "source", "through other (Softmax)"),
        (between(layers.Activation("softmax", name="other")), "source", "through other (Activation with softmax)"),
        (between(layers.LayerNormalization(name="other")), "source", "through other (LayerNormalization)"),
        (between(layers.BatchNormalization(axis=1, name="other")), "source", "through other (BatchNormalization)"),
        (between(layers.Lambda(lambda x: x, name="other")), "source", "through other (Lambda)"),
        (between(layers.Conv2DTranspose(3, 3, name="other")), "source", "through other (Conv2DTranspose)"),
        (between(layers.Conv2D(6, 1, activation="softmax", name="bent")), "bent", "Conv2D with softmax in bent mixes"),
        (between(layers.Conv2D(6, 1, groups=2, name="grouped")), "grouped", "it is a grouped convolution"),
        (between(layers.Conv2D(6, 1, groups=2, name="grouped")), "source", "grouped, a grouped convolution, reads"),
        (lambda x: layers.Conv2D(6, 1, name="last")(x), "last", "the model's output"),
        (lambda x: layers.Add(name="sum")([x, layers.Conv2D(3, 1, name="side")(x)]), "side", "added to others in sum"),
    ],
)
def test_a_group_that_cannot_be_followed_stays_whole_and_says_why(make, whole, why):
    def model(x):  # what can be pruned is pruned beside it
        return make(layers.Conv2D(3, 1, name="reader")(layers.ReLU()(layers.Conv2D(8, 1, name="good")(x))))

    model = shaken(built(model))
    assert why in channels.left_whole(model)[whole] and whole not in channels.groups(model)
    assert whole not in channels.left_whole(model, only="good")
    masks = channels.keep(channels.scores(model), 0.5)
    narrow = channels.narrow(model, masks)
    assert narrow.get_layer("good").output_shape[-1] == 4 and "good" in masks
    assert_same(channels.masked(model, masks), narrow)


@pytest.mark.parametrize("make", [between(tf.nn.relu), nested], ids=["bare operator", "nested"])
def test_what_is_not_flat_is_opened(make):
    model = shaken(built(lambda x: layers.Conv2D(3, 1)(make(layers.Conv2D(3, 1, name="good")(x)))))
    narrow = channels.prune(model, 0.34)
    assert narrow.count_params() < model.count_params() and len(channels.groups(model)) >= 2


def test_a_shared_layer_is_refused():
    with pytest.raises(StructureError, match="layer twice is used more than once: give each place a layer of its own"):
        channels.groups(built(shared))


def test_channels_of_one_dimension_go_too():
    inputs = layers.Input((20, 3))
    x = layers.MaxPooling1D()(layers.BatchNormalization()(layers.Conv1D(8, 3, activation="relu", name="first")(inputs)))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(6, 3, activation="relu", name="second")(x))
    model = shaken(tf.keras.Model(inputs, layers.Dense(4)(x)))
    masks = channels.keep(channels.scores(model), 0.5)
    assert set(masks) == {"first", "second"}
    assert_same(channels.masked(model, masks), channels.narrow(model, masks))
    assert channels.macs(model) == 18 * 3 * 3 * 8 + 7 * 3 * 8 * 6 + 6 * 4


def test_a_layer_left_out_may_lead_anywhere():
    model = built(lambda x: layers.Conv2D(2, 1)(layers.ReLU()(layers.Conv2D(8, 1, name="good")(joined(x)))))
    narrow = channels.prune(model, 0.5, only="good")
    assert channels.compare(model, narrow, "good").kept.tolist() == [4]
    assert narrow.get_layer("left").output_shape[-1] == 3


@pytest.mark.parametrize("head", [layers.Softmax(), layers.Reshape((-1,)), layers.Activation("softmax")])
def test_what_stands_in_the_head_is_no_obstacle(head):
    model = built(lambda x: head(layers.Dense(3, name="logits")(layers.Conv2D(6, 1, name="first")(x))))
    assert list(channels.groups(model)) == ["first"]


class Subclassed(tf.keras.Model):
    def call(self, x):
        return x


def test_subclassed_and_unbuilt_models_are_refused():
    for model, message in (
        (Subclassed(name="own"), "model own is not functional"),
        (tf.keras.Sequential([layers.Dense(3)], name="empty"), "model empty is not functional"),
    ):
        with pytest.raises(StructureError, match=message):
            channels.groups(model)


def test_a_model_of_two_inputs_is_narrowed():
    left, right = layers.Input((3,)), layers.Input((3,))
    x = layers.Add()(
        [layers.Dense(2)(layers.Dense(8, "relu", name=name)(x)) for name, x in (("a", left), ("b", right))]
    )
    narrow = channels.prune(tf.keras.Model([left, right], x), 0.5)
    assert [narrow.get_layer(name).units for name in "ab"] == [4, 4]


def test_weights_that_are_not_numbers_are_refused(net):
    model = models.copy(net)
    model.get_layer("first").bias.assign([np.nan] * 6)
    with pytest.raises(StructureError, match="weights of first hold NaN"):
        channels.scores(model)


def test_nothing_to_prune():
    model = built(layers.Dense(3))
    assert channels.groups(model) == {}
    with pytest.raises(StructureError, match="no channels to remove"):
        channels.prune(model, 0.5)


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, float("nan"), "half", None, True])
def test_impossible_ratios(ratio):
    with pytest.raises(StructureError, match=r"ratio=.* must lie between 0 and 1"):
        channels.keep({"a": np.ones(3)}, ratio)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"criterion": "l7"}, "criterion='l7' is unknown: choose one of l1, gamma, activation, random"),
        ({"scope": "all"}, "scope='all' is unknown: choose one of layer, global"),
        ({"multiple": 0}, "multiple=0 must be a whole number"),
        ({"criterion": "activation"}, r"needs float32 samples of shape \(samples, 10, 10, 4\)"),
        ({"criterion": "activation", "calibration": np.zeros((3, 8, 8, 4))}, r"has shape \(3, 8, 8, 4\)"),
        ({"criterion": "activation", "calibration": np.full((1, 10, 10, 4), np.nan)}, "NaN or infinity"),
        ({"only": "third"}, "only='third'"),
    ],
)
def test_bad_requests(net, arguments, message):
    with pytest.raises(StructureError, match=message):
        channels.prune(net, 0.5, **arguments)


@pytest.mark.parametrize(
    "masks, message",
    [
        ({}, "masks names 'nothing'"),
        ({"third": np.ones(3, bool)}, "masks names 'third'"),
        ({"logits": np.ones(3, bool)}, "masks names 'logits'"),
        ({"first": np.ones(5, bool)}, r"mask of first has dtype bool, shape \(5,\)"),
        ({"first": np.zeros(6, bool)}, "keeps 0: it must be bool"),
        ({"first": np.ones(6)}, "dtype float64"),
    ],
)
def test_masks_that_do_not_fit(net, masks, message):
    for call in (channels.masked, channels.narrow):
        with pytest.raises(StructureError, match=message):
            call(net, masks)


def test_scores_that_are_not_numbers():
    with pytest.raises(StructureError, match="scores of a must be one finite number"):
        channels.keep({"a": np.array([1, np.nan])}, 0.5)


# --- the command


def run(*arguments):
    return CliRunner().invoke(__main__.main, ["prune-channels", *map(str, arguments)])


@pytest.fixture
def saved(net, tmp_path):
    net.save(tmp_path / "net.keras")
    return tmp_path / "net.keras"


def test_the_command_writes_the_narrow_model_and_its_table(net, saved, tmp_path):
    np.savez(tmp_path / "samples.npz", x=images(net, 10))
    output = tmp_path / "out" / "small.keras"
    arguments = ["--ratio", 0.5, "--criterion", "activation", "--calibration", tmp_path / "samples.npz"]
    result = run(saved, *arguments, "--output", output)
    assert result.exit_code == 0, result.output
    narrow = tf.keras.models.load_model(output, compile=False)
    assert_same(narrow, channels.prune(net, 0.5, "activation", calibration=images(net, 10)))
    table = pd.read_csv(output.with_suffix(".csv"))
    assert table[["group", "width", "kept"]].values.tolist() == [["first", 6, 3], ["second", 5, 3], ["hidden", 7, 3]]
    for line in (
        f"Parameters: {net.count_params():,} -> {narrow.count_params():,}",
        f"Multiply-accumulates: {channels.macs(net):,} -> {channels.macs(narrow):,}",
        "times as fast",
    ):
        assert line in result.output


def test_equalized_models_can_be_narrowed_too(tmp_path):
    inputs = layers.Input((10, 10, 4))
    x = layers.ReLU(6.0)(layers.Conv2D(6, 3)(inputs))
    model = equalization.equalize(tf.keras.Model(inputs, layers.Conv2D(3, 1)(x)))
    model.save(tmp_path / "equalized.keras")
    result = run(tmp_path / "equalized.keras", "--ratio", 0.5, "--output", tmp_path / "narrow.keras")
    assert result.exit_code == 0, result.output
    assert_same(tf.keras.models.load_model(tmp_path / "narrow.keras", compile=False), channels.prune(model, 0.5))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--ratio", "1"], "ratio=1.0 must lie between 0 and 1"),
        (["--ratio", "0.5", "--criterion", "l7"], "criterion='l7' is unknown"),
        (["--ratio", "0.5", "--criterion", "activation"], "calibration is empty"),
        (["--ratio", "0.5", "--calibration", "none.npz"], "calibration='none.npz' cannot be read (No such file"),
        (["--ratio", "0.5", "--only", "third"], "only='third'"),
        (["--ratio", "0.5", "--output", "narrow.h5"], "output='narrow.h5' must be a .keras file"),
    ],
)
def test_a_refused_command_writes_nothing(saved, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run(saved, *arguments)
    assert result.exit_code == 2 and message in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["net.keras"]


def test_the_command_does_not_overwrite_its_model(saved):
    before = saved.read_bytes()
    result = run(saved, "--ratio", 0.5, "--output", saved)
    assert result.exit_code == 2 and "is the model itself" in result.output and saved.read_bytes() == before


def test_the_command_names_what_it_cannot_prune(tmp_path):
    built(joined).save(tmp_path / "joined.keras")
    (tmp_path / "broken.keras").write_bytes(b"no model")
    for name, message in (
        ("joined", "left: its channels cannot be followed through joint (Concatenate)"),
        ("broken", "cannot be loaded"),
    ):
        result = run(tmp_path / f"{name}.keras", "--ratio", 0.5, "--output", tmp_path / "narrow.keras")
        assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "narrow.keras").exists()


def test_activations_of_a_model_of_several_inputs():
    a, b = layers.Input((3,), name="a"), layers.Input((4,), name="b")
    dense = {name: layers.Dense(8, "relu", name=f"wide_{name}") for name in "ab"}
    model = tf.keras.Model([a, b], layers.Add()([layers.Dense(2)(dense["a"](a)), layers.Dense(2)(dense["b"](b))]))
    x = {
        name: np.random.default_rng(0).normal(size=(50, size)).astype("float32") for name, size in (("b", 4), ("a", 3))
    }
    found = channels.scores(model, "activation", x)
    for name in "ab":
        np.testing.assert_allclose(found[f"wide_{name}"], dense[name](x[name]).numpy().mean(0), rtol=1e-5)
    in_order = channels.scores(model, "activation", [x["a"], x["b"]])
    assert all((found[name] == in_order[name]).all() for name in found)
    for wrong in (x["a"], {"a": x["a"]}, [x["a"]], [x["b"], x["a"]]):
        with pytest.raises(StructureError, match="calibration"):
            channels.scores(model, "activation", wrong)
