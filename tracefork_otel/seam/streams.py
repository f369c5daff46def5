"""Tees around body streams: each chunk is kept and handed on as it comes; none is held back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from time import time_ns
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .exchange import SeamExchange


class Tees(NamedTuple):
    """The tee classes for one client library, whose stream classes they extend."""

    response_sync: type[Any]
    response_async: type[Any]
    request_sync: type[Any]
    request_async: type[Any]
    request_both: type[Any]

    def request(self, module: ModuleType, stream: Any, exchange: SeamExchange) -> Any:
        """Return a tee around the stream that is iterated in the same ways."""
        sync, both = isinstance(stream, module.SyncByteStream), isinstance(stream, module.AsyncByteStream)
        cls = self.request_both if sync and both else self.request_sync if sync else self.request_async
        return cls(stream, exchange)


class _Tee:
    """The base of all tees: the stream behind, and the exchange that they report to."""

    def __init__(self, stream: Any, exchange: SeamExchange) -> None:
        self.stream = stream
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        # `Response.elapsed` of httpx2 reads it from the client's own stream.
        if name.startswith("__") or name in ("stream", "_exchange"):
            raise AttributeError(name)
        return getattr(self.stream, name)


class _ResponseTee(_Tee):
    """The base of the response tees."""

    def __del__(self) -> None:
        # A garbage collection may come while this thread holds any lock: only note it, a later call ends it.
        exchange = self.__dict__.get("_exchange")
        if exchange is not None and not exchange.done:
            exchange.session.abandoned.put((exchange, time_ns()))


class RequestTee(_Tee):
    """The base of the request tees; a second iteration (a retry inside a transport) starts anew."""

    def _parts(self) -> list[bytes]:
        parts: list[bytes] = []
        if not self._exchange.done:
            self._exchange.request_parts = parts
        return parts


def tees_for(module: ModuleType) -> Tees:
    """Return tee classes that the given library (httpx, httpx2) takes for streams of its own."""

    class ResponseSync(_ResponseTee, module.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            exchange = self._exchange
            try:
                for chunk in self.stream:
                    exchange.chunk(chunk)
                    yield chunk
            except GeneratorExit:
                raise  # the application stopped reading: `close` says so
            except BaseException as error:
                exchange.fail(error)
                raise
            exchange.finish("complete")

        def close(self) -> None:
            try:
                self.stream.close()
            finally:
                self._exchange.finish("closed")

    class ResponseAsync(_ResponseTee, module.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            exchange = self._exchange
            chunks = self.stream.__aiter__()
            try:
                async for chunk in chunks:
                    exchange.chunk(chunk)
                    yield chunk
            except GeneratorExit:
                raise
            except BaseException as error:
                exchange.fail(error)
                raise
            finally:
                close = getattr(chunks, "aclose", None)
                if close is not None:
                    await close()
            exchange.finish("complete")

        async def aclose(self) -> None:
            try:
                await self.stream.aclose()
            finally:
                self._exchange.finish("closed")

    class RequestSync(RequestTee, module.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            parts = self._parts()
            for part in self.stream:
                parts.append(part)
                yield part

        def close(self) -> None:
            self.stream.close()

    class RequestAsync(RequestTee, module.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            parts = self._parts()
            chunks = self.stream.__aiter__()
            try:
                async for part in chunks:
                    parts.append(part)
                    yield part
            finally:
                close = getattr(chunks, "aclose", None)
                if close is not None:
                    await close()

        async def aclose(self) -> None:
            await self.stream.aclose()

    class RequestBoth(RequestSync, RequestAsync):
        pass

    return Tees(ResponseSync, ResponseAsync, RequestSync, RequestAsync, RequestBoth)
