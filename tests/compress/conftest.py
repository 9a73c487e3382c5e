"""What several tests of compression start from."""

import pytest

from helpers.base import runtime_env
from helpers.networks import data, models


@pytest.fixture(scope="package")
def digits():
    """5,000 MNIST digits."""
    return data.load("mnist5k")


@pytest.fixture(scope="module")
def trained_mlp(digits):
    """The article's MLP, trained for three epochs."""
    runtime_env.seed_everything(0)
    model = models.compile_classifier(models.mlp())
    model.fit(data.unit_rows(digits.x_train), digits.y_train, 128, epochs=3, verbose=0)
    return model
