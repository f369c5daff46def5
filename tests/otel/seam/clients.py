"""Each client whose requests are captured, behind the same verbs: the contract of the seams asks them."""

from __future__ import annotations

import asyncio
import gc
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import urllib3
from typing_extensions import override

ADDRESS = re.compile(r"0x[0-9a-f]+")
"""Of an object, as errors quote it."""

ENCODING = "utf-8" if urllib3.__version__ >= "2" else "latin-1"


@dataclass(frozen=True)
class Seen:
    """What an application sees of a response, or of the error in its place."""

    status: int = 0
    reason: str = ""
    version: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    hops: tuple[int, ...] = ()
    """Statuses of the redirects on the way."""
    pieces: tuple[bytes, ...] = ()
    """The body; in its cuts, as it went over the wire, where those were asked for."""
    error: str = ""
    message: str = ""

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)


@dataclass(frozen=True)
class Ways:
    """How a session is opened."""

    timeout: float = 8
    proxy: str | None = None
    trusted: Path | None = None
    """The certificate that it takes an origin's for."""
    retries: int = 0
    """How often the client itself asks again after a 503, where it can be told to."""


@dataclass(frozen=True)
class Call:
    """One request, and how much of its response is read."""

    method: str
    url: str
    body: Any = None
    """Text, bytes, an open file, or an iterator of bytes."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    form: Mapping[str, Any] | None = None
    """In the body's place: fields, an open file among them."""
    cuts: bool = False
    take: int | None = None
    """How many pieces are read, before the response is closed."""
    follow: bool = True


class Session(ABC):
    """An open client of an application."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways

    @abstractmethod
    def call(self, call: Call) -> Seen:
        """What is seen of one request."""

    def ask(self, method: str, url: str, body: Any = None, **more: Any) -> Seen:
        """The same, spelled out."""
        return self.call(Call(method, url, body, **more))

    def together(self, calls: Sequence[Call]) -> list[Seen]:
        """All of them at once."""
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(self.call, calls))

    def drop(self, url: str) -> None:
        """Have a response, read a little of it, and forget it."""
        self.forget(url)
        gc.collect()

    @abstractmethod
    def forget(self, url: str) -> None:
        """Have a response in no name."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all connections."""


def failed(error: BaseException, pieces: Sequence[bytes]) -> Seen:
    """What is seen of an error."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    cause = getattr(error, "kwargs", {}).get("error", "")  # which botocore's do not say themselves
    return Seen(pieces=tuple(pieces), error=name, message=ADDRESS.sub("0x", f"{error}{cause}"))


def taken(source: Iterator[bytes], call: Call, pieces: list[bytes]) -> None:
    """The pieces of a body, as many as are wanted."""
    for piece in source:
        pieces.append(piece)
        if len(pieces) == call.take:
            return


class Synchronous(Session):
    """A session whose client is called as a function."""

    @override
    def call(self, call: Call) -> Seen:
        pieces: list[bytes] = []
        try:
            return replace(self.answer(call, pieces), pieces=tuple(pieces))
        except Exception as error:
            return failed(error, pieces)

    @abstractmethod
    def answer(self, call: Call, pieces: list[bytes]) -> Seen:
        """Ask, add what is read to the pieces, and return the rest of what is seen."""


class Asynchronous(Session):
    """A session with an event loop of its own."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways)
        self.runner = asyncio.Runner()

    async def acall(self, call: Call) -> Seen:
        """What `call` does."""
        pieces: list[bytes] = []
        try:
            return replace(await self.aanswer(call, pieces), pieces=tuple(pieces))
        except Exception as error:
            return failed(error, pieces)

    @abstractmethod
    async def aanswer(self, call: Call, pieces: list[bytes]) -> Seen:
        """Ask, add what is read to the pieces, and return the rest of what is seen."""

    @override
    def call(self, call: Call) -> Seen:
        return self.runner.run(self.acall(call))

    @override
    def together(self, calls: Sequence[Call]) -> list[Seen]:
        async def gather() -> list[Seen]:
            return await asyncio.gather(*map(self.acall, calls))

        return self.runner.run(gather())

    def cancelled(self, call: Call, far_enough: Callable[[bytes], bool]) -> bytes:
        """What had come when the task was cancelled, which did not end by itself once it came far enough."""
        pieces: list[bytes] = []

        async def wait() -> None:
            task = asyncio.create_task(self.aanswer(call, pieces))
            while not (task.done() or far_enough(b"".join(pieces))):
                await asyncio.sleep(0.005)
            ended, _ = await asyncio.wait({task}, timeout=0.1)
            assert not ended
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        self.runner.run(wait())
        return b"".join(pieces)

    @abstractmethod
    async def aforget(self, url: str) -> None:
        """What `forget` does."""

    @override
    def forget(self, url: str) -> None:
        self.runner.run(self.aforget(url))

    async def aclose(self) -> None:
        """What `close` does."""

    @override
    def close(self) -> None:
        self.runner.run(self.aclose())
        self.runner.close()


async def in_turn(source: Any) -> AsyncIterator[bytes]:
    """A body that is read or iterated, for a client that awaits it."""
    if hasattr(source, "read"):
        while piece := source.read(65_536):
            yield piece
        return
    for piece in source:
        await asyncio.sleep(0)
        yield piece


def is_parts(body: Any) -> bool:
    """Whether it is read or iterated."""
    return body is not None and not isinstance(body, str | bytes)


class _Httpx:
    """What both kinds of session of httpx and httpx2 share."""

    module: ModuleType

    def opened(self, ways: Ways) -> dict[str, Any]:
        """What a client is made with."""
        verify: Any = True if ways.trusted is None else self.trusting(ways.trusted)
        return {"timeout": ways.timeout, "proxy": ways.proxy, "verify": verify}

    @staticmethod
    def trusting(certificate: Path) -> Any:
        """A context that takes this certificate."""
        import ssl

        return ssl.create_default_context(cafile=str(certificate))

    def request(self, client: Any, call: Call, body: Any) -> Any:
        """The request that is sent."""
        more: dict[str, Any] = {"content": body}
        if call.form is not None:
            files = {name: value for name, value in call.form.items() if hasattr(value, "read")}
            data = {name: value for name, value in call.form.items() if name not in files}
            more = {"files": files, "data": data}
        return client.build_request(call.method, call.url, headers=call.headers, **more)

    @staticmethod
    def seen(got: Any) -> Seen:
        """What is seen of the head."""
        hops = tuple(hop.status_code for hop in got.history)
        headers = tuple((name.decode(), value.decode()) for name, value in got.headers.raw)
        reason = got.extensions.get("reason_phrase", b"").decode("latin-1")
        return Seen(got.status_code, reason, got.http_version, headers, hops)


class HttpxSession(_Httpx, Synchronous):
    """A `Client`."""

    def __init__(self, ways: Ways, module: ModuleType) -> None:
        super().__init__(ways)
        self.module = module
        self.client = module.Client(**self.opened(ways))

    @override
    def answer(self, call: Call, pieces: list[bytes]) -> Seen:
        request = self.request(self.client, call, call.body)
        got = self.client.send(request, stream=True, follow_redirects=call.follow)
        with closing(got):
            taken(got.iter_raw() if call.cuts else iter([got.read()]), call, pieces)
        return self.seen(got)

    @override
    def forget(self, url: str) -> None:
        got = self.client.send(self.client.build_request("GET", url), stream=True)
        got.itself = got  # only the collector can free it

    @override
    def close(self) -> None:
        self.client.close()


class AsyncHttpxSession(_Httpx, Asynchronous):
    """An `AsyncClient`."""

    def __init__(self, ways: Ways, module: ModuleType) -> None:
        super().__init__(ways)
        self.module = module
        self.client = module.AsyncClient(**self.opened(ways))

    @override
    async def aanswer(self, call: Call, pieces: list[bytes]) -> Seen:
        request = self.request(self.client, call, in_turn(call.body) if is_parts(call.body) else call.body)
        got = await self.client.send(request, stream=True, follow_redirects=call.follow)
        try:
            if not call.cuts:
                pieces.append(await got.aread())
            else:
                async for piece in got.aiter_raw():
                    pieces.append(piece)
                    if len(pieces) == call.take:
                        break
        finally:
            await got.aclose()
        return self.seen(got)

    @override
    async def aforget(self, url: str) -> None:
        got = await self.client.send(self.client.build_request("GET", url), stream=True)
        got.itself = got

    @override
    async def aclose(self) -> None:
        await self.client.aclose()


class AiohttpSession(Asynchronous):
    """A `ClientSession`."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways)
        self.session: Any = self.runner.run(self.opened())

    async def opened(self) -> Any:
        """A session of this loop."""
        timeout = aiohttp.ClientTimeout(sock_read=self.ways.timeout, sock_connect=self.ways.timeout)
        return aiohttp.ClientSession(timeout=timeout)

    def sent(self, call: Call) -> dict[str, Any]:
        """What a request is made with."""
        more: dict[str, Any] = {"headers": call.headers, "allow_redirects": call.follow}
        if call.form is not None:
            form = aiohttp.FormData()
            for name, value in call.form.items():
                form.add_field(name, value)
            more["data"] = form
        elif call.body is not None:
            iterated = is_parts(call.body) and not hasattr(call.body, "read")
            more["data"] = in_turn(call.body) if iterated else call.body
        if self.ways.proxy is not None:
            more["proxy"] = self.ways.proxy
        if self.ways.trusted is not None:
            more["ssl"] = _Httpx.trusting(self.ways.trusted)
        return more

    @override
    async def aanswer(self, call: Call, pieces: list[bytes]) -> Seen:
        async with self.session.request(call.method, call.url, **self.sent(call)) as got:
            if not call.cuts:
                pieces.append(await got.read())
            else:
                async for piece in got.content.iter_any():
                    pieces.append(piece)
                    if len(pieces) == call.take:
                        break
            headers = tuple((name.decode(), value.decode()) for name, value in got.raw_headers)
            hops = tuple(hop.status for hop in got.history)
            return Seen(got.status, got.reason, "HTTP/{}.{}".format(*got.version), headers, hops)

    @override
    async def aforget(self, url: str) -> None:
        session = await self.opened()  # which would keep it
        got = await session.get(url)
        await got.content.readany()

    @override
    async def aclose(self) -> None:
        await self.session.close()


def numbered(got: Any) -> str:
    """The version that a response of urllib3 has."""
    return f"HTTP/{got.version / 10}"


class Urllib3Session(Synchronous):
    """A `PoolManager`."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways)
        more: dict[str, Any] = {} if ways.trusted is None else {"ca_certs": str(ways.trusted)}
        pools = urllib3.PoolManager(**more)
        self.pools = pools if ways.proxy is None else urllib3.ProxyManager(ways.proxy, **more)
        again = ways.retries
        self.retries = urllib3.Retry(
            total=again + 4, connect=0, read=0, other=0, status=again, status_forcelist=[503] if again else []
        )

    @override
    def answer(self, call: Call, pieces: list[bytes]) -> Seen:
        got: Any = self.pools.request(
            call.method,
            call.url,
            headers=dict(call.headers),
            preload_content=not call.cuts,
            timeout=self.ways.timeout,
            retries=self.retries,
            redirect=call.follow,
            **self.sent(call),
        )
        with closing(got):
            taken(got.stream(None) if call.cuts else iter([got.data]), call, pieces)
        hops = tuple(hop.status for hop in got.retries.history if hop.redirect_location)
        return Seen(got.status, got.reason or "", numbered(got), tuple(got.headers.items()), hops)

    @staticmethod
    def sent(call: Call) -> dict[str, Any]:
        """What the body is made with."""
        if call.form is None:
            return {"body": call.body}
        files = {
            name: ("sent.bin", value.read()) for name, value in call.form.items() if hasattr(value, "read")
        }
        return {"fields": {**call.form, **files}}

    @override
    def forget(self, url: str) -> None:
        got: Any = self.pools.request("GET", url, preload_content=False)
        got.read(9)
        got.itself = got

    @override
    def close(self) -> None:
        self.pools.clear()


class RequestsSession(Synchronous):
    """A `Session`."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways)
        self.session = requests.Session()
        self.session.headers["accept-encoding"] = "identity"
        if ways.retries:
            retry = urllib3.Retry(total=ways.retries, status_forcelist=[503])
            self.session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
        if ways.proxy is not None:
            self.session.proxies = {"http": ways.proxy, "https": ways.proxy}
        # Of the session's own the environment would take precedence.
        self.verify = None if ways.trusted is None else str(ways.trusted)

    @override
    def answer(self, call: Call, pieces: list[bytes]) -> Seen:
        more: dict[str, Any] = {"data": call.body}
        if call.form is not None:
            files = {name: value for name, value in call.form.items() if hasattr(value, "read")}
            more = {"files": files, "data": {k: v for k, v in call.form.items() if k not in files}}
        got = self.session.request(
            call.method,
            call.url,
            headers=dict(call.headers),
            stream=call.cuts,
            timeout=self.ways.timeout,
            allow_redirects=call.follow,
            verify=self.verify,
            **more,
        )
        with closing(got):
            taken(got.iter_content(None) if call.cuts else iter([got.content]), call, pieces)
        hops = tuple(hop.status_code for hop in got.history)
        return Seen(got.status_code, got.reason or "", numbered(got.raw), tuple(got.headers.items()), hops)

    @override
    def forget(self, url: str) -> None:
        got: Any = self.session.get(url, stream=True)
        got.raw.read(9)
        got.itself = got.raw.itself = got

    @override
    def close(self) -> None:
        self.session.close()


class BotocoreSession(Synchronous):
    """What botocore's clients send by, below signing and retries."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways)
        sessions = pytest.importorskip("botocore.httpsession")
        self.session: Any = sessions.URLLib3Session(
            timeout=ways.timeout,
            proxies=ways.proxy and {"http": ways.proxy, "https": ways.proxy},
            verify=True if ways.trusted is None else str(ways.trusted),
        )

    def send(self, call: Call) -> Any:
        """Its own response."""
        from botocore.awsrequest import AWSRequest  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

        headers = dict(call.headers)
        if is_parts(call.body) and not hasattr(call.body, "read"):
            headers["transfer-encoding"] = "chunked"
        body = call.body.encode() if isinstance(call.body, str) else call.body  # it counts characters
        made: Any = AWSRequest(call.method, call.url, headers, body, stream_output=True)
        prepared = made.prepare()
        return self.session.send(prepared)

    @override
    def answer(self, call: Call, pieces: list[bytes]) -> Seen:
        got = self.send(call)
        with closing(got.raw):
            taken(got.raw.stream(None) if call.cuts else iter([got.content]), call, pieces)
        return Seen(got.status_code, got.raw.reason, numbered(got.raw), tuple(got.headers.items()))

    @override
    def forget(self, url: str) -> None:
        got = self.send(Call("GET", url))
        got.raw.read(9)
        got.itself = got.raw.itself = got

    @override
    def close(self) -> None:
        self.session.close()


@dataclass(frozen=True)
class Client:
    """A client by its name, and what it can be asked for."""

    name: str
    open_with: Callable[[Ways], Session]
    refused: str
    """The error by which the application is told that nobody listens."""
    cut: str
    """Where the connection breaks within a body."""
    late: str
    """Where no answer comes in time."""
    silent: str
    """Where the connection ends before an answer."""
    is_async: bool = False
    follows: bool = True
    has_forms: bool = True
    retries: bool = False
    decodes: bool = True
    encoding: str = "utf-8"
    """Of text that it sends."""

    @contextmanager
    def open(self, **ways: Any) -> Iterator[Any]:
        """A session that is closed after the block."""
        with closing(self.open_with(Ways(**ways))) as session:
            yield session

    def ask(self, method: str, url: str, body: Any = None, **more: Any) -> Seen:
        """What is seen of one request of a fresh session."""
        with self.open() as session:
            return session.ask(method, url, body, **more)


def _httpx(module: ModuleType) -> list[Client]:
    name = module.__name__
    kinds = "ConnectError", "RemoteProtocolError", "ReadTimeout", "RemoteProtocolError"
    errors = [f"{name}.{kind}" for kind in kinds]
    return [
        Client(name, lambda ways: HttpxSession(ways, module), *errors),
        Client(f"{name} async", lambda ways: AsyncHttpxSession(ways, module), *errors, is_async=True),
    ]


ALL = (
    *_httpx(httpx2),
    *_httpx(httpx),
    Client(
        "aiohttp",
        AiohttpSession,
        "aiohttp.client_exceptions.ClientConnectorError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "aiohttp.client_exceptions.SocketTimeoutError",
        "aiohttp.client_exceptions.ServerDisconnectedError",
        is_async=True,
    ),
    Client(
        "urllib3",
        Urllib3Session,
        "urllib3.exceptions.MaxRetryError",
        "urllib3.exceptions.ProtocolError",
        "urllib3.exceptions.ReadTimeoutError",
        "urllib3.exceptions.ProtocolError",
        retries=True,
        encoding=ENCODING,
    ),
    Client(
        "requests",
        RequestsSession,
        "requests.exceptions.ConnectionError",
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ReadTimeout",
        "requests.exceptions.ConnectionError",
        retries=True,
        encoding=ENCODING,
    ),
    Client(
        "botocore",
        BotocoreSession,
        "botocore.exceptions.EndpointConnectionError",
        "urllib3.exceptions.ProtocolError",
        "botocore.exceptions.ReadTimeoutError",
        "botocore.exceptions.ConnectionClosedError",
        follows=False,
        has_forms=False,
        decodes=False,
    ),
)
CLIENTS = pytest.mark.parametrize("client", ALL, ids=lambda client: client.name)
ASYNC = pytest.mark.parametrize(
    "client", [one for one in ALL if one.is_async], ids=lambda client: client.name
)
