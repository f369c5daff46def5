"""Views exported as tables that other engines read: whole, once, and brought up to date by what is new."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import tracefork_backend as tf
from stored import START, record
from tracefork_backend.exporting.export import FORMATS, Exported, Format
from tracefork_backend.store.removing import planned, remove

from tracefork_otel.errors import StoreError, UsageError

DAY = 86_400_000_000_000
FIRST, SECOND = "2026-09-21", "2026-09-22"
"""The days on which the tests' runs began, and the day after."""
VIEWS = ("runs", "exchanges", "messages", "spans")


def ready(to: Format) -> None:
    """Skip where the format's library is not installed, as it is in .ci/run."""
    pytest.importorskip({"parquet": "pyarrow", "delta": "deltalake", "iceberg": "pyiceberg"}[to])


def count(where: Path, to: Format, view: str) -> int:
    """The rows of an exported table, read without us."""
    if to == "parquet":
        if not list((where / view).glob("*/*.parquet")):
            return 0
        ((rows,),) = duckdb.sql(f"select count(*) from '{where}/{view}/*/*.parquet'").fetchall()
        return rows
    if to == "delta":
        from deltalake import DeltaTable

        return DeltaTable(where / view).to_pyarrow_table().num_rows
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("tracefork", uri=f"sqlite:///{where}/catalog.db")
    return catalog.load_table(("tracefork", view)).scan().to_arrow().num_rows


def exported(store: Path, where: Path, to: Format, **how: object) -> dict[str, Exported]:
    """Export some views; what was done, by view."""
    with tf.open_store(store) as opened:
        return {one.view: one for one in tf.export(opened, where, to=to, views=VIEWS, **how)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "to", [pytest.param(one, marks=() if one == "parquet" else pytest.mark.slow) for one in FORMATS]
)
def test_only_days_that_changed_are_written(to: Format, tmp_path: Path) -> None:
    """All days first, nothing the second time, then the day of a new run, then what was removed is gone."""
    ready(to)
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    record(store, at=START + DAY, steps=2)
    done = exported(store, where, to)
    assert all(one.written == (FIRST, SECOND) and not one.gone for one in done.values())
    assert {view: count(where, to, view) for view in VIEWS} == {view: done[view].rows for view in VIEWS}
    with tf.open_store(store) as opened:
        for view in VIEWS:
            ((rows,),) = opened.answer(f"select count(*) from {view}").rows
            assert done[view].rows == rows > 0

    again = exported(store, where, to)
    assert all(not one.written and not one.gone for one in again.values())

    added = record(store, at=START + DAY + 1, steps=1)
    done = exported(store, where, to)
    assert {one.written for one in done.values()} == {(SECOND,)}
    assert count(where, to, "runs") == 3
    assert count(where, to, "exchanges") == 6

    with tf.open_store(store) as opened:
        remove(opened, planned(opened, [added, *(run.run_id for run in opened.runs() if run.steps == 2)]))
    done = exported(store, where, to)
    assert {one.gone for one in done.values()} == {(SECOND,)}
    assert {view: count(where, to, view) for view in ("runs", "exchanges")} == {"runs": 1, "exchanges": 3}


@pytest.mark.slow
def test_merging_segments_writes_nothing(tmp_path: Path) -> None:
    """The files of the store are others, its rows the same."""
    store, where = tmp_path / "store", tmp_path / "out"
    for _ in range(3):
        record(store, at=START)
        exported(store, where, "parquet")
    with tf.open_store(store) as opened:
        assert opened.compact()
    assert all(not one.written for one in exported(store, where, "parquet").values())


@pytest.mark.slow
def test_since_leaves_other_days_alone(tmp_path: Path) -> None:
    """Neither written nor taken away."""
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    record(store, at=START + DAY)
    done = exported(store, where, "parquet", since=datetime(2026, 9, 22))
    assert done["runs"].written == (SECOND,)
    exported(store, where, "parquet")
    done = exported(store, where, "parquet", since=datetime(2026, 9, 23))
    assert not done["runs"].gone
    assert count(where, "parquet", "runs") == 2


def test_rows_that_cannot_be_read_are_not_taken_away(tmp_path: Path) -> None:
    """A day stays as it was exported where a file of the store is damaged."""
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    exported(store, where, "parquet")
    (segment,) = (store / "segments").glob("*.exchanges.parquet")
    segment.chmod(0o600)
    segment.write_bytes(b"x" * 100)
    done = exported(store, where, "parquet")
    assert done["exchanges"].kept == (FIRST,)
    assert count(where, "parquet", "exchanges") == 3


def test_damaged_files_of_an_export_are_written_again(tmp_path: Path) -> None:
    """A file that is no Parquet, and one that somebody deleted."""
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    exported(store, where, "parquet")
    (where / "runs" / f"day={FIRST}" / "rows.parquet").write_bytes(b"no")
    (where / "exchanges" / f"day={FIRST}" / "rows.parquet").unlink()
    done = exported(store, where, "parquet")
    assert done["runs"].written == done["exchanges"].written == (FIRST,)
    assert done["messages"].written == ()


def test_files_are_for_their_owner_and_say_utc(tmp_path: Path) -> None:
    """An export holds prompts; its times have a zone, so that no engine takes them for local ones."""
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    exported(store, where, "parquet")
    files = [path for path in where.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert where.stat().st_mode & 0o777 == 0o700
    schema = pq.read_schema(where / "runs" / f"day={FIRST}" / "rows.parquet")
    assert str(schema.field("started_at").type) == "timestamp[us, tz=UTC]"


@pytest.mark.parametrize(
    ("views", "to", "says"),
    [
        ("run", "parquet", "run is no view"),
        ("", "parquet", "no view is named"),
        ("runs", "csv", "csv is no format"),
    ],
)
def test_what_does_not_exist_is_refused(views: str, to: Format, says: str, tmp_path: Path) -> None:
    """In one sentence that says what there is."""
    with tf.open_store(tmp_path / "store") as opened, pytest.raises(UsageError, match=says):
        tf.export(opened, tmp_path / "out", to=to, views=views)


def test_a_destination_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file in its place."""
    store, where = tmp_path / "store", tmp_path / "out"
    record(store, at=START)
    where.write_text("")
    with pytest.raises(StoreError, match="out: this is a file"):
        exported(store, where, "parquet")
