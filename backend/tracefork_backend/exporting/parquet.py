"""A folder of Parquet files, one for each day: `runs/day=2026-12-31/rows.parquet`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tracefork_otel.errors import StoreError

from .table import Day, Rows

_FILE = "rows.parquet"
_CONTENT = b"tracefork.content"
"""In a file's metadata: what its rows were told by."""


class ParquetTable:
    """A view as a folder, whose files are replaced as a whole: readers see a day as it was or is."""

    def __init__(self, destination: str, view: str) -> None:
        self._folder = Path(destination) / view

    def days(self) -> Mapping[str, Day]:
        """Return what stands there, by the day in the folder's name; a file that is none of ours has none."""
        found: dict[str, Day] = {}
        for path in sorted(self._folder.glob(f"day=*/{_FILE}")):
            try:
                footer = pq.read_metadata(path)
            except (OSError, pa.ArrowException):
                found[path.parent.name.removeprefix("day=")] = Day(0, "")  # written again
                continue
            content = (footer.metadata or {}).get(_CONTENT, b"").decode(errors="replace")
            found[path.parent.name.removeprefix("day=")] = Day(footer.num_rows, content)
        return found

    def replace(self, rows: Rows, gone: Collection[str]) -> None:
        """Write each day's file beside the one that is there, and put it in its place."""
        try:
            self._replace(rows, gone)
        except OSError as error:
            why = error.strerror or error
            raise StoreError(
                f"{self._folder} cannot be written: {why}; what was there is as it was"
            ) from error

    def _replace(self, rows: Rows, gone: Collection[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for day, content in rows.content.items():
            folder = self._folder / f"day={day}"
            folder.mkdir(exist_ok=True, mode=0o700)
            schema = rows.schema.with_metadata({_CONTENT: content.encode()})
            # Engines that read a folder leave out names with a dot first. The mode of such a file is 0600.
            handle, made = tempfile.mkstemp(prefix=".", suffix=".parquet", dir=folder)
            os.close(handle)
            try:
                with pq.ParquetWriter(made, schema, compression="zstd") as writer:
                    for batch in rows.of(day):
                        writer.write_batch(batch)
                os.replace(made, folder / _FILE)
            except BaseException:
                Path(made).unlink(missing_ok=True)
                raise
        for day in gone:
            shutil.rmtree(self._folder / f"day={day}")


def opened(destination: str, view: str) -> ParquetTable:
    """Return the table; StoreError where nothing can stand there."""
    if "://" in destination:
        raise StoreError(
            f"{destination}: Parquet is written into a folder of this machine; for a bucket use --to delta"
        )
    return ParquetTable(destination, view)
