"""Gives `pytest --nbval notebooks/…` the comparison of recorded outputs, with tests/ collected or not."""

import tests.conftest  # noqa: F401
