"""The store's own small queries, by name, from `statements.sql`."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

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
    """The text of the named query."""
    return _statements()[name]


@cache
def views() -> str:
    """What defines all views but `messages` once `tracefork_store` and `tracefork_segments` are set."""
    # The rest of the mark's own line is a comment.
    package = resources.files("tracefork_otel.store") / "sql"
    base = (package / "views.sql").read_text("utf-8").partition(BACKEND_MARK)[2]
    return "\n".join(("--" + base, (package / "blame.sql").read_text("utf-8")))


@cache
def messages() -> str:
    """What defines the view `messages` beside the others."""
    return (resources.files("tracefork_otel.store") / "sql" / "messages.sql").read_text("utf-8")
