"""A request of a client that has no object for it, as the seam reads one: method, address, headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Url:
    """An address, by the parts that the seam asks for."""

    text: str
    scheme: str
    host: str
    port: int | None
    """None where it is the scheme's own."""
    path: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Headers:
    """Headers in the order in which they go out."""

    raw: Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, without its body."""

    method: str
    url: Url
    headers: Headers


def asked(method: str, url: str, headers: Iterable[tuple[str | bytes, str | bytes]]) -> Asked:
    """Return the request; ValueError for an address with a port that there is not."""
    parts = urlsplit(url)
    place = Url(url, parts.scheme, parts.hostname or "", parts.port, parts.path)
    return Asked(method, place, Headers([(_bytes(name), _bytes(value)) for name, value in headers]))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("latin-1", "backslashreplace")
