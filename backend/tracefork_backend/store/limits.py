"""How much memory and time a question may take, and what is said when that was not enough."""

from __future__ import annotations

import re
import threading
from types import TracebackType

import duckdb

from tracefork_otel.errors import UsageError

MEMORY = "50%"
"""Of the machine or its container, for what DuckDB holds at once."""
LEAST_MB = 64
"""Opening a store takes a third of it."""
_MOST_TB = 10**6
"""What DuckDB can count is nine times as much."""
_LONGEST_S = 10**6
"""Eleven days; a thread's timer can wait for 292 years and no longer."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(%|B|[KMGT]i?B)", re.IGNORECASE)
_BYTES = {"B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def memory(text: str) -> str:
    """Return a size as DuckDB takes it; raise UsageError if it is none, or too small to open a store."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no size of memory: write 2GB, 500MB or 25%")
    number, unit = float(found[1]), found[2].upper()
    if unit == "%" and not 1 <= number <= 100:
        raise UsageError(f"{text!r} is no share of the memory: write 1% to 100%")
    if unit != "%" and number * _BYTES[unit[0]] < LEAST_MB * 10**6:
        raise UsageError(f"{text!r} is too little memory: a store needs at least {LEAST_MB}MB")
    if unit != "%" and number * _BYTES[unit[0]] > _MOST_TB * 10**12:
        raise UsageError(f"{text!r} is more memory than any machine has: write 2GB, 500MB or 25%")
    return f"{found[1]}{unit}"


def connect(allowed: str, **config: str) -> duckdb.DuckDBPyConnection:
    """Return a database that holds no more memory than that; a share is never less than a store needs."""
    try:
        database = duckdb.connect(config={**config, "memory_limit": allowed})
    except duckdb.Error as error:
        raise UsageError(f"no database with {allowed} of memory can be opened: {error}") from error
    if allowed.endswith("%"):
        ((share,),) = database.execute("SELECT current_setting('memory_limit')").fetchall()
        try:
            memory(share)
        except UsageError:
            database.execute(f"SET memory_limit = '{LEAST_MB}MB'")
    return database


def is_memory(error: BaseException) -> bool:
    """Return whether the error is that there was not enough memory."""
    return isinstance(error, duckdb.OutOfMemoryException | MemoryError)


def too_much(allowed: str) -> str:
    """Return what is said of a query that needs more memory than this."""
    return (
        f"the query needs more than {_so_much(allowed)}: name fewer columns (docs/sql.md says which are "
        "dear), restrict it to a run, or give it more: --memory SIZE"
    )


def too_much_to_open(allowed: str) -> str:
    """Return what is said where a store cannot be opened with this much memory."""
    return (
        f"the store cannot be opened: that needs more than {_so_much(allowed)}; free some, "
        "or give a query more: sql --memory SIZE"
    )


def _so_much(allowed: str) -> str:
    return f"{allowed} of this machine's memory" if allowed.endswith("%") else f"{allowed} of memory"


def duration(seconds: float) -> float:
    """Return the seconds; raise UsageError if no timer can wait for so long."""
    if not 0 <= seconds <= _LONGEST_S:
        raise UsageError(f"{seconds:g} s is no time for a query: give it 0.01 to {_LONGEST_S} seconds")
    return seconds


def too_long(seconds: float) -> str:
    """Return what is said of a query that takes longer than this."""
    return (
        f"the query took longer than {seconds:g} s: restrict it to a run, or give it more: --timeout SECONDS"
    )


class Clock:
    """Interrupts queries when their time is over."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.struck = threading.Event()
        self._cursors: list[duckdb.DuckDBPyConnection] = []
        self._timer = None if seconds is None else threading.Timer(duration(seconds), self._strike)

    def __enter__(self) -> Clock:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(error, duckdb.InterruptException) and self.seconds is not None and self.struck.is_set():
            raise UsageError(too_long(self.seconds)) from error

    def watch(self, cursor: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """Return the connection, whose queries are interrupted when the time is over."""
        self._cursors.append(cursor)
        return cursor

    def _strike(self) -> None:
        self.struck.set()
        for cursor in self._cursors:
            cursor.interrupt()
