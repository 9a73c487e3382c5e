"""What tests of other processors need, made once in the user's cache; skipped, with the reason, where it cannot be had."""

import pytest

from helpers.base.errors import RunError
from helpers.targets import accelerator, arm64


@pytest.fixture(scope="session")
def arm():
    """The ARM root, with the counter."""
    if arm64.lacking():
        pytest.skip(arm64.lacking())
    try:
        arm64.prepare(lambda _: None)
    except RunError as error:
        pytest.skip(str(error))
    if not arm64.counter():
        pytest.skip("there is no C compiler")


@pytest.fixture(scope="session")
def gpu():
    """An adapter: the machine's, or one in software."""
    if not accelerator.adapters():
        try:
            accelerator.prepare(lambda _: None)
        except RunError as error:
            pytest.skip(str(error))
    if not accelerator.adapters():
        pytest.skip("the adapter in software does not run here")
