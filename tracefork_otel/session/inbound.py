"""ASGI applications: each inbound request in which something is asked is a run that can be made again."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..tape.start import kept_input
from . import current
from .result import RESULT_LIMIT, kept

if TYPE_CHECKING:
    from ..undo import Undo
    from .own_span import OwnSpan, Parent
    from .session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ASGI = "asgi:"
"""Begins an entry point that names an application, not a function."""
BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body that are kept: what people ask agents is text."""


def on_uvicorn(module: ModuleType, undo: Undo) -> None:
    """Have the applications that uvicorn loads from now on be recorded, until that is undone."""
    load = module.Config.load

    @functools.wraps(load)
    def loaded(self: Any) -> None:
        load(self)
        try:
            named = self.app if isinstance(self.app, str) else name_of(self.app)
            if named is not None and self.factory:
                named += "()"
            self.loaded_app = RecordedApplication(self.loaded_app, named)
        except Exception as error:
            if (session := current.session) is not None:
                session.lost("hook into uvicorn", error)

    undo.replace(module.Config, "load", loaded)


class RecordedApplication:
    """The application, whose requests are runs of their own."""

    def __init__(self, app: Any, name: str | None) -> None:
        """`name` is `pkg.mod:app`, by which it can be imported; None where nobody knows."""
        self.app = app
        self.name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does."""
        session = current.session
        if scope["type"] != "http" or session is None or session.player is not None or not session.capturing:
            await self.app(scope, receive, send)
            return
        from . import root

        inbound = _Inbound(session, self.name, scope)
        token = root.waiting.set(inbound.open)
        failure: BaseException | None = None
        try:
            await self.app(scope, inbound.receiving(receive), inbound.sending(send))
        except BaseException as error:
            failure = error
            raise
        finally:
            root.waiting.reset(token)
            inbound.end(failure)


class _Inbound:
    """One request: what came of it so far, and the span that it gets once something is asked."""

    def __init__(self, session: Session, name: str | None, scope: Scope) -> None:
        self._session = session
        self._name = name
        self._scope = scope
        self._span: OwnSpan | None = None
        self._told = (0, True)
        """How much of the body the span says, and whether that is all."""
        self._over = False
        """Whether it was answered: a task that goes on after that and only then asks is none of it."""
        self._body = bytearray()
        self._size = 0
        self._whole = True  # what the application does not read it does not need
        self._status = 0
        self._answer = bytearray()
        self._answered = 0

    def receiving(self, receive: Receive) -> Receive:
        """Return `receive`, of which the body is kept."""

        async def kept_receive() -> MutableMapping[str, Any]:
            message = await receive()
            if message["type"] == "http.request":
                piece: bytes = message.get("body", b"")
                self._size += len(piece)
                self._body += piece[: max(0, BODY_LIMIT - len(self._body))]
                self._whole = not message.get("more_body", False)
            return message

        return kept_receive

    def sending(self, send: Send) -> Send:
        """Return `send`, of which status and body are kept."""

        async def kept_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._status = int(message["status"])
            elif message["type"] == "http.response.body":
                piece: bytes = message.get("body", b"")
                self._answered += len(piece)
                self._answer += piece[: max(0, RESULT_LIMIT - len(self._answer))]
            await send(message)

        return kept_send

    def open(self, parent: Parent | None) -> OwnSpan | None:
        """Return the span of the request, which begins with the first thing that is asked in it."""
        if self._span is None and not self._over:
            from . import root

            scope = self._scope
            name = f"{scope['method']} {scope['path']}"
            if parent is not None:
                # Below the user's own spans only such a one says how a run began (`_heads` in views.sql).
                name = f"invoke_agent {name}"
            self._told = self._size, self._whole
            self._span = root.open_entry(self._session, name, self._attributes(), parent)
        return self._span

    def end(self, failure: BaseException | None) -> None:
        """End the span, if there is one, with what was answered."""
        span, session, self._over = self._span, self._session, True
        if span is None:
            return
        try:
            from . import spans

            if self._told != (self._size, self._whole):
                span.attributes.update(self._attributes())
            text = json.dumps(
                {"status": self._status, "body": kept_input(bytes(self._answer))}, ensure_ascii=False
            )
            found = kept(text, session.redactor.text, whole=False)
            span.attributes["tracefork.result"] = found.text
            left_out = found.left_out + self._answered - len(self._answer)
            if left_out:
                span.attributes["tracefork.result.left_out"] = left_out
            session.flush_draws(span.trace_id)
            spans.end(session, span, error=failure)
        except Exception as problem:
            session.lost("end of a request", problem)

    def _attributes(self) -> dict[str, Any]:
        scope, session = self._scope, self._session
        attributes: dict[str, Any] = {"tracefork.request": f"{scope['method']} {scope['path']}"}
        if self._name is not None:
            attributes["tracefork.entrypoint"] = ASGI + self._name
        if self._size > len(self._body) or not self._whole:
            size = f"{self._size:,} bytes" if self._whole else "what was not read whole"
            attributes["tracefork.arguments.missing"] = (
                f"its body, {size}, was not kept: a replay cannot make this request again by itself"
            )
            return session.redactor.attributes(attributes)
        url = _url(scope)
        seen = session.redactor.request(scope["method"], url, list(scope["headers"]), b"")
        query = seen.url.partition("?")[2]
        request = {
            "method": scope["method"],
            "path": scope["path"],
            "query": query,
            "headers": [[name, value] for name, value in seen.headers],
            "body": kept_input(bytes(self._body)),
        }
        attributes["tracefork.arguments"] = json.dumps({"args": [], "kwargs": request}, ensure_ascii=False)
        return session.redactor.attributes(attributes)


def _url(scope: Scope) -> str:
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "localhost")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{scope.get('scheme', 'http')}://{host}{scope['path']}" + (f"?{query}" if query else "")


def name_of(app: object) -> str | None:
    """Return `pkg.mod:app` of an application that is a module's own; None where it is none's."""
    for module_name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or "-packages" in file:
            continue
        for name, value in list(vars(module).items()):
            if value is app:
                return f"{Path(file).stem if module_name == '__main__' else module_name}:{name}"
    return None
