"""The values that everything else passes around: one HTTP request and its response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha256
from operator import attrgetter
from typing import Any, Literal, Protocol, TypeAlias

Headers: TypeAlias = tuple[tuple[str, str], ...]
"""Header lines in wire order, duplicates kept, names as the client wrote them; secrets already replaced."""

Outcome: TypeAlias = Literal[
    "complete",  # the body was read to its end
    "closed",  # the application closed the stream before its end
    "cut",  # the connection broke in mid-body
    "failed",  # any other error in mid-body, a read timeout among them
    "cancelled",  # the task was cancelled
    "abandoned",  # the response was dropped without being closed
    "no_response",  # an error came instead of a response
    "in_flight",  # the process ended (or still runs) before the response did
]


class Body(Protocol):
    """A body that is put together each time it is called."""

    def __call__(self) -> bytes:
        """Return its bytes."""
        ...

    def __len__(self) -> int:
        """Return how many they are, reading none."""
        ...

    def digest(self, before: bytes = b"") -> bytes:
        """Return the sha256 of `before` and the body after it."""
        ...


def header_of(headers: Headers, name: str) -> str | None:
    """Return the value of the first header of that name (case does not matter), or None."""
    wanted, size = name.lower(), len(name)
    for key, value in headers:
        if len(key) == size and key.lower() == wanted:
            return value
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it went over the wire, secrets in URL and headers replaced."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""
    hidden: tuple[str, ...] = field(default=(), compare=False)
    """Keyed digests of what was replaced in URL and body (see `redaction/hidden.py`)."""

    @property
    def length(self) -> int:
        """The number of bytes of the body."""
        return len(self.body)

    @property
    def sha256(self) -> str:
        """The hex digest of the body."""
        return self.digest()

    def digest(self, before: bytes = b"") -> str:
        """Return the hex sha256 of `before` and the body after it."""
        state = sha256(before)
        state.update(self.body)
        return state.hexdigest()

    @property
    def sent(self) -> bytes:
        """The body as it goes over the wire, where that is known: a fork edits this one."""
        return self.body

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name (case does not matter), or None."""
        return header_of(self.headers, name)


class StoredRequest(Request):
    """A request whose body is read each time it is asked for, so that many of them are no burden."""

    __slots__ = ("_kept",)

    def __init__(
        self,
        *,
        method: str,
        url: str,
        headers: Headers = (),
        body: bytes | Body = b"",
        hidden: tuple[str, ...] = (),
    ) -> None:
        set_once = partial(object.__setattr__, self)
        set_once("hidden", hidden)
        set_once("method", method)
        set_once("url", url)
        set_once("headers", headers)
        if isinstance(body, bytes):
            set_once("body", body)
            set_once("_kept", None)
        else:
            set_once("_kept", body)  # the slot of `body` stays empty, so that __getattr__ is asked

    def __getattr__(self, name: str) -> bytes:
        if name != "body":
            raise AttributeError(name)
        return object.__getattribute__(self, "_kept")()

    @property
    def length(self) -> int:
        """The number of bytes of the body."""
        kept: Body | None = object.__getattribute__(self, "_kept")
        return len(self.body if kept is None else kept)

    def digest(self, before: bytes = b"") -> str:
        """Return the hex sha256 of `before` and the body after it; bodies that begin alike share the work."""
        kept: Body | None = object.__getattribute__(self, "_kept")
        return Request.digest(self, before) if kept is None else kept.digest(before).hex()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and _told(self) == _told(other)

    __hash__ = Request.__hash__

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Request, body=self.body, **beside_body(self)), ()


def request_of(*, body: bytes | Body, **told: Any) -> Request:
    """Return the request with these fields and that body, or with what puts it together."""
    return Request(body=body, **told) if isinstance(body, bytes) else StoredRequest(body=body, **told)


def held(request: Request) -> Request:
    """Return the request with its body in memory, so that looking at it again puts nothing together."""
    return request if type(request) is Request else Request(body=request.body, **beside_body(request))


def beside_body(request: Request) -> dict[str, Any]:
    """Return the fields of a request by name, but its body."""
    return {name: getattr(request, name) for name in _BESIDE_BODY}


_BESIDE_BODY = tuple(one.name for one in fields(Request) if one.name != "body")
_told = attrgetter("method", "url", "headers", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedRequest(Request):
    """A request in which the user's rules replaced something; `recorded` is what may be written down."""

    raw: bytes = field(default=b"", compare=False, repr=False)
    """The body with nothing replaced, which is never written down."""
    counts: Mapping[str, int] = field(default_factory=dict[str, int], compare=False)
    """How often each rule replaced something, by the rule's name."""
    withheld: str | None = None
    """Why the body was left out, or None."""

    @property
    def sent(self) -> bytes:
        """The body as it goes over the wire."""
        return self.raw

    def recorded(self) -> Request:
        """Return the request as it is written down."""
        return Request(body=self.body, **beside_body(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response as it came over the wire: body bytes still content-encoded, cut as they arrived."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    chunk_sizes: tuple[int, ...] = ()
    """Sizes of the chunks in order; they add up to the body's length."""
    chunk_offsets_us: tuple[int, ...] = ()
    """Arrival of each chunk, microseconds after the exchange's start."""
    http_version: str = "HTTP/1.1"
    reason_phrase: str | None = None
    """The words after the status, such as `NOT FOUND`; None where the protocol has none or nobody told."""
    stream_id: int | None = None
    """The number of its stream in an HTTP/2 connection."""

    @property
    def sha256(self) -> str:
        """The hex digest of the body."""
        return sha256(self.body).hexdigest()

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name (case does not matter), or None."""
        return header_of(self.headers, name)

    def chunks(self) -> tuple[bytes, ...]:
        """Return the body in the cuts in which it arrived."""
        pieces: list[bytes] = []
        at = 0
        for size in self.chunk_sizes:
            pieces.append(self.body[at : at + size])
            at += size
        return tuple(pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of an exchange when it has ended, as the exchange and the WAL's record both have it."""

    response: Response | None = None
    error_type: str | None = None
    """Qualified class name of the error that ended it, such as `httpx2.ReadTimeout`."""
    error_message: str | None = None
    replayed: bool = False
    """True if a tape answered, so nothing went over the network."""
    intervention: str | None = None
    served_span_id: str | None = None
    """The recorded exchange that answered this one in a replay."""
    site: str | None = None
    """Where the agent's code asked for it, as `file:line function`; None where that is not known."""
    name: str = ""
    span_status: str = "UNSET"
    """`UNSET`, `OK` or `ERROR`."""
    attributes: Mapping[str, object] = field(default_factory=dict[str, object])
    """JSON-able span attributes."""
    links: Sequence[Mapping[str, object]] = ()
    """Span links, each `{"trace_id", "span_id", "attributes"}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(Ending):
    """One HTTP request and its response, if one came; retries and redirect hops are each their own."""

    trace_id: str
    """32 hex digits; the id of the run."""
    span_id: str
    """16 hex digits."""
    parent_span_id: str | None
    process_id: str
    """The process that made it, as its WAL names it."""
    seq: int
    """Place among the exchanges of its process, 0-based."""
    started_ns: int
    ended_ns: int | None
    request: Request
    outcome: Outcome = "in_flight"
    service: str = ""
    span_trace_id: str | None = None
    """The trace of its span where that is not the run's own: of a call that is a trace by itself."""
    damage: str | None = None
    """Why a body is not whole (a digest that does not match, missing chunks), or None."""

    @property
    def told_in(self) -> str:
        """The trace that its span is in, which a link to it has to name."""
        return self.span_trace_id or self.trace_id
