"""A table that stands outside the store, as the formats keep it: whole days are replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

import pyarrow as pa

STATE = "exports"
"""The table in which lakes keep what stands in the others."""
_STATE = pa.schema(
    [
        pa.field("view", pa.string()),
        pa.field("day", pa.date32()),
        pa.field("rows", pa.int64()),
        pa.field("content", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Day:
    """The rows of a view on one day, as far as they need be known."""

    rows: int
    content: str
    """Equal for equal rows with equal columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one view, a day after the other."""

    schema: pa.Schema
    """Of a row without its day; times are UTC."""
    content: Mapping[str, str]
    """What tells the days that they are of, 2026-12-31 and so on, from what else they may hold."""
    batches: Mapping[str, Iterator[pa.RecordBatch]]
    """The rows of each day, read when they are taken."""
    _counts: Counter[str] = field(default_factory=Counter[str])

    def of(self, day: str) -> Iterator[pa.RecordBatch]:
        """Give the rows of a day."""
        for batch in self.batches[day]:
            self._counts[day] += batch.num_rows
            yield batch

    @property
    def schema_with_day(self) -> pa.Schema:
        """The columns, and `day`, by which lakes partition."""
        return self.schema.append(pa.field("day", pa.date32()))

    def with_day(self) -> Iterator[pa.RecordBatch]:
        """Give the rows of all days, each with its day."""
        for day in self.content:
            for batch in self.of(day):
                days = pa.repeat(pa.scalar(date.fromisoformat(day), pa.date32()), batch.num_rows)
                yield pa.RecordBatch.from_arrays([*batch.columns, days], schema=self.schema_with_day)

    def taken(self) -> dict[str, Day]:
        """Return what the days hold whose rows were all taken."""
        return {day: Day(self._counts[day], content) for day, content in self.content.items()}


class Table(Protocol):
    """One view in a format."""

    def days(self) -> Mapping[str, Day]:
        """Return what stands there, by day."""
        ...

    def replace(self, rows: Rows, gone: Collection[str]) -> None:
        """Have these days hold these rows and no others, and those that are gone none; other days stay."""
        ...


def told(view: str, days: Mapping[str, Day]) -> pa.Table:
    """Return the rows that say of a view what stands there."""
    rows = [
        {"view": view, "day": date.fromisoformat(day), "rows": one.rows, "content": one.content}
        for day, one in sorted(days.items())
    ]
    return pa.Table.from_pylist(rows, schema=_STATE)


def read_told(table: pa.Table) -> dict[str, Day]:
    """Return by day what such rows say."""
    return {row["day"].isoformat(): Day(row["rows"], row["content"]) for row in table.to_pylist()}
