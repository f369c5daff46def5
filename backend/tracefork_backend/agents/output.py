"""What a process prints: its beginning and end in memory, all of it on disk while somebody may grade it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.session.events import ends

OUTPUT_HEAD = 64 * 1024
OUTPUT_TAIL = 64 * 1024
WHOLE = 128 * 1024 * 1024
"""Bytes up to which an output is kept whole, on disk, which an agent that prints for ever must not fill."""
_IN_MEMORY = 1024 * 1024
KEPT = 16 * 1024
"""Bytes of an output that are kept with the run that printed it."""


@dataclass(slots=True)
class Output:
    """A stream: its beginning, its end, its length and, up to a limit, all of it."""

    limit: int = WHOLE
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    total: int = 0
    _whole: IO[bytes] | None = None

    @classmethod
    def of(cls, head: bytes, tail: bytes, total: int) -> Output:
        """Return the stream of which so much is known, and no more."""
        return cls(limit=0, head=bytearray(head), tail=bytearray(tail), total=total)

    def feed(self, data: bytes) -> None:
        """Count the data, and keep it: whole as long as there is room, else if it is near the end."""
        self.total += len(data)
        self._spool(data)
        room = OUTPUT_HEAD - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data[-OUTPUT_TAIL:]
        if len(self.tail) > 2 * OUTPUT_TAIL:
            del self.tail[:-OUTPUT_TAIL]

    def _spool(self, data: bytes) -> None:
        if self.total > self.limit:
            self.close()
            return
        if self._whole is None:
            self._whole = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (`close` closes it)
        try:
            self._whole.write(data)
        except OSError:  # the disk is full: what is near the ends is kept all the same
            self.limit = 0
            self.close()

    @property
    def missing(self) -> int:
        """How many bytes of its middle `text` leaves out."""
        return max(0, self.total - len(self.head) - len(self.tail[-OUTPUT_TAIL:]))

    def text(self) -> str:
        """Return the stream, what is not UTF-8 replaced, with a note where its middle was left out."""
        note = b"\n... %d bytes left out ...\n" % self.missing if self.missing else b""
        return (self.head + note + self.tail[-OUTPUT_TAIL:]).decode("utf-8", "replace")

    def whole(self) -> tuple[str, int]:
        """Return as much of it as there is, and how many bytes of its middle that leaves out."""
        kept = self.kept()
        return (self.text(), self.missing) if kept is None else (kept.decode("utf-8", "replace"), 0)

    def kept(self) -> bytes | None:
        """Return all of it, where it is more than `text` shows and was kept."""
        if not self.missing or self._whole is None or self.total > self.limit:
            return None
        self._whole.seek(0)
        return self._whole.read()

    def close(self) -> None:
        """Keep no more than its beginning and end."""
        if self._whole is not None:
            self._whole.close()
            self._whole = None


def output_attributes(text: str, missing: int, redactor: Redactor) -> Mapping[str, object]:
    """Return the attributes of a root that say what its process printed, `missing` bytes of it left out."""
    shown, cut = ends(redactor.text(text), KEPT)
    return {"tracefork.output": shown, "tracefork.output.left_out": (cut + missing) or None}
