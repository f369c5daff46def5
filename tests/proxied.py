"""A recording proxy before an upstream, for the length of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tracefork_backend.network.addresses import LOOPBACK, bind
from tracefork_backend.network.proxy import Proxy, Upstream

from tracefork_otel.settings import Settings


@contextlib.contextmanager
def proxying(
    origin: str, *, store: Path, host: str = LOOPBACK, port: int = 0, settings: Settings | None = None
) -> Iterator[tuple[str, Proxy]]:
    """Yield the base URL of a recording proxy before that upstream, and the proxy."""
    upstream = Upstream(socket=bind(host, port), origin=origin)
    with Proxy([upstream], settings=replace(settings or Settings(), store=store), host=host) as proxy:
        yield f"http://{host}:{upstream.port}", proxy
