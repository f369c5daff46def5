"""The store's own small queries, by name, from `statements.sql`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

from tracefork_otel.store.views import source

_MAKES = "CREATE OR REPLACE VIEW "
_VIEW = re.compile(rf"^({_MAKES}(\w+) AS\n.*?;)$", re.MULTILINE | re.DOTALL)
_ASKED = re.compile(r"^(?:SET VARIABLE tracefork_beside|INSERT INTO _twice) .*;$", re.MULTILINE)
"""What the views themselves are asked for: here by the snapshot, once the live tables are filled."""
_READ = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
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


class View(NamedTuple):
    """A view's definition, and the names of the views that it reads."""

    text: str
    needs: frozenset[str]

    @property
    def as_table(self) -> str:
        """What makes a table of the rows that the view has now."""
        return self.text.replace(_MAKES, "CREATE TABLE ", 1)


@cache
def views() -> Mapping[str, View]:
    """Return the views by name, each after those that it reads, given what `before_views` makes."""
    texts = {name: text for text, name in _VIEW.findall(_source())}
    return {name: View(text, frozenset(_READ.findall(text)) & texts.keys()) for name, text in texts.items()}


@cache
def before_views() -> str:
    """Return what makes the tables and macros of the views, given the store and its segments."""
    return _ASKED.sub("", _VIEW.sub("", _source()))


@cache
def _source() -> str:
    # The rest of the mark's own line is a comment.
    return "--" + source("views.sql").partition(BACKEND_MARK)[2] + source("blame.sql")
