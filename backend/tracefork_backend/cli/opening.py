"""A store as commands read it: an answer that is short says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tracefork_otel.errors import StoreError

from .output import FINDING, say

if TYPE_CHECKING:
    from ..store import Store


@contextmanager
def reading(path: Path, *, strict: bool = False, **how: str) -> Iterator[Store]:
    """Give the store at that path; files that could not be read are named on standard error at the end.

    With `strict` the command then ends with status 1, once it has answered.
    """
    from ..store import open_store

    with open_store(path, **how) as opened:
        try:
            yield opened
        finally:
            lacking = missing(opened)
            for why in lacking:
                say(f"incomplete: {why}")
            if lacking:
                say("what is missing, and what can be done: tracefork-otel doctor")
        if strict and lacking:
            from typer.exceptions import Exit

            raise Exit(FINDING)


def recordable(path: Path) -> None:
    """Raise StoreError where nothing can be recorded into a store at that path, which may not exist yet."""
    absolute = path.absolute()
    there = next(one for one in (absolute, *absolute.parents) if one.exists())
    if not there.is_dir():
        raise StoreError(f"{there}: this is a file; a store is a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"{there} cannot be written: name another store, with --store")


def missing(opened: Store) -> list[str]:
    """Return which files could not be read for what was asked so far, and what is missing for it."""
    return list(opened.met)


def told(opened: Store) -> dict[str, list[str]]:
    """Return `incomplete` for the JSON of a command, with what is missing; nothing where nothing is."""
    found = missing(opened)
    return {"incomplete": found} if found else {}
