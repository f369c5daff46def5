"""The store's own small queries, by name, from `statements.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAMED = re.compile(r"^-- :(\w+)$", re.MULTILINE)
MARK = "-- >8 --"
"""Cuts views.sql in three: what finds the segments (here they are given), the views, and `messages`."""


@cache
def _statements() -> dict[str, str]:
    parts = _NAMED.split(
        resources.files("tracefork_backend.store").joinpath("statements.sql").read_text("utf-8")
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def statement(name: str) -> str:
    """The text of the named query."""
    return _statements()[name]


@cache
def _views() -> list[str]:
    text = resources.files("tracefork_otel").joinpath("views.sql").read_text("utf-8")
    # The rest of the mark's own line is a comment.
    return [f"--{part}" for part in text.split(MARK)]


def views() -> str:
    """What defines all views but `messages` once `tracefork_store` and `tracefork_segments` are set."""
    return _views()[1]


def messages() -> str:
    """What defines the view `messages` beside the others."""
    return _views()[2]
