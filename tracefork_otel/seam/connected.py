"""The one place that touches aiohttp: a wrapper around what gives an attempt its connection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..session import current
from .supported import left_alone

_NEEDED = (
    ("connector", "BaseConnector", "connect"),
    ("connector", "Connection", "add_callback"),
    ("client_proto", "ResponseHandler", "set_response_params"),
    ("client_proto", "ResponseHandler", "data_received"),
    ("client_proto", "ResponseHandler", "force_close"),
    ("http_writer", "StreamWriter", "write_eof"),
)
"""What the recorder and the player ask of aiohttp, none of it private."""

_wrapped: list[tuple[type[Any], Callable[..., Any], Callable[..., Any]]] = []
"""The connectors' class, what was there, and ours."""


def install(module: ModuleType) -> None:
    """Wrap the connectors of aiohttp, once; a version that cannot be is left alone, which is said."""
    for place, owner, name in _NEEDED:
        if not hasattr(getattr(getattr(module, place, None), owner, None), name):
            left_alone(module, f"it has no {owner}.{name}")
            return
    if not _wrapped:
        cls: Any = module.connector.BaseConnector
        original = cls.connect
        ours = functools.wraps(original)(_connecting(module, original))
        cls.connect = ours
        _wrapped.append((cls, original, ours))


def uninstall() -> None:
    """Stop capturing; what others put over ours stays as it is, and goes by ours to what was there."""
    for cls, original, ours in list(_wrapped):
        if cls.__dict__.get("connect") is ours:
            cls.connect = original
            _wrapped.clear()


def is_captured() -> bool:
    """Return whether aiohttp is wrapped."""
    return bool(_wrapped)


def _connecting(module: ModuleType, original: Callable[..., Any]) -> Callable[..., Any]:
    async def connect(connector: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None:
            return await original(connector, req, *args, **kwargs)
        from . import connecting  # it loads OpenTelemetry, and many programs only import aiohttp

        there = functools.partial(original, connector, req, *args, **kwargs)
        return await connecting.connected(session, module, connector, req, there)

    return connect
