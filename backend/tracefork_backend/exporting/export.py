"""The views of a store brought up to date in a folder or a bucket, for engines that know of no stores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tracefork_otel.errors import StoreError, UsageError

from .views import View, chosen

if TYPE_CHECKING:
    import pyarrow as pa

    from ..store import Store
    from .table import Table

Format: TypeAlias = Literal["parquet", "delta", "iceberg"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did with one view."""

    view: str
    rows: int
    """That stand there now, of the days that were looked at."""
    written: tuple[str, ...]
    """Days whose rows are new or other ones."""
    gone: tuple[str, ...]
    """Days of which the store has nothing any more."""
    kept: tuple[str, ...]
    """Days left as they were, though other rows are in the store: some of its files cannot be read."""


def export(
    store: Store,
    destination: str | Path,
    *,
    to: Format,
    views: str | Sequence[str] | None = None,
    since: datetime | None = None,
) -> list[Exported]:
    """Bring tables of these views up to date with the store, by whole days (UTC); others stay as they are.

    A day is written where its rows have changed since the last export, so a second one writes nothing. What
    is gone from the store goes there too. Raises UsageError for a view or format that is none, StoreError
    where the destination cannot be read or written.
    """
    if to not in FORMATS:
        raise UsageError(f"{to} is no format of an export: use {', '.join(FORMATS)}")
    named = views if views is None or isinstance(views, str) else ",".join(views)
    module = import_module(f".{to}", __package__)
    place = str(destination)
    if "://" not in place:
        place = str(Path(place).expanduser().absolute())
        try:
            os.makedirs(place, mode=0o700, exist_ok=True)
        except FileExistsError:
            raise StoreError(f"{place}: this is a file; an export is a folder") from None
        except OSError as error:
            raise StoreError(f"{place}: no export can be written there: {error.strerror}") from error
    return [_brought(store, view, module.opened(place, view.name), since) for view in chosen(named)]


def _brought(store: Store, view: View, table: Table, since: datetime | None) -> Exported:
    from .table import Rows

    first = "" if since is None else since.date().isoformat()
    schema = _schema(store, view)
    now = _content(store, view, schema, first)
    there = {day: one.content for day, one in table.days().items() if day >= first}
    other = [day for day, content in now.items() if there.get(day) != content]
    gone = [day for day in there if day not in now]
    kept: list[str] = []
    if store.met:
        # Rows that cannot be read now are no rows that are gone.
        kept = [day for day in (*other, *gone) if day in there]
        other, gone = [day for day in other if day not in there], []
    if other or gone:
        batches = {day: _batches(store, view, schema, day) for day in other}
        table.replace(Rows(schema=schema, content={day: now[day] for day in other}, batches=batches), gone)
    rows = sum(one.rows for day, one in table.days().items() if day >= first)
    return Exported(view=view.name, rows=rows, written=tuple(other), gone=tuple(gone), kept=tuple(kept))


def _schema(store: Store, view: View) -> pa.Schema:
    """Return the columns of the view as other engines have them: moments are UTC and say so."""
    import pyarrow as pa

    found = store.sql(f"select * from {view.name} limit 0").to_arrow_table().schema
    utc = pa.timestamp("us", tz="UTC")
    return pa.schema([one.with_type(utc) if pa.types.is_timestamp(one.type) else one for one in found])


def _content(store: Store, view: View, schema: pa.Schema, first: str) -> dict[str, str]:
    """Return by day what is another text once a row of the day, or a column of the view, is another one."""
    columns = ", ".join(f'"{name}"' for name in view.columns or schema.names)
    query = (
        f"select strftime(day, '%Y-%m-%d'), count(*), sum(hash({columns})::hugeint)::varchar"
        f" from {view.telling} where day >= $first::date group by day order by day"
    )
    shape = ", ".join(f"{one.name} {one.type}" for one in schema)
    return {
        day: hashlib.sha256(f"{rows} {total} {shape}".encode()).hexdigest()[:32]
        for day, rows, total in store.answer(query, {"first": first or date.min.isoformat()}).rows
    }


def _batches(store: Store, view: View, schema: pa.Schema, day: str) -> Iterator[pa.RecordBatch]:
    columns = ", ".join(f'"{name}"' for name in schema.names)
    for batch in store.batches(f"select {columns} from {view.source} where day = $day::date", {"day": day}):
        yield batch.cast(schema)
