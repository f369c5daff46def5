"""Record every model call of an agent, whole, beside its OpenTelemetry trace; play it back bit-exact."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._agent import agent
    from ._errors import (
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
    from ._exporter import TraceforkSpanExporter
    from ._instrumentor import TraceforkInstrumentor
    from ._processor import TraceforkSpanProcessor
    from .exchange import Exchange, Request, Response
    from .player import Player
    from .tape import Tape
    from .tools import tool

__version__ = "0.1.0"

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
    "AgentFailed": "_errors",
    "Drift": "_errors",
    "Exchange": "exchange",
    "Player": "player",
    "Request": "exchange",
    "Response": "exchange",
    "StoreError": "_errors",
    "Tape": "tape",
    "TapeError": "_errors",
    "ToolFailed": "_errors",
    "TraceforkError": "_errors",
    "TraceforkInstrumentor": "_instrumentor",
    "TraceforkSpanExporter": "_exporter",
    "TraceforkSpanProcessor": "_processor",
    "TruncatedBody": "_errors",
    "UnknownRun": "_errors",
    "UsageError": "_errors",
    "agent": "_agent",
    "tool": "tools",
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
