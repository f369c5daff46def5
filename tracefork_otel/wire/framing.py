"""How a reply is cut into events on the wire, read and written: each framing is one small object.

A form names the framings of its replies, so a form that streams by other rules brings a framing of its own.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .dumps import dumps as spelled
from .json_values import dumps, loads, mapping
from .sse import is_sse, sse_event, sse_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class Event(NamedTuple):
    """One event of a stream: its name where the framing has one, and its data as on the wire."""

    name: str | None
    data: bytes

    def said(self) -> dict[str, Any]:
        """Return the JSON object that the event carries, empty where it carries none."""
        return mapping(loads(self.data))


class Framing(Protocol):
    """A way to stream a reply."""

    @property
    def name(self) -> str:
        """What such a stream holds, in words."""
        ...

    @property
    def content_type(self) -> str:
        """The content type of such a stream."""
        ...

    def holds(self, body: bytes, content_type: str | None) -> bool:
        """Return whether a body is such a stream, by its type or by how it begins."""
        ...

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield the finished events of a stream that may be cut."""
        ...

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return the chunks in which the events go over the wire."""
        ...

    def cut(self, body: bytes) -> Sequence[bytes]:
        """Return a stream in the chunks in which it goes over the wire."""
        ...


class ServerSentEvents:
    """Server-sent events, whose lines end as given."""

    name = "server-sent events"
    content_type = "text/event-stream; charset=utf-8"
    # An event with the blank line that ends it; what follows the last one is a part of its own.
    _EVENT = re.compile(rb".+?(?:\r?\n){2,}|.+\Z", re.DOTALL)

    def __init__(self, ending: bytes = b"\n") -> None:
        """A stream whose events are written with this end of a line."""
        self._ending = ending

    def holds(self, body: bytes, content_type: str | None) -> bool:
        """Return whether the type says so, or the body begins like one."""
        return is_sse(body, content_type)

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield each event that carries data."""
        return (Event(name, data) for name, data in sse_events(body))

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return a chunk for each event."""
        return [sse_event(event.data, event.name, end=self._ending) for event in events]

    def cut(self, body: bytes) -> Sequence[bytes]:
        """Return the events as they are."""
        return self._EVENT.findall(body)


class JsonArray:
    """A JSON array that grows: no API answers one call with an array else."""

    name = "the elements of an array"
    content_type = "application/json"

    def holds(self, body: bytes, content_type: str | None) -> bool:
        """Return whether the body begins like an array."""
        return body.lstrip()[:1] == b"["

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield the elements, as far as they go."""
        decoder = json.JSONDecoder()
        rest = body.lstrip()[1:].decode("utf-8", "replace").lstrip()
        while rest and rest[0] != "]":
            try:
                value, end = decoder.raw_decode(rest)
            except (ValueError, RecursionError):
                return
            yield Event(None, dumps(value).encode("utf-8", "surrogatepass"))
            rest = rest[end:].lstrip().removeprefix(",").lstrip()

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return a chunk for each element, and one for the end."""
        cuts = [(b",\r\n" if number else b"[") + event.data for number, event in enumerate(events)]
        return [*cuts, b"]" if cuts else b"[]"]

    def cut(self, body: bytes) -> Sequence[bytes]:
        """Return the array as one chunk."""
        return [body]


class JsonLines:
    """A JSON object a line; a lone line without the type to say so is a reply that came whole."""

    name = "lines of JSON"
    content_type = "application/x-ndjson"

    def holds(self, body: bytes, content_type: str | None) -> bool:
        """Return whether the type says so, or the first of several lines is an object of its own."""
        if content_type is not None and "ndjson" in content_type.lower():
            return True
        first, _, rest = body.lstrip().partition(b"\n")
        return first.startswith(b"{") and rest.lstrip().startswith(b"{") and loads(first) is not None

    def read(self, body: bytes) -> Iterator[Event]:
        """Yield each line that is an object: one that is cut is none."""
        for line in body.splitlines():
            if isinstance(loads(line), dict):
                yield Event(None, line)

    def write(self, events: Iterable[Event]) -> list[bytes]:
        """Return a chunk for each line."""
        return [event.data + b"\n" for event in events]

    def cut(self, body: bytes) -> Sequence[bytes]:
        """Return the lines as they are."""
        return body.splitlines(keepends=True)


SSE = ServerSentEvents()
NDJSON = JsonLines()


def framing_of(framings: Sequence[Framing], body: bytes, content_type: str | None) -> Framing | None:
    """Return how a body is streamed, None where it came whole."""
    return next((one for one in framings if one.holds(body, content_type)), None)


def event(data: Mapping[str, Any], name: str | None = None) -> Event:
    """Return the event that carries this object."""
    return Event(name, spelled(data, separators=(",", ":"), finite=True).encode())


def sse_if_asked(url: str, request: dict[str, Any]) -> Framing | None:
    """Return server-sent events where the request's body asks for a stream."""
    return SSE if request.get("stream") is True else None
