"""Notes of Python processes that were reached and could not record: each left one among the logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel import shapes
from tracefork_otel.files import read_whole
from tracefork_otel.session.interpreter import program_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A Python process that was reached but could not record."""

    argv: tuple[str, ...] = ()
    executable: str = "the interpreter"
    why: str = "tracefork_otel is missing"
    launch_id: str | None = None
    """The command that it belongs to."""

    @property
    def program(self) -> str:
        """The short name of what it ran."""
        return program_of(self.argv or (self.executable,))

    @property
    def what(self) -> str:
        """What it ran, and why that was not recorded."""
        return f"{self.program}, which {self.executable} ran, is not reached: no tracefork-otel is there"


_TEXT = shapes.text()
_NOTE = shapes.record(
    {},
    {
        "argv": shapes.many(_TEXT),
        "executable": _TEXT,
        "why": _TEXT,
        "launch_id": shapes.optional(_TEXT),
        "attributes": shapes.record({}, {"why": _TEXT}),  # where earlier versions had it
    },
)


def absent_of(store: Path) -> Iterator[Absent]:
    """Yield what each note says; a file that is none is left out."""
    for path in sorted((store / "wal").glob("*.absent.json")):
        try:
            told = _NOTE(shapes.parsed(read_whole(path)))
            yield Absent(**{**told, **told.pop("attributes", {})})
        except (OSError, ValueError):
            continue
