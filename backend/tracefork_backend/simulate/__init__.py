"""A scripted model server on loopback: the providers' own HTTP, answers from a Python function.

The server is imported on first use, so that an agent that only calls `spawn` does not load a web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import Behaviour, Call, Fault, Reply, ToolUse, Usage
from .process import spawn

if TYPE_CHECKING:
    from .server import ModelServer, Recorded

__all__ = ["Behaviour", "Call", "Fault", "ModelServer", "Recorded", "Reply", "ToolUse", "Usage", "spawn"]


def __getattr__(name: str) -> object:
    """Return the server or its record of a request."""
    if name in ("ModelServer", "Recorded"):
        from . import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
