"""A recorded request made again: the application is imported, started, asked in process, and stopped."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

from ..session.servers import module_of
from ..tape.start import WSGI, given_input, kept_input

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STARTED_S = 60.0
"""So long an application may take to start; servers have no limit, but somebody who looks."""
_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


def request_to(entrypoint: str) -> Callable[..., Any]:
    """Return a function that sends a request to an application and returns its response.

    That is `asgi:pkg.mod:app` or `wsgi:pkg.mod:app`; `asgi:pkg.mod:make()` calls a factory. Raises
    ImportError, or what the module raises.
    """
    kind, _, named = entrypoint.partition(":")
    module, _, path = named.partition(":")
    if not (module and path):
        raise ImportError(f"{entrypoint!r} does not name an application: write it like {kind}:pkg.mod:app")
    app: Any = module_of(entrypoint)
    for name in path.removesuffix("()").split("."):
        if not hasattr(app, name):
            raise ImportError(f"module {module} has no {path}: is the application still there?")
        app = getattr(app, name)
    if path.endswith("()"):
        app = app()

    def by_wsgi(**given: Any) -> dict[str, Any]:
        return _asked_by_wsgi(app, _Request(**given))

    async def by_asgi(**given: Any) -> dict[str, Any]:
        async with _started(app):
            return await _asked_by_asgi(app, _Request(**given))

    request = by_wsgi if entrypoint.startswith(WSGI) else by_asgi

    # By these it is called again, in a fork of the fork too.
    request.__module__ = f"{kind}:{module}"
    request.__qualname__ = path
    request.__name__ = path
    return request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was recorded of a request."""

    method: str = "GET"
    path: str = "/"
    query: str = ""
    headers: Sequence[Sequence[str]] = ()
    body: str = ""
    root: str = ""

    @property
    def data(self) -> bytes:
        """Return the bytes of the body."""
        return given_input(self.body)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the headers, with the body's length as it is: what was redacted may have another."""
        pairs = [(str(name).lower(), str(value)) for name, value in self.headers]
        length = str(len(self.data))
        return [(name, length if name == "content-length" else value) for name, value in pairs]


def _asked_by_wsgi(app: Any, request: _Request) -> dict[str, Any]:
    headers, body = request.pairs(), request.data
    given = {name: value for name, value in headers if name != "transfer-encoding"}
    host, _, port = given.get("host", "localhost").partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": request.root.encode().decode("latin-1"),
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in given.items():
        bare = name in ("content-type", "content-length")
        environ[("" if bare else "HTTP_") + name.upper().replace("-", "_")] = value
    status, pieces = 0, list[bytes]()

    def start_response(line: str, _: Any, error: Any = None) -> Callable[[bytes], None]:
        nonlocal status
        status = int(line.split(" ", 1)[0])
        return pieces.append

    answer: Iterable[bytes] = app(environ, start_response)
    try:
        pieces.extend(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
    return {"status": status, "body": kept_input(b"".join(pieces))}


async def _asked_by_asgi(app: Any, request: _Request) -> dict[str, Any]:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.pairs()]
    body = request.data
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query.encode("latin-1"),
        "root_path": request.root,
        "headers": pairs,
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    answered = asyncio.Event()
    status, pieces, came = 0, list[bytes](), False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal came
        if not came:
            came = True
            return {"type": "http.request", "body": body, "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = int(message["status"])
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                answered.set()

    await app(scope, receive, send)  # with the tasks that it does after its answer
    return {"status": status, "body": kept_input(b"".join(pieces))}


@asynccontextmanager
async def _started(app: Any) -> AsyncGenerator[None]:
    """Have the application be started within the block, if it has anything to do for that."""
    from ..launch import importing

    coming: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    told: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": _VERSIONS, "state": {}}
    task = asyncio.ensure_future(app(scope, coming.get, told.put))
    with importing(serves=True):  # what it asks a model at its start is none of the request's run
        await coming.put({"type": "lifespan.startup"})
        started = await _first(told, task, "start")
    if started is not None and started["type"] == "lifespan.startup.failed":
        raise RuntimeError(
            f"the application did not start: {started.get('message') or 'it does not say why'}"
        )
    try:
        yield
    finally:
        if started is not None:
            await coming.put({"type": "lifespan.shutdown"})
            await _first(told, task, "stop")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first(
    told: asyncio.Queue[MutableMapping[str, Any]], task: asyncio.Future[Any], what: str
) -> MutableMapping[str, Any] | None:
    """Return what the application says first; None where it knows of no lifespan, as it may."""
    said = asyncio.ensure_future(told.get())
    done, _ = await asyncio.wait({said, task}, timeout=STARTED_S, return_when=asyncio.FIRST_COMPLETED)
    if said in done:
        return said.result()
    said.cancel()
    if not done:
        raise TimeoutError(f"the application did not {what} within {STARTED_S:g} s (its lifespan goes on)")
    return None
