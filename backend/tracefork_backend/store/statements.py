"""The store's own small queries, by name, from `statements.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from tracefork_otel.store.views import source

_NAMED = re.compile(r"^-- :(\w+)$", re.MULTILINE)
BACKEND_MARK = "-- >8 --"
"""In views.sql: what stands before it finds the segments by MANIFEST.json; here they are given."""


@cache
def _statements() -> dict[str, str]:
    parts = _NAMED.split(
        resources.files("tracefork_backend.store").joinpath("statements.sql").read_text("utf-8")
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def statement(name: str) -> str:
    """Return the text of the named query."""
    return _statements()[name]


@cache
def views() -> str:
    """Return what defines all views, given `tracefork_store` and `tracefork_segments`."""
    # The rest of the mark's own line is a comment.
    return "--" + source("views.sql").partition(BACKEND_MARK)[2] + source("blame.sql")
