"""A scripted model server on loopback: the providers' own HTTP, answers from a Python function.

All but `spawn` is imported on first use, so that an agent that only calls that does not load a web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .process import spawn

if TYPE_CHECKING:
    from .model import Behaviour, Call, Fault, Reply, ToolUse, Usage
    from .server import ModelServer, Recorded

__all__ = ["Behaviour", "Call", "Fault", "ModelServer", "Recorded", "Reply", "ToolUse", "Usage", "spawn"]


def __getattr__(name: str) -> object:
    """Return the public name from the module that defines it."""
    if name in ("ModelServer", "Recorded"):
        from . import server as home
    elif name in __all__:
        from . import model as home
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
