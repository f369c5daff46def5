"""A store as commands read it: an answer that is short says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .output import say

if TYPE_CHECKING:
    from ..store import Store


@contextmanager
def reading(path: Path) -> Iterator[Store]:
    """Give the store at that path; files that could not be read are named on standard error at the end."""
    from ..store import open_store

    with open_store(path) as opened:
        try:
            yield opened
        finally:
            # Opening a file and reading it may both have failed: it is named once.
            lacking = {one.partition(": ")[0]: one for one in opened.met}
            for why in lacking.values():
                say(f"incomplete: {why}")
            if lacking:
                say("what is missing, and what can be done: tracefork-otel doctor")
