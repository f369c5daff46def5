"""The one place that touches websockets: wrappers around its protocol, which both of its clients speak."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..session import current
from ..session.telemetry import sender_above
from .supported import left_alone

SOCKET = "tracefork_socket"
"""Attribute of a protocol: what records its connection."""
_NAMES = (
    *("send_request", "events_received", "receive_eof"),
    *("send_text", "send_binary", "send_continuation", "send_close"),
)
"""Methods of a protocol that does no input and output of its own, all of them documented."""

_wrapped: list[tuple[Any, str, Any, Any, bool]] = []
"""Who has it, the name, what was there, ours, and whether it was the owner's own."""


def install(module: ModuleType) -> None:
    """Wrap the client's protocol of `websockets.client`, once; a version without one is left alone."""
    cls = getattr(module, "ClientProtocol", None)
    lacking = [name for name in _NAMES if not callable(getattr(cls, name, None))]
    if lacking:
        left_alone(sys.modules["websockets"], f"its ClientProtocol has no {lacking[0]}")
        return
    for name in _NAMES:
        _wrap(cls, name, functools.partial(_telling, name))


def install_client(module: ModuleType) -> None:
    """Have this client's addresses seen before it connects: a replay connects nowhere."""
    if not callable(getattr(module, "parse_uri", None)):
        left_alone(sys.modules["websockets"], f"{module.__name__} has no parse_uri")
        return
    _wrap(module, "parse_uri", _reading)


def uninstall() -> None:
    """Stop capturing; what others put over ours stays as it is, and goes by ours to what was there."""
    for entry in list(_wrapped):
        owner, name, original, ours, own = entry
        if vars(owner).get(name) is not ours:
            continue
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
        _wrapped.remove(entry)


def is_captured() -> bool:
    """Return whether websockets is wrapped."""
    return bool(_wrapped)


def _wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    if any(entry[:2] == (owner, name) for entry in _wrapped):
        return
    original = getattr(owner, name)
    own = name in vars(owner)
    ours = functools.wraps(original)(make(original))
    setattr(owner, name, ours)
    _wrapped.append((owner, name, original, ours, own))


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    def parse_uri(uri: str) -> Any:
        found = original(uri)
        session = current.session
        if session is not None and sender_above(sys._getframe(1)) is None:
            from . import socketing  # it loads OpenTelemetry, and many programs only import websockets

            socketing.connecting(session, found)
        return found

    return parse_uri


def _telling(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(protocol: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "send_request":
            session = current.session
            if session is not None and session.player is None and sender_above(sys._getframe(1)) is None:
                from . import socketing

                setattr(protocol, SOCKET, socketing.begun(session, protocol, *args, **kwargs))
        socket = getattr(protocol, SOCKET, None)
        if socket is None:
            return original(protocol, *args, **kwargs)
        return socket.called(name, functools.partial(original, protocol, *args, **kwargs), args, kwargs)

    return call
