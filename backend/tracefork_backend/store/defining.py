"""The views of a database, each defined when a query first names it: all of them take a tenth of a second."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable

import duckdb

from .statements import View, views

_WORD = re.compile(r"\w+")
_CATALOG = re.compile(
    r"\b(?:duckdb_|pragma_|information_schema|pg_|sqlite_|show\b|tables\b|describe\b)"
    # Not where it ends ORDER BY, as in queries of our own.
    r"|(?:^|[(;]|\*/|--[^\n\r]*[\n\r]|\bexplain\b|\banaly[sz]e\b)\s*desc\b",
    re.IGNORECASE,
)
"""What a query says that asks which views there are."""


class Views:
    """Which views a database has; those that are not yet defined are missing."""

    def __init__(self, database: duckdb.DuckDBPyConnection, *, held: frozenset[str] = frozenset()) -> None:
        self._database = database
        self._held = held
        """Those that become tables: what they read is read once."""
        self._missing: dict[str, View] = dict(views())
        self._lock = threading.Lock()

    def define(self, query: str) -> None:
        """Define the views that the query names, and those that they name."""
        if _CATALOG.search(query):
            self.define_all()
        elif self._missing:
            self._define(word.lower() for word in _WORD.findall(query))

    def define_all(self) -> bool:
        """Define all views; return whether one was missing."""
        return self._define(views())

    def _define(self, names: Iterable[str]) -> bool:
        with self._lock:
            wanted = {name for name in names if name in self._missing}
            waiting = list(wanted)
            while waiting:
                needed = self._missing[waiting.pop()].needs & self._missing.keys() - wanted
                wanted |= needed
                waiting += needed
            # In the order of the file each comes after those that it names.
            for name in [name for name in self._missing if name in wanted]:
                self._make(self._missing[name], hold=name in self._held)
                del self._missing[name]
            return bool(wanted)

    def _make(self, view: View, *, hold: bool) -> None:
        if hold:
            try:
                self._database.execute(view.as_table)
                return
            except duckdb.Error:
                pass  # a damaged file is named by the question that needs it
        self._database.execute(view.text)
