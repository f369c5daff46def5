"""Bodies that were read out of WALs and stay in memory: what requests share is there once."""

from __future__ import annotations

from dataclasses import dataclass

from ..exchange import Body
from . import pieces
from .chunks import Chunked, Chunks
from .records import ExchangeEnded, ExchangeStarted


class Held:
    """Holds the bodies of an agent's exchanges, requests beyond `AT_ONCE` bytes as chunks."""

    def __init__(self) -> None:
        self._size = 0
        self._chunks = Chunks()
        self._settled: tuple[pieces.Pieces, list[list[int]]] | None = None

    def keep(self, record: ExchangeStarted | ExchangeEnded, side: str, body: bytes) -> bytes | Body:
        """Return the body, or what puts it together; as `read_wal` asks."""
        self._size += len(body)
        if not isinstance(record, ExchangeStarted) or self._size <= pieces.AT_ONCE:
            return body
        self._settled = None
        return _Late(self, self._chunks.add(body, record.trace_id))

    def stored(self, number: int) -> pieces.Stored:
        """Return a body by its number among the chunks."""
        if self._settled is None:
            data, runs = self._chunks.settle()
            self._settled = pieces.Pieces.of("a log", data), runs
        found, runs = self._settled
        return pieces.Stored(found, runs[number])


@dataclass(frozen=True, slots=True)
class _Late:
    """A body whose chunks have no final numbers before all bodies were read."""

    held: Held
    chunked: Chunked

    def __call__(self) -> bytes:
        """Return its bytes."""
        return self.held.stored(self.chunked.number)()

    def __len__(self) -> int:
        """Return how many they are, reading none."""
        return self.chunked.length

    def digest(self, before: bytes = b"") -> bytes:
        """Return the sha256 of `before` and the body after it."""
        return self.held.stored(self.chunked.number).digest(before) if before else self.chunked.sha256
