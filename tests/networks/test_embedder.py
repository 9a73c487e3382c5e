"""The face camera: vectors of length 1, also of the checkpoint's, which tells identities apart that it never saw."""

import numpy as np
import pytest

from helpers.base.errors import InputError
from helpers.evidence import stats, verification
from helpers.networks import checkpoints, embedder, glyphs


def test_vectors_have_length_one():
    model = embedder.network(32, 8)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 32, 32, 1)).astype("float32")
    assert np.linalg.norm(model(x), axis=1) == pytest.approx(1, abs=1e-5)


def test_another_size_is_refused():
    for size, numbers in ((30, 8), (0, 8), (32, 1)):
        with pytest.raises(InputError, match=f"size={size} must be a multiple of 8 and numbers={numbers} at least 2"):
            embedder.network(size, numbers)


def test_the_checkpoint_tells_identities_apart_that_it_never_saw():
    name = "embedder_glyphs_32"
    model, card, parts = checkpoints.load(name, size=32), checkpoints.card(name), glyphs.parts(glyphs.load())
    x, who = glyphs.photographs(parts["test"], embedder.TEST_PICTURES, seed=0)
    vectors = model.predict(x, verbose=0)
    for rate in embedder.RATES:
        found = stats.score(verification.true_accepts(vectors, who, rate))
        told = card[f"tar_at_{rate:g}_test"]
        assert found.value == pytest.approx(told["value"], abs=0.005) and told["low"] < found.value < told["high"]
    assert card["tar_at_0.01_test"]["value"] > 0.8


def test_training_learns_and_repeats(monkeypatch):
    known = glyphs.load()
    few = glyphs.Glyphs(known.pictures[:60], known.characters[:60])
    monkeypatch.setattr(glyphs, "load", lambda: few)
    lines, recipe = [], embedder.Recipe(numbers=8, steps=60, batch_size=32)
    model, about = recipe.train(lines.append)
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert losses[-1] < losses[0] and about["tar_at_0.01_test"]["identities"] == 12
    again, _ = recipe.train(lambda line: None)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
