"""One request to a web application, which is a run that can be made again once something is asked in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..tape.start import kept_input
from .outside import FromOutside
from .result import RESULT_LIMIT

if TYPE_CHECKING:
    from .own_span import OwnSpan
    from .session import Session

BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body that are kept: what people ask agents is text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says before its body."""

    method: str
    path: str
    """Below the root, by WSGI; with it, by ASGI: as the application is given it."""
    root: str
    """Where the application is mounted."""
    query: str
    scheme: str
    headers: list[tuple[bytes, bytes]]

    @property
    def url(self) -> str:
        """All of it, as it was asked for."""
        host = next((value.decode("latin-1") for name, value in self.headers if name == b"host"), "localhost")
        return f"{self.scheme}://{host}{self.path}" + (f"?{self.query}" if self.query else "")


def of_scope(scope: MutableMapping[str, Any]) -> Asked:
    """Return what a request by ASGI says."""
    return Asked(
        method=scope["method"],
        path=scope["path"],
        root=scope.get("root_path", ""),
        query=scope.get("query_string", b"").decode("latin-1"),
        scheme=scope.get("scheme", "http"),
        headers=list(scope["headers"]),
    )


def of_environ(environ: Mapping[str, Any]) -> Asked:
    """Return what a request by WSGI says."""
    headers = [
        (name.removeprefix("HTTP_").replace("_", "-").lower(), value)
        for name, value in environ.items()
        if isinstance(value, str) and (name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH"))
    ]
    return Asked(
        method=environ["REQUEST_METHOD"],
        path=_text(environ.get("PATH_INFO", "")),
        root=_text(environ.get("SCRIPT_NAME", "")),
        query=environ.get("QUERY_STRING", ""),
        scheme=environ.get("wsgi.url_scheme", "http"),
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers if value],
    )


def _text(value: str) -> str:
    """Return a path as ASGI has it: WSGI gives the bytes of UTF-8 as Latin-1."""
    return value.encode("latin-1").decode("utf-8", "replace")


class Inbound(FromOutside):
    """One request: what came of it so far, and the span that it gets once something is asked."""

    def __init__(self, session: Session, entrypoint: str | None, asked: Asked) -> None:
        """`entrypoint` is `asgi:pkg.mod:app`; None where nobody knows the application's name."""
        self._asked = asked
        self._told = (0, True)
        """How much of the body the span says, and whether that is all."""
        self._body = bytearray()
        self._size = 0
        self._whole = True  # what the application does not read it does not need
        self._status = 0
        self._answer = bytearray()
        self._answered = 0
        super().__init__(session, f"{asked.method} {asked.path}", entrypoint)

    def read(self, piece: bytes, *, whole: bool) -> None:
        """Keep what the application read of the body; `whole` if that is all of it."""
        self._size += len(piece)
        self._body += piece[: max(0, BODY_LIMIT - len(self._body))]
        self._whole = whole

    @property
    def size(self) -> int:
        """Bytes of the body that were read."""
        return self._size

    def answering(self, status: int) -> None:
        """Keep the status of the answer."""
        self._status = status

    def answered(self, piece: bytes) -> None:
        """Keep a piece of the answer."""
        self._answered += len(piece)
        self._answer += piece[: max(0, RESULT_LIMIT - len(self._answer))]

    def _closed(self, span: OwnSpan) -> None:
        if self._told != (self._size, self._whole):
            span.attributes.update(self._attributes())
        answer = {"status": self._status, "body": kept_input(bytes(self._answer))}
        self.keep(span, json.dumps(answer, ensure_ascii=False), self._answered - len(self._answer))

    def _attributes(self) -> dict[str, Any]:
        asked, session = self._asked, self.session
        self._told = self._size, self._whole
        attributes: dict[str, Any] = {"tracefork.request": self.name}
        if self.entrypoint is not None:
            attributes["tracefork.entrypoint"] = self.entrypoint
        if self._size > len(self._body) or not self._whole:
            size = f"{self._size:,} bytes" if self._whole else "what was not read whole"
            attributes["tracefork.arguments.missing"] = (
                f"its body, {size}, was not kept: a replay cannot make this request again by itself"
            )
            return session.redactor.attributes(attributes)
        seen = session.redactor.request(asked.method, asked.url, asked.headers, b"")
        request: dict[str, Any] = {
            "method": asked.method,
            "path": asked.path,
            "query": seen.url.partition("?")[2],
            "headers": [[name, value] for name, value in seen.headers],
            "body": kept_input(bytes(self._body)),
        }
        if asked.root:
            request["root"] = asked.root
        attributes["tracefork.arguments"] = json.dumps({"args": [], "kwargs": request}, ensure_ascii=False)
        return session.redactor.attributes(attributes)
