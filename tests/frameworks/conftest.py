"""The fixture that tests of frameworks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Capture
from frameworks.bench import Bench, clerk
from opentelemetry.sdk.trace import TracerProvider
from tracefork_backend.simulate import ModelServer


@pytest.fixture
def bench(capture: Capture, provider: TracerProvider) -> Iterator[Bench]:
    """A bench whose model is the clerk."""
    with ModelServer(clerk, seed=5) as server:
        yield Bench(server, capture, provider)
