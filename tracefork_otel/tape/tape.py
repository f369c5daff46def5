"""A run that can be replayed, and its file: JSON lines that grep, git and the standard library can read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..errors import TapeError
from ..exchange import Exchange
from ..files import write_whole
from ..store.records import Note
from .digest import digest_of
from .file import decode, encode
from .reads import Draw, ToolCall
from .start import HowStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """A run's exchanges in step order, and how to start its agent again.

    >>> tape = Tape.load("run.tape")
    >>> tape.exchanges[0].request.url
    'https://api.openai.com/v1/chat/completions'
    """

    run_id: str
    exchanges: tuple[Exchange, ...]
    name: str = ""
    start: HowStarted = field(default_factory=HowStarted)
    notes: tuple[Note, ...] = ()
    draws: tuple[Draw, ...] = ()
    """What the agent read from clocks and randomness, process by process, in order; not part of `digest`."""
    tools: tuple[ToolCall, ...] = ()
    """The calls of its local tools, in the order of their start; not part of `digest` either."""

    @property
    def steps(self) -> int:
        """The number of exchanges."""
        return len(self.exchanges)

    @property
    def digest(self) -> str:
        """The hash chain over the exchanges, computed anew from their bytes (see `digest_of`)."""
        return digest_of(self.exchanges)

    def dump(self, path: str | Path) -> None:
        """Write the file, for its owner alone; an interrupted dump changes nothing."""
        data = self.to_bytes()
        target = Path(path)
        try:
            write_whole(target, data)
        except OSError as error:
            raise TapeError(f"cannot write the tape {target}: {error.strerror or error}") from error

    def to_bytes(self) -> bytes:
        """Return the bytes of its file, equal for equal tapes; raise TapeError for a damaged one."""
        return encode(self)

    @classmethod
    def load(cls, path: str | Path) -> Tape:
        """Read a tape's file; raise TapeError if a single byte of it is not as it was written."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TapeError(f"cannot read the tape {path}: {error.strerror or error}") from error
        return cls.from_bytes(data, where=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str = "tape") -> Tape:
        """Return the tape that `to_bytes` made these bytes of; `where` names them in errors."""
        return cls(**decode(data, where))
