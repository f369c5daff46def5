"""What somebody's telemetry hears in a replay: a plain success, from nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..exchange import Response
from ..session import current
from ..session.imports import when_imported
from ..session.session import Session
from ..session.telemetry import Sender, sender_above
from ..undo import Undo
from ..wire.registry import port_of
from .noting import note_once

_MADE = b'{"id": "0", "digest": "0"}'
"""What a server says of things that it was sent: Weave's client reads both."""


def stays(session: Session, sender: Sender) -> bool:
    """Return whether this sender sends nothing: what a tape made up is nobody's but the replay's.

    OpenTelemetry's in a process that goes on after the replay has spans of before it alone.
    """
    if session.player is None or sender.asks:
        return False
    return session.via != "backend" or sender.package != "opentelemetry"


def kept_here() -> tuple[Session, Sender] | None:
    """Return the session and whose telemetry it is, where what runs here sends and is to send nothing."""
    session = current.session
    if session is None or session.player is None:
        return None
    sender = sender_above(sys._getframe(1))
    return (session, sender) if sender is not None and stays(session, sender) else None


def heard(request: Any) -> Response:
    """Return the answer that a sender takes quietly: nothing but ids, in the form in which it spoke."""
    told = {name.lower(): value.decode("latin-1") for name, value in request.headers.raw}
    content_type = told.get(b"content-type", "")
    is_json = "protobuf" not in content_type
    body = _MADE if is_json else b""
    headers = (
        ("content-type", "application/json" if is_json else content_type),
        ("content-length", str(len(body))),
    )
    return Response(status=200, headers=headers, body=body, chunk_sizes=(len(body),), reason_phrase="OK")


def note_kept(session: Session, url: Any, who: str) -> None:
    """Note that this request would have been sent."""
    note_unsent(session, url.host, port_of(url), who)


def note_unsent(session: Session, host: str, port: int, who: str) -> None:
    """Note that something would have been sent there."""
    attributes = {"host": host, "port": port, "client": who, "sent": False}
    note_once(session, "telemetry", f"{host}:{port}", attributes)


class Unsent:
    """A channel of gRPC whose other end takes all that it is told, and is nobody."""

    def __init__(self, host: str, port: int, who: str) -> None:
        self._told = (host, port, who)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> _Call:
        """Return a method that answers with an empty message."""
        return _Call(self._told, response_deserializer)

    stream_unary = unary_unary

    def close(self) -> None:
        """Nothing is open."""


class _Call:
    def __init__(self, told: tuple[str, int, str], read: Callable[[bytes], Any] | None) -> None:
        self._told, self._read = told, read

    def __call__(self, *_: Any, **__: Any) -> Any:
        if current.session is not None:
            note_unsent(current.session, *self._told)
        return b"" if self._read is None else self._read(b"")

    def with_call(self, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        return self(*args, **kwargs), None


def keep_compiled(undo: Undo) -> None:
    """Have what sends by compiled code, where no seam and no audit hook sees it, send nothing in a replay."""
    undo.add(when_imported("ddtrace.internal.writer.writer", lambda module: _on_ddtrace_writer(module, undo)))
    undo.add(when_imported("ddtrace.internal.telemetry.writer", lambda module: _on_ddtrace_use(module, undo)))
    undo.add(when_imported("ddtrace.internal.http", lambda module: _on_ddtrace_http(module, undo)))


def _on_ddtrace_writer(module: ModuleType, undo: Undo) -> None:
    for name in ("NativeWriter", "HTTPWriter"):
        cls = getattr(module, name, None)
        if cls is not None:
            undo.replace(cls, "write", _unwritten(cls.write))


def _unwritten(original: Callable[..., Any]) -> Callable[..., None]:
    @wraps(original)
    def write(self: Any, *args: Any, **kwargs: Any) -> None:
        session = current.session
        if session is None or session.player is None:
            original(self, *args, **kwargs)
        elif isinstance(getattr(self, "intake_url", None), str):
            _note_url(session, self.intake_url, "ddtrace")

    return write


def _on_ddtrace_use(module: ModuleType, undo: Undo) -> None:
    """Have what ddtrace tells of its own use never begin: from version 4.15 on, compiled code sends it."""
    cls = getattr(module, "TelemetryWriter", None)
    original = getattr(cls, "enable", None)
    if original is None:
        return

    @wraps(original)
    def enable(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None or session.player is None:
            return original(self, *args, **kwargs)
        return False

    undo.replace(cls, "enable", enable)


def _on_ddtrace_http(module: ModuleType, undo: Undo) -> None:
    cls = getattr(module, "NativeHTTPConnection", None)
    if cls is None:
        return  # of a version that connects by sockets
    made, original = cls.__init__, cls.getresponse

    @wraps(made)
    def init(self: Any, base_url: str, *args: Any, **kwargs: Any) -> None:
        self.tracefork_url = base_url
        made(self, base_url, *args, **kwargs)

    @wraps(original)
    def getresponse(self: Any) -> Any:
        here = kept_here()
        if here is None:
            return original(self)
        _note_url(here[0], self.tracefork_url, here[1].package)
        return _Taken()

    undo.replace(cls, "__init__", init)
    undo.replace(cls, "getresponse", getresponse)


class _Taken:
    """An answer, as `http.client` has it."""

    status = 200
    reason = "OK"
    headers: ClassVar[dict[str, str]] = {}

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return default

    def read(self) -> bytes:
        return b"{}"


def _note_url(session: Session, url: str, who: str) -> None:
    parts = urlsplit(url)
    if parts.hostname:
        note_unsent(session, parts.hostname, port_of(parts), who)
