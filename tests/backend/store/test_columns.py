"""The table of columns is the one place of an exchange's fields, and all that is made from it agrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tracefork_backend.store import open_store
from wal_samples import process
from wal_strategies import record_lists

import tracefork_otel
from tracefork_otel.store.columns import TABLES
from tracefork_otel.store.records import Record
from tracefork_otel.store.segment import schema
from tracefork_otel.store.wal import Wal

FIELD = '''    span_status: str = "UNSET"
    """`UNSET`, `OK` or `ERROR`."""
'''
LINE = '    Column("damage", TEXT, end="", tape="never"),\n'
ADDED = (("attempt", "INTEGER"), ("tags", "LIST"))
USE = """
import json, sys
from dataclasses import replace
from pathlib import Path
from stored import Recorder, answered, asked
from tracefork_backend.store import open_store
from tracefork_otel.exchange import Exchange
from tracefork_otel.store.records import ExchangeEnded
from tracefork_otel.tape.tape import Tape

store = Path(sys.argv[1])
recorder = Recorder(store)
append = recorder.wal.append
recorder.wal.append = lambda record: append(
    replace(record, attempt=3, tags=("a", "b")) if isinstance(record, ExchangeEnded) else record
)
recorder.exchange("ab" * 16, asked("hi"), answered("ho"))
found = {}
def told(opened):
    (exchange,) = opened.run("last").exchanges
    (row,) = opened.rows("select attempt, tags from _exchanges")
    return [exchange.attempt, list(exchange.tags), row["attempt"], row["tags"]]
with open_store(store) as opened:
    found["live"] = told(opened)
recorder.close()
with open_store(store) as opened:
    found["sealed"] = told(opened)
    run = opened.run("last")
    tape = Tape(run_id=run.run_id, exchanges=run.exchanges)
(exchange,) = Tape.from_bytes(tape.to_bytes()).exchanges
found["tape"] = [exchange.attempt, list(exchange.tags)]
print(json.dumps(found))
"""


def told(store: Path) -> dict[str, Any]:
    """What a store says: rows of tables, without what segments number in their own way, and runs' bodies."""
    own = ("segment", "request_parts", "response_parts")
    with open_store(store) as opened:
        assert opened.problems == ()
        tables = {
            table: [
                {name: value for name, value in row.items() if name not in own}
                for row in opened.rows(f"select * from {table}")
            ]
            for table in ("_exchanges", "_spans", "bodies")
        }
        exchanges = [one for run in opened.runs() for one in opened.exchanges(run.run_id)]
    bodies = [(one.span_id, one.request.body, one.response and one.response.body) for one in exchanges]
    return {name: sorted(rows, key=repr) for name, rows in {**tables, "runs": bodies}.items()}


@given(records=record_lists())
@settings(max_examples=settings.default.max_examples // 4, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_live_reads_as_what_is_sealed(records: list[Record]) -> None:
    """A row is the same in all its columns before and after its WAL becomes a segment."""
    with TemporaryDirectory() as directory:
        store = Path(directory)
        wal = Wal(store, process())
        for record in records:
            wal.append(record)
        live = told(store)
        wal.close()
        assert not list(store.glob("segments/*"))
        assert told(store) == live
        assert list(store.glob("segments/*")) or not records


@pytest.mark.slow
def test_a_field_is_a_field_and_a_line(tmp_path: Path) -> None:
    """What is added to the dataclass and to the table goes into WALs, segments, SQL and tapes."""
    package = Path(tracefork_otel.__file__).parent
    copy = tmp_path / "tracefork_otel"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in (
        ("exchange.py", FIELD, f"{FIELD}    attempt: int = 0\n    tags: tuple[str, ...] = ()\n"),
        (
            "store/columns.py",
            LINE,
            LINE + "".join(f'    Column("{name}", {kind}, optional=True),\n' for name, kind in ADDED),
        ),
    ):
        text = (copy / name).read_text()
        assert text.count(old) == 1
        (copy / name).write_text(text.replace(old, new))
    tests = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (tmp_path, tests, tests.parent / "backend")))
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path / "store")],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,  # an empty first entry of sys.path is the current folder
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    in_sql = [3, ["a", "b"], 3, '["a","b"]']
    assert json.loads(done.stdout) == {"live": in_sql, "sealed": in_sql, "tape": [3, ["a", "b"]]}


def test_the_live_tables_have_the_columns_of_segments(tmp_path: Path) -> None:
    """SQL, Parquet and the table name the same columns."""
    with open_store(tmp_path) as store:
        for table, columns in TABLES.items():
            assert schema(table).names == [column.name for column in columns]
            found = store.rows(
                f"select column_name from duckdb_columns() where table_name = '_live_{table}' order by 1"
            )
            assert [row["column_name"] for row in found] == sorted(["filename", *schema(table).names])
