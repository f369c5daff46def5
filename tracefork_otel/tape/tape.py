"""A run that can be replayed, and its file: JSON lines that grep, git and the standard library can read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import TapeError
from ..exchange import Exchange, Outcome
from ..files import write_whole
from ..store.records import Draw, Note, ToolCall

FORMAT = 1
CHAIN_START = sha256(b"tracefork tape 1").digest()

# What the digest says of an ending: by which side, not by which of two racing clocks (whether a client that
# walks away is seen as closing, dropping or cancelling depends on the garbage collector and the scheduler).
_ENDING: Mapping[Outcome, str] = {
    "complete": "complete",
    "cut": "cut",
    "failed": "failed",
    "closed": "left",
    "abandoned": "left",
    "cancelled": "left",
    "no_response": "none",
    "in_flight": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HowStarted:
    """How the agent was started, so that a replay can start it again."""

    command: tuple[str, ...] | None = None
    """The argv given to `tracefork-otel run`."""
    cwd: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """The environment of the command, without what looks secret."""
    withheld: tuple[str, ...] = ()
    """Names of the environment variables whose values were left out."""
    entrypoint: str | None = None
    """`pkg.mod:fn` of the agent function."""
    arguments: Any = None
    """Its arguments as `{"args": [...], "kwargs": {...}}`, or None."""
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    exit_status: int | None = None
    """How the recorded process ended; 128+n for signal n."""

    def attributes(self) -> dict[str, object]:
        """The attributes of a root span that say this; what is not known is left out."""
        found: dict[str, object] = {}
        for key, value in (
            ("tracefork.command", self.command),
            ("tracefork.environment", dict(sorted(self.environment.items()))),
            ("tracefork.arguments", self.arguments),
            ("tracefork.versions", dict(sorted(self.versions.items()))),
        ):
            if value:
                found[key] = json.dumps(value)
        for key, value in (
            ("tracefork.cwd", self.cwd),
            ("tracefork.environment.withheld", list(self.withheld) or None),
            ("tracefork.entrypoint", self.entrypoint),
            ("tracefork.git.commit", self.git_commit),
            ("tracefork.exit_status", self.exit_status),
        ):
            if value is not None:
                found[key] = value
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """A run's exchanges in step order, and how to start its agent again."""

    run_id: str
    exchanges: tuple[Exchange, ...]
    name: str = ""
    start: HowStarted = field(default_factory=HowStarted)
    notes: tuple[Note, ...] = ()
    draws: tuple[Draw, ...] = ()
    """What the agent read from clocks and randomness, process by process, in order; not part of `digest`."""
    tools: tuple[ToolCall, ...] = ()
    """The calls of its local tools, in the order of their start; not part of `digest` either."""
    version: int = FORMAT

    @property
    def steps(self) -> int:
        """The number of exchanges."""
        return len(self.exchanges)

    @property
    def digest(self) -> str:
        """The hash chain over the exchanges, computed anew from their bytes (see `digest_of`)."""
        return digest_of(self.exchanges)

    def dump(self, path: str | Path) -> None:
        """The file holds this tape whole, for its owner alone; an interrupted dump changes nothing."""
        data = self.to_bytes()
        target = Path(path)
        try:
            write_whole(target, data)
        except OSError as error:
            raise TapeError(f"cannot write the tape {target}: {error.strerror or error}") from error

    def to_bytes(self) -> bytes:
        """The tape as the bytes of its file; equal tapes give equal bytes."""
        from .file import encode  # it needs this module's values

        return encode(self)

    @classmethod
    def load(cls, path: str | Path) -> Tape:
        """The tape in a file; raises TapeError if a single byte of it is not as it was written."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TapeError(f"cannot read the tape {path}: {error.strerror or error}") from error
        return cls.from_bytes(data, where=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "tape") -> Tape:
        """The tape that `to_bytes` made these bytes of; `where` names them in the error if nothing did."""
        from .file import decode  # it needs this module's values

        return decode(data, where)


def digest_of(exchanges: Iterable[Exchange]) -> str:
    """The hash chain over exchanges in the given order, in hex.

    Link 0 is the sha256 of `tracefork tape 1`; each exchange makes the next link (see `chain`).
    """
    link = CHAIN_START
    for exchange in exchanges:
        link = chain(link, exchange)
    return link.hex()


def chain(previous: bytes, exchange: Exchange) -> bytes:
    """The next link: the sha256 of the link before and of what client and server gave each other.

    That is: method, URL, request body, status (empty without a response), response headers as JSON,
    response body, chunk sizes as JSON, and the ending (`complete`, `cut`, `failed`, `left` by the client,
    `none`); each preceded by its length as a big-endian u64.
    """
    response = exchange.response
    link = sha256(previous)
    for part in (
        exchange.request.method.encode("utf-8", "surrogatepass"),
        exchange.request.url.encode("utf-8", "surrogatepass"),
        exchange.request.body,
        str(response.status).encode() if response else b"",
        json.dumps(response.headers if response else []).encode(),
        response.body if response else b"",
        json.dumps(response.chunk_sizes if response else []).encode(),
        _ENDING[exchange.outcome].encode(),
    ):
        link.update(struct.pack(">Q", len(part)))
        link.update(part)
    return link.digest()
