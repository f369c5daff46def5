"""A scripted model server on loopback: the providers' own HTTP, answers from a Python function.

Names are imported on first use, so that an agent that only calls `spawn` does not load a web server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Behaviour, Call, Fault, Reply, ToolUse, Usage
    from .process import spawn
    from .server import ModelServer, Recorded

__all__ = ["Behaviour", "Call", "Fault", "ModelServer", "Recorded", "Reply", "ToolUse", "Usage", "spawn"]

_HOME = {
    "Behaviour": "model",
    "Call": "model",
    "Fault": "model",
    "ModelServer": "server",
    "Recorded": "server",
    "Reply": "model",
    "ToolUse": "model",
    "Usage": "model",
    "spawn": "process",
}


def __getattr__(name: str) -> object:
    """The public name, loaded from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
