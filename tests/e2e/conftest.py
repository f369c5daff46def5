"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from jaeger import jaeger
from tracefork_backend.simulate import ModelServer

__all__ = ["jaeger"]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server that the test may end."""
    made = ModelServer().start()
    yield made
    made.close()
