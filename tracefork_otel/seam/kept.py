"""What somebody's telemetry hears in a replay: a plain success, from nobody."""

from __future__ import annotations

from typing import Any

from ..exchange import Response
from ..session.session import Session
from ..wire.registry import port_of
from .noting import note_once

_MADE = b'{"id": "0", "digest": "0"}'
"""What a server says of things that it was sent: Weave's client reads both."""


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
    """Note that this would have been sent there."""
    port = port_of(url)
    attributes = {"host": url.host, "port": port, "client": who, "sent": False}
    note_once(session, "telemetry", f"{url.host}:{port}", attributes)
