"""A Delta table for each view, partitioned by `day`, in a folder or a bucket: one commit each time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from tracefork_otel.errors import StoreError, UsageError

from ..spelling import short
from .table import STATE, Day, Rows, read_told, told

if TYPE_CHECKING:
    import deltalake


class DeltaTable:
    """A view as a Delta table; what it holds stands in a table beside it."""

    def __init__(self, destination: str, view: str) -> None:
        self._uri = f"{destination.rstrip('/')}/{view}"
        self._state = f"{destination.rstrip('/')}/{STATE}"
        self._view = view

    def days(self) -> Mapping[str, Day]:
        """Return what the table beside it says of this one; nothing where one of the two is not there."""
        state = _there(self._state)
        if state is None or _there(self._uri) is None:
            return {}
        with _named(self._state):
            return read_told(state.to_pyarrow_table(filters=[("view", "=", self._view)]))

    def replace(self, rows: Rows, gone: Collection[str]) -> None:
        """Overwrite these days' partitions in one commit, and then say what they hold."""
        touched = {*rows.content, *gone}
        left = {day: one for day, one in self.days().items() if day not in touched}
        listed = ", ".join(f"'{day}'" for day in sorted(touched))
        self._overwrite(
            self._uri,
            pa.RecordBatchReader.from_batches(rows.schema_with_day, rows.with_day()),
            where=f"day in ({listed})",
            by=["day"],
        )
        self._overwrite(
            self._state, told(self._view, left | rows.taken()), where=f"view = '{self._view}'", by=["view"]
        )

    @staticmethod
    def _overwrite(uri: str, rows: pa.RecordBatchReader | pa.Table, *, where: str, by: list[str]) -> None:
        from deltalake import write_deltalake

        there = _there(uri)
        with _named(uri):
            write_deltalake(
                uri,
                rows,
                mode="overwrite",
                partition_by=by,
                # A table that is not there yet has no partitions to overwrite, and no schema to add to.
                predicate=None if there is None else where,
                schema_mode=None if there is None else "merge",
            )


def opened(destination: str, view: str) -> DeltaTable:
    """Return the table; UsageError where deltalake is not installed."""
    try:
        import deltalake  # noqa: F401
    except ImportError:
        raise UsageError('--to delta needs deltalake: pip install "tracefork-otel[delta]"') from None
    return DeltaTable(destination, view)


def _there(uri: str) -> deltalake.DeltaTable | None:
    from deltalake import DeltaTable as Lake
    from deltalake.exceptions import TableNotFoundError

    with _named(uri):
        try:
            return Lake(uri)
        except TableNotFoundError:
            return None


@contextmanager
def _named(uri: str) -> Iterator[None]:
    """Raise StoreError, which names the table, where something is wrong with it."""
    from deltalake.exceptions import CommitFailedError, DeltaError

    try:
        yield
    except CommitFailedError as error:
        raise StoreError(
            f"{uri}: another process wrote at the same time; nothing is lost, export again"
        ) from error
    except (DeltaError, OSError, ValueError) as error:
        raise StoreError(f"{uri}: {short(str(error), 300)}") from error
