"""ReLU6 with a cap for each channel, swish with a gate: the same function in float32, in whole numbers too, and back again."""

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.compress import affine, quantize, requantize
from helpers.compress.tflite_plan import Plan
from helpers.tflite import activations, litert, rewrite

with runtime_env.quiet():
    import tensorflow as tf

layers = tf.keras.layers
INT8 = {requantize.EVERYTHING: requantize.Format()}
CHANGES = (
    activations.with_caps,
    activations.with_fused_caps,
    activations.with_gates,
    activations.without_gates,
    activations.with_whole_minimums,
)
X = np.random.default_rng(0).normal(scale=8, size=(40, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def network():
    """ReLU6 in a convolution, a depthwise one, a sum and a dense layer, and of an output; its channels reach the cap."""
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu6", name="first")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.ReLU(6)(layers.Add()([x, y]))
    x = layers.Dense(6, activation="relu6", name="hidden")(layers.GlobalAveragePooling2D()(x))
    return quantize.convert(
        tf.keras.Model(
            inputs,
            layers.Dense(4, activation="relu6", bias_initializer=tf.keras.initializers.Constant(3.0), name="answer")(x),
        )
    )


def test_every_cap_but_that_of_an_output_is_told_apart(network):
    capped = activations.with_caps(network)
    kinds = list(litert.operators(capped).op)
    before = list(litert.operators(network).op)
    assert kinds.count("MINIMUM") == 4 and [kind for kind in kinds if kind != "MINIMUM"] == before
    np.testing.assert_array_equal(litert.predict(capped, X), litert.predict(network, X))
    assert np.ptp(litert.predict(network, X), 0).min() > 0  # none of the answers is always the same
    assert set(litert.tensors(network).name) <= set(
        litert.tensors(capped).name
    )  # what tensors were called they are called


def test_it_can_be_taken_back(network):
    back = activations.with_fused_caps(activations.with_caps(network))
    assert list(litert.operators(back).op) == list(litert.operators(network).op)
    fused = [
        [getattr(node.options, "fusedActivationFunction", 0) for node in Plan(each).nodes] for each in (back, network)
    ]
    assert fused[0] == fused[1]
    np.testing.assert_array_equal(litert.predict(back, X), litert.predict(network, X))


def test_a_cap_that_differs_stays(network):
    capped = activations.with_caps(network)
    plan = Plan(capped)
    number, node = next((at, node) for at, node in enumerate(plan.nodes) if node.kind == "MINIMUM")
    caps = np.arange(1, 9).astype("float32")
    lower = activations.with_fused_caps(rewrite.with_operands(capped, {(number, 1): caps}))
    assert list(litert.operators(lower).op).count("MINIMUM") == 1
    assert node.name in set(litert.tensors(lower).name)
    found = dict(zip(litert.tensors(lower).name, range(99), strict=False))
    assert f"{node.name}_uncapped" in found


def test_whole_numbers_throughout(network):
    capped = activations.with_caps(network)
    file = requantize.apply(capped, INT8, requantize.calibrate(capped, X))
    table = litert.operators(file)
    assert set(table[table.input == "float32"].op) == {"QUANTIZE"} and (table.op == "MINIMUM").sum() == 4
    plain = requantize.apply(network, INT8, requantize.calibrate(network, X))
    exact, with_caps, without = (litert.predict(each, X) for each in (network, file, plain))
    assert affine.sqnr(exact, with_caps) > affine.sqnr(exact, without) - 1


def test_a_minimum_beside_a_layer_in_float_stays_in_float(network):
    capped = activations.with_caps(network)
    name = next(row.name for row in litert.weight_layers(capped).itertuples() if row.op == "DEPTHWISE_CONV_2D")
    file = requantize.apply(capped, {**INT8, name: None}, requantize.calibrate(capped, X))
    assert affine.sqnr(litert.predict(network, X), litert.predict(file, X)) > 20


def test_swish_gets_a_gate_and_other_sigmoids_do_not():
    runtime_env.seed_everything(0)
    x = inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="swish", name="first")(x)
    gate = layers.Dense(8, activation="sigmoid", name="excite")(layers.GlobalAveragePooling2D()(x))
    x = layers.Conv2D(4, 1, activation="swish", name="second")(layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)]))
    answer = layers.Dense(2, activation="sigmoid", name="answer")(layers.GlobalAveragePooling2D()(x))
    file = quantize.convert(tf.keras.Model(inputs, answer))
    gated = activations.with_gates(file)
    kinds = [list(litert.operators(each).op) for each in (file, gated, activations.without_gates(gated))]
    assert kinds[0] == kinds[2] and kinds[1].count("MUL") == kinds[0].count("MUL") + 2
    for changed in (gated, activations.without_gates(gated)):
        np.testing.assert_array_equal(litert.predict(changed, X), litert.predict(file, X))


def test_what_has_none_is_left_alone(network):
    inputs = layers.Input((8,))
    file = quantize.convert(tf.keras.Model(inputs, layers.Dense(3, activation="relu")(inputs)))
    for change in CHANGES:
        assert change(file) == file
    assert activations.minimums(file) == [] and len(activations.minimums(activations.with_caps(network))) == 4
