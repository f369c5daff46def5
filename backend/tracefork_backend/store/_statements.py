"""The store's own small queries, by name, from `statements.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAMED = re.compile(r"^-- :(\w+)$", re.MULTILINE)
BACKEND_MARK = "-- >8 --"
"""In views.sql: what stands before it finds the segments by MANIFEST.json, which a plain DuckDB has to."""


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
def views() -> str:
    """What defines the views once `tracefork_store` and `tracefork_segments` are set."""
    text = resources.files("tracefork_otel").joinpath("views.sql").read_text("utf-8")
    return text.partition(BACKEND_MARK)[2].partition("\n")[2]
