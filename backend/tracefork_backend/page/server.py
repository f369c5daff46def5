"""The page on a port, until it is stopped."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from socket import socket
from typing import Any, cast

from ..network.addresses import LOOPBACK
from ..network.asgi import App
from ..network.server import Server
from ..store import open_store
from ..store.shown import shown_at
from .app import application
from .context import Page
from .guard import Guard
from .permits import Permits

_GRACE_S = 1.0


class PageServer(Server):
    """Answers browsers of this machine; what it started ends with it."""

    def __init__(self, listener: socket, *, store: Path, permits: Permits, host: str = LOOPBACK) -> None:
        self.port = int(listener.getsockname()[1])
        self._store = open_store(store)
        self.page = Page(self._store, permits)
        self._said = ExitStack()
        self._said.enter_context(shown_at(store, f"http://{host}:{self.port}"))
        guarded = Guard(cast("App", application(self.page)), permits, host=host, port=self.port)
        super().__init__(cast("Any", guarded), [listener], grace_s=_GRACE_S)

    def ended(self) -> None:
        """Close what the page holds, after its last answer."""
        self._said.close()
        self.page.jobs.close()
        self._store.close()
        super().ended()
