"""What `Store.sql` lets through, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stored import record
from tracefork_backend.store import Store, open_store

from tracefork_otel.errors import UsageError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two sealed runs."""
    path = tmp_path_factory.mktemp("store")
    record(path)
    record(path)
    return open_store(path)


ATTACKS = [
    "COPY runs TO '{tmp}/out.csv'",
    "COPY (SELECT 1) TO '{segment}'",
    "COPY _live_spans FROM '/etc/passwd'",
    "ATTACH '{tmp}/x.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{tmp}/x.duckdb_extension'",
    "FORCE INSTALL json",
    "UPDATE EXTENSIONS",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('{segment}')",
    "SELECT * FROM read_parquet('{segment}')",
    "SELECT * FROM parquet_scan('{segment}')",
    "SELECT * FROM parquet_metadata('{segment}')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM read_duckdb('{tmp}/x.duckdb')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{segment}'",
    "FROM '{segment}'",
    'SELECT * FROM "{segment}"',
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "WITH a AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM a",
    "SELECT * FROM runs WHERE EXISTS (FROM glob('/etc/*'))",
    "SELECT * FROM (SELECT 1) JOIN read_text('/etc/passwd') ON true",
    "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
    "SUMMARIZE FROM read_csv('/etc/passwd')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query_table('{segment}')",
    "SELECT * FROM json_execute_serialized_sql('x')",
    "PRAGMA json_execute_serialized_sql('x')",
    "PRAGMA threads = 1",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "SET lock_configuration = false",
    "SET VARIABLE tracefork_scans = 'SELECT 1'",
    "SELECT getenv('HOME')",
    "CREATE TABLE t (a INTEGER)",
    "CREATE TEMP TABLE t (a INTEGER)",
    "CREATE OR REPLACE VIEW runs AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET (TYPE s3)",
    "INSERT INTO _live_processes VALUES ('x')",
    "DELETE FROM _live_spans",
    "UPDATE _live_spans SET name = 'x'",
    "TRUNCATE _live_spans",
    "DROP VIEW runs",
    "ALTER VIEW runs RENAME TO r",
    "WITH a AS (INSERT INTO _live_processes VALUES ('x') RETURNING *) SELECT * FROM a",
    "WITH a AS (DELETE FROM _live_spans RETURNING *) SELECT count(*) FROM a",
    "EXPLAIN ANALYZE INSERT INTO _live_processes VALUES ('x')",
    "EXPLAIN ANALYZE COPY runs TO '{tmp}/out.csv'",
    "EXPLAIN (ANALYZE) DELETE FROM _live_spans",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW runs",
    "BEGIN",
    "COMMIT",
    "ROLLBACK; CREATE TABLE t (a INTEGER)",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPORT DATABASE '{tmp}/x'",
    "IMPORT DATABASE '{tmp}/x'",
    "CHECKPOINT",
    "VACUUM",
    "USE memory",
    "DETACH memory",
    "CONNECT 'x'",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM frame",
    "",
    ";",
    "SELEC 1",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_no_reading_of_the_views_is_refused(store: Store, tmp_path: Path, attack: str) -> None:
    """SQL that writes, reads files, loads or sets anything raises UsageError, and nothing has happened."""
    frame = {"a": [1]}
    segment = next((store.path / "segments").glob("*.spans.parquet"))
    before = segment.read_bytes()
    with pytest.raises(UsageError):
        store.sql(attack.format(tmp=tmp_path, segment=segment)).fetchall()
    assert os.listdir(tmp_path) == []
    assert segment.read_bytes() == before
    assert store.rows("SELECT count(*) AS n FROM runs") == [{"n": 2}]
    assert frame == {"a": [1]}


@pytest.mark.parametrize(
    "query",
    [
        "FROM runs",
        "select run_id, count(*) from exchanges group by all order by all",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2",
        "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 5) SELECT * FROM t",
        "SELECT unnest([1, 2]), r FROM range(3) t(r)",
        "SELECT j.value FROM bodies, json_each(request) j",
        "SELECT request->>'$.model' FROM bodies",
        "SELECT main.runs.run_id FROM main.runs",
        "DESCRIBE runs",
        "SUMMARIZE exchanges",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM runs",
        "explain analyze select * from messages",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'messages'",
        "PIVOT exchanges ON outcome IN ('complete') USING count(*)",
        "VALUES (1), (2)",
        "SELECT 'a; b' AS text -- a comment; with semicolon",
    ],
)
def test_reading_is_let_through(store: Store, query: str) -> None:
    """Any reading of the views is answered."""
    assert store.sql(query).fetchall()


def test_parameters_are_values_and_never_sql(store: Store) -> None:
    """Named and positional parameters are taken as values."""
    run_id = store.run("last").run_id
    assert store.rows("SELECT steps FROM runs WHERE run_id = $id", {"id": run_id}) == [{"steps": 3}]
    assert store.rows("SELECT ? AS a", ["'; DROP VIEW runs"]) == [{"a": "'; DROP VIEW runs"}]


def test_answers_are_relations_of_their_own(store: Store) -> None:
    """Two answers can be read in turns, and a relation can be refined."""
    first, second = store.sql("FROM exchanges ORDER BY run_id, step"), store.sql("FROM runs")
    assert len(first.fetchmany(1) if hasattr(first, "fetchmany") else first.limit(1).fetchall()) == 1
    assert len(second.fetchall()) == 2
    assert store.sql("FROM exchanges").filter("step = 1").aggregate("count(*)").fetchall() == [(2,)]


def test_a_query_that_fails_says_why(store: Store) -> None:
    """Unknown columns and values that do not convert raise UsageError with DuckDB's words."""
    with pytest.raises(UsageError, match="nope"):
        store.sql("SELECT nope FROM runs")
    with pytest.raises(UsageError, match="Conversion Error"):
        store.rows("SELECT run_id::INTEGER FROM runs")


def test_now_is_utc(store: Store) -> None:
    """Times compare with now() whatever the zone of the machine."""
    (row,) = store.rows(
        "SELECT count(*) AS n FROM runs WHERE abs(epoch(now()::TIMESTAMP - started_at)) < 3600"
    )
    assert row["n"] == 2
