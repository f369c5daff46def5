"""The values that everything else passes around: one HTTP request and its response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it went over the wire, secrets in URL and headers replaced."""

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""

    @property
    def sha256(self) -> str:
        """The hex digest of the body."""
        return sha256(self.body).hexdigest()

    @property
    def sent(self) -> bytes:
        """The body as it goes over the wire, where that is known: a fork edits this one."""
        return self.body


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
        return Request(method=self.method, url=self.url, headers=self.headers, body=self.body)


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

    @property
    def sha256(self) -> str:
        """The hex digest of the body."""
        return sha256(self.body).hexdigest()

    def header(self, name: str) -> str | None:
        """Return the value of the first header of that name (case does not matter), or None."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

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
    damage: str | None = None
    """Why a body is not whole (a digest that does not match, missing chunks), or None."""
