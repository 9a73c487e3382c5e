"""The Vision Transformer of the lab: its size, the names in its file, and what cannot be built. (Others are tested where they are
used.)"""

import numpy as np
import pytest

from helpers.base import runtime_env
from helpers.base.errors import InputError
from helpers.compress import quantize
from helpers.networks import models
from helpers.tflite import litert

PARTS = ("query", "key", "value", "output", "up", "down")


@pytest.fixture(scope="module")
def network():
    runtime_env.seed_everything(0)
    return models.vit(28, 10)


def test_a_vit_looks_at_49_tokens(network):
    assert network.get_layer("tokens").output_shape == (None, 49, 64) and network.output_shape == (None, 10)
    assert 120_000 < network.count_params() < 130_000
    x = np.random.default_rng(0).normal(size=(5, 28, 28, 3)).astype("float32")
    np.testing.assert_allclose(litert.predict(quantize.convert(network), x), network(x), atol=1e-5)


def test_attention_starts_with_scores_divided_by_the_root_of_a_heads_width(network):
    query, key = (network.get_layer(f"block_1_{part}").get_weights()[0] for part in ("query", "key"))
    assert query.std() == pytest.approx(key.std() / 4, rel=0.05)
    queries = [network.get_layer(f"block_{number}_query").get_weights()[0] for number in (1, 2)]
    assert not np.array_equal(*queries)


def test_every_operator_has_its_layers_name(network):
    """Without being told them: a table shows what the model calls its layers."""
    file, known = quantize.convert(network), {layer.name for layer in network.layers}
    blocks = [f"block_{number}_{part}" for number in (1, 2, 3) for part in PARTS]
    assert set(litert.weight_layers(file)["layer"]) == {"stem_1", "stem_2", "stem_3", "places", *blocks, "logits"}
    # Layers that do nothing but add or activate are part of others.
    everything = set(litert.weight_layers(file, others=True)["layer"])
    assert everything <= known and {"block_1_norm_1", "block_2_attention", "block_3_add_2", "norm"} <= everything


@pytest.mark.parametrize(
    "wrong, says",
    [({"size": 30}, "size=30"), ({"classes": 1}, "classes=1"), ({"heads": 5}, "heads=5"), ({"depth": 0}, "depth=0")],
)
def test_a_vit_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        models.vit(**{"size": 28, "classes": 10, **wrong})
