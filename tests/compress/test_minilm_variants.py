"""Variants of a sentence Transformer: small random encoders with each cause planted, where blame and cure are known."""

import numpy as np
import pandas as pd
import pytest

from helpers.base.errors import InputError
from helpers.compress import minilm_variants, quantize
from helpers.networks import minilm
from helpers.tflite import litert

SIZES = minilm.Sizes(vocabulary=60, width=32, layers=2, heads=4, hidden=64, length=8)
CHANNEL, MARK, UNIT = 5, 3, 7


def drawn(number, seed):
    """Sentences of 3 to 8 pieces: int32 (number, 8)."""
    random = np.random.default_rng(seed)
    found = random.integers(4, SIZES.vocabulary, (number, SIZES.length))
    lengths = random.integers(3, SIZES.length + 1, number)
    found[np.arange(SIZES.length) >= lengths[:, None]] = minilm.PAD
    return found.astype(np.int32)


def spread_out(model, seed=0):
    """Random weights large enough that scores of attention matter."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        values = layer.get_weights()
        if layer.name.endswith(("query", "key")):
            values[0] = random.normal(scale=0.45, size=values[0].shape)
        if layer.name.endswith(("value", "attention_output", "up", "down")):
            values[0] = random.normal(scale=0.3, size=values[0].shape)
        if layer.name.endswith("embedding"):
            values = [random.normal(size=value.shape) for value in values]
        layer.set_weights(values)
    return model


def build(mask):
    return spread_out(minilm.encoder(SIZES, mask))


def with_unit(mask, gain, onto):
    """One unit of the first block's GELU answers to the first piece alone, by about `gain`; it is added to CHANNEL `onto`
    times, or, where that is 0, nobody reads it."""
    model = build(mask)

    def change(name, *, columns=None, rows=None, bias=None):
        layer = model.get_layer(name)
        kernel, *rest = layer.get_weights()
        for place, value in (columns or {}).items():
            kernel[:, place] = value
        for place, value in (rows or {}).items():
            kernel[place] = value
        for place, value in (bias or {}).items():
            rest[0][place] = value
        layer.set_weights([kernel, *rest])

    marked = np.full(SIZES.length, -4.0)
    marked[0] = 8
    change("word_embedding", columns={MARK: 0})
    change("position_embedding", columns={MARK: marked})
    change("layer_0_attention_output", columns={MARK: 0})
    change("layer_0_up", columns={UNIT: gain * np.eye(SIZES.width)[MARK]}, bias={UNIT: -gain})
    change("layer_0_down", rows={UNIT: onto * np.eye(SIZES.width)[CHANNEL]})
    return model


def bench(build, seed=1):
    return minilm_variants.Bench(build, drawn(64, seed), drawn(80, seed + 1), np.repeat(np.arange(10), 4))


@pytest.fixture(scope="module")
def plain():
    return bench(build)


def lost(of, *names):
    """One less the fidelity of variants."""
    found = of.judge({name: of.file(name) for name in names})["fidelity"]
    return [1 - estimate.value for estimate in found]


# --- the causes, and a twin without them


def test_a_mask_eats_the_range_and_a_smaller_one_does_not(plain):
    none, mask, only, only_cured = lost(plain, "none", "mask", "only_scores", "only_scores_mask")
    assert none > 5 * mask and only > 5 * only_cured


def test_the_converters_int8_suffers_alike(plain):
    large, small, dynamic = lost(plain, "int8", "int8_mask", "dynamic")
    assert large > 5 * small and dynamic < small


def test_a_large_channel_of_a_sum_is_found_and_cured(plain):
    planted = bench(lambda mask: with_unit(mask, gain=10.0, onto=40.0))
    [usual] = lost(plain, "only_residual")
    alone, mask, cured = lost(planted, "only_residual", "mask", "mask_residual_down")
    assert alone > 5 * usual and mask > 3 * cured


def test_a_large_channel_of_gelu_is_found_and_cured(plain):
    planted = bench(lambda mask: with_unit(mask, gain=60.0, onto=0.0))
    usual, usual_sum = lost(plain, "only_down", "only_residual")
    alone, others, mask, cured = lost(planted, "only_down", "only_residual", "mask", "mixed")
    assert alone > 5 * usual and others < 3 * usual_sum and mask > 3 * cured
    [half] = lost(planted, "mask_down")
    assert half > 3 * cured, "what GELU reads is as large, and stays in int8"


# --- what is in the files


def rows(model):
    layers = [layer.name for layer in minilm.encoder(SIZES).layers]
    return litert.weight_layers(model, layers, others=True)


def test_spared_parts_are_float_and_their_weights_are_small(plain):
    found = litert.tensors(plain.file("mask_residual_down")).set_index("name")["dtype"]
    exact = minilm_variants.operators(plain.file("float32"), [layer.name for layer in minilm.encoder(SIZES).layers])
    for part in ("residual", "down"):
        inside = exact[exact["layer"].str.fullmatch(minilm_variants.PARTS[part])]
        assert set(found[inside["name"]]) == {"float32"}
    heads = exact[exact["layer"].str.fullmatch(r"layer_\d_heads") & (exact["op"] == "SOFTMAX")]
    assert len(heads) == 2 and not set(heads["name"]) & set(found[found == "float32"].index)
    kernels = litert.kernels_in(plain.file("mixed"))
    assert len(kernels) == 12, "all dense layers, those that compute in float32 too"


def test_alone_quantizes_nothing_else(plain):
    model = plain.file("only_down")
    dense = litert.kernels_in(model)["name"]
    assert len(dense) == 2 and all("_down/" in name for name in dense)


def test_every_variant_can_be_made_and_judged(plain):
    files = {name: plain.file(name) for name in minilm_variants.VARIANTS}
    table = plain.judge(files)
    assert table.index.tolist() == [*minilm_variants.VARIANTS]
    assert table["fidelity"]["float32"].value == table["agreement"]["float32"] == 1
    assert table["change"]["float32"].value == 0
    assert all(table["size"][name] < table["size"]["float32"] for name in ("dynamic", "int8", "mask", "mixed"))
    assert all(0 <= estimate.value <= 1 and estimate.low <= estimate.value for estimate in table["top1"])


def test_vectors_are_the_keras_models(plain):
    model = build(minilm.LARGE)
    np.testing.assert_allclose(plain.vectors(plain.file("float32")), model(plain.pieces).numpy(), atol=1e-5)


# --- the largest values


def test_extremes_name_the_channel_and_the_piece():
    table = minilm_variants.extremes(with_unit(minilm.LARGE, gain=60.0, onto=5.0), drawn(40, 3))
    gelu, sum_ = table.loc["layer_0_gelu"], table.loc["layer_0_residual"]
    assert (gelu["channel"], gelu["place"]) == (UNIT, 0) and 20 < gelu["largest"] < 100
    assert (sum_["channel"], sum_["place"]) == (CHANNEL, 0)
    for of in (gelu, sum_):
        assert of["largest"] == of["first"] > 3 * of["others"] and of["largest"] > 5 * of["typical"]
    usual = minilm_variants.extremes(build(minilm.LARGE), drawn(40, 3))
    assert usual.loc["layer_0_residual", "largest"] < 5 * usual.loc["layer_0_residual", "typical"]
    assert len(table) == 1 + 5 * SIZES.layers


# --- refusals


def test_an_unknown_variant_is_refused(plain):
    with pytest.raises(InputError, match=r"variant='int9' is unknown: choose one of float32, dynamic"):
        plain.file("int9")


def test_sentences_without_their_pair_are_refused():
    with pytest.raises(InputError, match="pieces are of 5 sentences, groups of 3: give two sentences for each"):
        minilm_variants.Bench(build, drawn(4, 0), drawn(5, 0), np.arange(3))


def test_another_model_is_refused():
    other = pd.DataFrame({"layer": ["hidden"], "op": ["FULLY_CONNECTED"], "name": ["net/hidden/MatMul"]})
    with pytest.raises(InputError, match=r"part='scores' .* fits no layer of this model"):
        minilm_variants.formats_of(minilm_variants.Variant(alone=("scores",)), other)
    with pytest.raises(InputError, match="part='residual'"):
        minilm_variants.formats_of(minilm_variants.Variant(spared=("residual",)), other)


def test_a_recipe_is_the_converters_own(plain):
    own = quantize.convert(build(minilm.LARGE), "int8", plain.calibration)
    np.testing.assert_array_equal(plain.vectors(plain.file("int8")), plain.vectors(own))
