"""A page over a store that is made here, on a real port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tracefork_backend.network.addresses import bind
from tracefork_backend.page.permits import Permits
from tracefork_backend.page.server import PageServer


@pytest.fixture
def page() -> Iterator[Callable[..., PageServer]]:
    """Serve a store, until the test ends."""
    with ExitStack() as stack:

        def serve(store: Path, **allowed: Any) -> PageServer:
            return stack.enter_context(PageServer(bind(), store=store, permits=Permits(**allowed)))

        yield serve
