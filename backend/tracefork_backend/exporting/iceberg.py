"""An Iceberg table for each view, partitioned by `day`, in a folder with a catalog of its own."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tracefork_otel.errors import StoreError, UsageError

from .table import STATE, Day, Rows, read_told, told

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

CATALOG = "catalog.db"
NAMESPACE = "tracefork"


class IcebergTable:
    """A view as the table `tracefork.VIEW` of the catalog; what it holds stands in `tracefork.exports`."""

    def __init__(self, catalog: SqlCatalog, folder: Path, view: str) -> None:
        self._catalog = catalog
        self._folder = folder
        self._view = view

    def days(self) -> Mapping[str, Day]:
        """Return what the table beside it says of this one; nothing where one of the two is not there."""
        state = self._there(STATE)
        if state is None or self._there(self._view) is None:
            return {}
        with _named(self._folder):
            return read_told(state.scan(row_filter=f"view == '{self._view}'").to_arrow())

    def replace(self, rows: Rows, gone: Collection[str]) -> None:
        """Overwrite these days' partitions in one commit, and then say what they hold."""
        touched = {*rows.content, *gone}
        left = {day: one for day, one in self.days().items() if day not in touched}
        found = pa.Table.from_batches(rows.with_day(), rows.schema_with_day)
        days = ", ".join(f"'{day}'" for day in sorted(touched))
        self._overwrite(self._view, found, f"day in ({days})", by="day")
        state = told(self._view, left | rows.taken())
        self._overwrite(STATE, state, f"view == '{self._view}'", by="view")

    def _there(self, name: str) -> Any | None:
        with _named(self._folder):
            full = (NAMESPACE, name)
            return self._catalog.load_table(full) if self._catalog.table_exists(full) else None

    def _overwrite(self, name: str, rows: pa.Table, where: str, *, by: str) -> None:
        there = self._there(name)
        with _named(self._folder):
            if there is None:
                there = self._catalog.create_table((NAMESPACE, name), rows.schema)
                with there.update_spec() as spec:
                    spec.add_identity(by)
            elif set(rows.schema.names) - {one.name for one in there.schema().fields}:
                with there.update_schema() as schema:
                    schema.union_by_name(rows.schema)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that there was nothing to overwrite
                there.overwrite(rows, overwrite_filter=where)


def opened(destination: str, view: str) -> IcebergTable:
    """Return the table; UsageError where pyiceberg is not installed, or the destination is a bucket."""
    try:
        from pyiceberg.catalog.sql import SqlCatalog
    except ImportError:
        raise UsageError('--to iceberg needs pyiceberg: pip install "tracefork-otel[iceberg]"') from None
    if "://" in destination:
        raise UsageError(
            f"{destination}: Iceberg is written into a folder of this machine; --to delta takes a bucket"
        )
    folder = Path(destination)
    with _named(folder):
        catalog = SqlCatalog(NAMESPACE, uri=f"sqlite:///{folder / CATALOG}", warehouse=folder.as_uri())
        catalog.create_namespace_if_not_exists(NAMESPACE)
    return IcebergTable(catalog, folder, view)


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Raise StoreError, which names the folder, where something is wrong with what is in it."""
    from pyiceberg.exceptions import CommitFailedException, RESTError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except CommitFailedException as error:
        raise StoreError(
            f"{folder}: another process wrote at the same time; nothing is lost, export again"
        ) from error
    except (RESTError, SQLAlchemyError, OSError, ValueError) as error:
        raise StoreError(f"{folder}: {str(error).splitlines()[0]}") from error
