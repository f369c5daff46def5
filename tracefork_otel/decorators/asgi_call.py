"""A recorded request made again: the application is imported, started, asked in process, and stopped."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..session.inbound import ASGI
from ..tape.start import given_input, kept_input

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STARTED_S = 60.0
"""So long an application may take to start; servers have no limit, but somebody who looks."""
_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


def request_to(entrypoint: str) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Return a function that sends a request to the application `asgi:pkg.mod:app` and returns its response.

    `asgi:pkg.mod:make()` calls a factory. Raises ImportError, or what the module raises.
    """
    module, _, path = entrypoint.removeprefix(ASGI).partition(":")
    if not (module and path):
        raise ImportError(f"{entrypoint!r} does not name an application: write it like asgi:pkg.mod:app")
    app: Any = importlib.import_module(module)
    for name in path.removesuffix("()").split("."):
        if not hasattr(app, name):
            raise ImportError(f"module {module} has no {path}: is the application still there?")
        app = getattr(app, name)
    if path.endswith("()"):
        app = app()

    async def request(
        method: str = "GET",
        path: str = "/",
        query: str = "",
        headers: Sequence[Sequence[str]] = (),
        body: str = "",
    ) -> dict[str, Any]:
        async with _started(app):
            return await _asked(app, method, path, query, headers, given_input(body))

    # By these it is called again, in a fork of the fork too.
    request.__module__ = f"{ASGI}{module}"
    request.__qualname__ = path
    request.__name__ = path
    return request


async def _asked(
    app: Any, method: str, path: str, query: str, headers: Sequence[Sequence[str]], body: bytes
) -> dict[str, Any]:
    pairs = [(str(name).lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers]
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode("latin-1"),
        "root_path": "",
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
