"""Recorded text is data: what a terminal would obey, or cannot show, is written as an escape."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from ..spelling import visible


class Guarded:
    """A text stream to which nothing can be written that a terminal obeys."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        """Write the text, made visible."""
        return self.unguarded.write(visible(text))

    def writelines(self, lines: Any) -> None:
        """Write all of them, made visible."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream itself, for what writes a terminal's own sequences, or for a machine to read."""
    return stream.unguarded if isinstance(stream, Guarded) else stream


@contextmanager
def guarded() -> Iterator[None]:
    """Have nothing that is printed inside the block obeyed by a terminal."""
    out, err = cast("TextIO", Guarded(sys.stdout)), cast("TextIO", Guarded(sys.stderr))
    with redirect_stdout(out), redirect_stderr(err):
        yield


def show_whatever_comes() -> None:
    """Have characters that standard output or error cannot encode written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a test's stream, or one that is closed
            cast("Any", stream).reconfigure(errors="backslashreplace")
