"""Record every model call of an agent, whole, beside its OpenTelemetry trace; play it back bit-exact."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .decorators.agent import agent
    from .decorators.tool import tool
    from .errors import (
        AgentFailed,
        Drift,
        StoreError,
        TapeError,
        ToolFailed,
        TraceforkError,
        TruncatedBody,
        UnknownRun,
        UsageError,
    )
    from .exchange import Exchange, Request, Response
    from .instrumentor import TraceforkInstrumentor
    from .play.player import Player
    from .session.exporter import TraceforkSpanExporter
    from .session.processor import TraceforkSpanProcessor
    from .tape.tape import Tape

__all__ = [
    "AgentFailed",
    "Drift",
    "Exchange",
    "Player",
    "Request",
    "Response",
    "StoreError",
    "Tape",
    "TapeError",
    "ToolFailed",
    "TraceforkError",
    "TraceforkInstrumentor",
    "TraceforkSpanExporter",
    "TraceforkSpanProcessor",
    "TruncatedBody",
    "UnknownRun",
    "UsageError",
    "__version__",
    "agent",
    "tool",
]

# Each name is imported when it is first asked for: an agent that only records pays for no tape or player.
_HOME = {
    "AgentFailed": "errors",
    "Drift": "errors",
    "Exchange": "exchange",
    "Player": "play.player",
    "Request": "exchange",
    "Response": "exchange",
    "StoreError": "errors",
    "Tape": "tape.tape",
    "TapeError": "errors",
    "ToolFailed": "errors",
    "TraceforkError": "errors",
    "TraceforkInstrumentor": "instrumentor",
    "TraceforkSpanExporter": "session.exporter",
    "TraceforkSpanProcessor": "session.processor",
    "TruncatedBody": "errors",
    "UnknownRun": "errors",
    "UsageError": "errors",
    "agent": "decorators.agent",
    "tool": "decorators.tool",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
