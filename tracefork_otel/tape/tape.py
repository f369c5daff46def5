"""A run that can be replayed, and its file: JSON lines that grep, git and the standard library can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import TapeError
from ..files import write_whole
from .digest import digest_of
from .file import Contents, encode
from .reading import decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape(Contents):
    """A run's exchanges in step order, and how to start its agent again.

    >>> tape = Tape.load("run.tape")
    >>> tape.exchanges[0].request.url
    'https://api.openai.com/v1/chat/completions'
    """

    @property
    def steps(self) -> int:
        """The number of exchanges."""
        return len(self.exchanges)

    @property
    def digest(self) -> str:
        """The hash chain over the exchanges, computed from their bytes (see `digest_of`)."""
        return digest_of(self.exchanges, self.format)

    def dump(self, path: str | Path) -> None:
        """Write the file, for its owner alone; an interrupted dump changes nothing."""
        data = self.to_bytes()
        try:
            write_whole(Path(path), data)
        except OSError as error:
            raise TapeError(f"cannot write the tape {path}: {error.strerror or error}") from error

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
