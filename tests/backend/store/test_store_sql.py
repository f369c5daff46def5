"""What `Store.sql` lets through, and what it refuses."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from stored import record
from tracefork_backend import cli
from tracefork_backend.store import Store, limits, open_store, snapshot
from tracefork_backend.store.defining import Views
from tracefork_backend.store.statements import views

from tracefork_otel.errors import StoreError, UsageError


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
    "EXPLAIN (ANALYZE /* ) SELECT 1 -- */ ) DELETE FROM _live_spans",
    "EXPLAIN (ANALYZE -- ) SELECT 1\n) DELETE FROM _live_spans",
    "/* */ DELETE FROM _live_spans; /* */ EXPLAIN SELECT 1",
    "EXPLAIN /* /* */ ANALYZE SELECT 1 */ DELETE FROM _live_spans",
    "EXPLAIN (ANALYZE) (DELETE FROM _live_spans)",
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
    "FROM pg_settings",
    "SELECT setting FROM pg_catalog.PG_SETTINGS",
    "DESCRIBE pg_settings",
    "SELECT current_setting('memory_limit')",
    "SELECT Main.Current_Setting('threads') FROM runs",
    "SELECT list_transform(['threads'], lambda s: current_setting('threads'))",
    "FROM runs SELECT max(steps) FILTER (current_setting('threads') > 1)",
    "SELECT write_log('x')",
    "SELECT json_serialize_plan('SELECT current_setting(''memory_limit'')', optimize := true)",
    "SELECT list_transform(['SELECT 1'], lambda q: Json_Serialize_Plan(q)) FROM runs",
    "SELECT getvariable('tracefork_scans')",
    "FROM duckdb_logs",
    "FROM system.main.duckdb_databases",
    "FROM pragma_database_list",
    "FROM duckdb_memory()",
    "FROM duckdb_live_query_metrics()",
    "FROM enable_logging('QueryLog')",
    "FROM add_grammar_extension('x')",
    "FROM create_external_resource('x')",
    "FROM parquet_full_metadata('{segment}')",
    "FROM read_single_parquet_file('{segment}')",
    "FROM histogram('{segment}', steps)",
    "VALUES ((SELECT count(*) FROM glob('/etc/*')))",
    "SELECT * FROM runs, LATERAL (FROM read_text(command))",
    "SELECT * FROM runs ORDER BY (SELECT 1 FROM glob('*'))",
    "WITH RECURSIVE a USING KEY (k) AS (SELECT 1 k UNION (FROM glob('*'))) FROM a",
    "FROM runs SELECT [x for x in (SELECT list(file) FROM glob('*'))]",
    "SELECT * REPLACE ((SELECT 1 FROM glob('*')) AS steps) FROM runs",
    "SELECT * FROM frame",
    "",
    ";",
    "SELEC 1",
]


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_no_reading_of_the_views_is_refused(store: Store, tmp_path: Path, attack: str) -> None:
    """SQL that writes, reads files, loads or sets anything raises UsageError, and nothing has happened."""
    frame = {"a": [1]}
    segment = next((store.path / "segments").glob("*.spans.parquet"))
    before = segment.read_bytes()
    with pytest.raises(UsageError):
        store.sql(attack.format(tmp=tmp_path, segment=segment)).fetchall()
    with pytest.raises(UsageError):
        store.rows(attack.format(tmp=tmp_path, segment=segment))
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
        "EXPLAIN (SELECT steps FROM runs)",
        "explain ((select 1) union all (from range(2)))",
        "explain/**/analyze select 1",
        "/* why */ explain -- this\n analyse select 1",
        "EXPLAIN (ANALYZE, FORMAT json) FROM runs",
        "explain analyze(format /* as */ 'json') (select 1)",
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


ENDLESS = (
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT count(*) FROM exchanges, range(10000000000) a(n) WHERE n % 7 = step",
    "SELECT max(md5(content || n)) FROM messages, range(10000000000) a(n)",
)


@pytest.mark.parametrize("query", ENDLESS)
def test_a_query_ends_when_its_time_is_over(store: Store, query: str) -> None:
    """It says how long it had, and the store answers the next one."""
    with pytest.raises(UsageError, match=r"took longer than 0\.3 s.*--timeout"):
        store.answer(query, seconds=0.3)
    assert store.answer("SELECT count(*) AS n FROM runs", seconds=60).rows == [(2,)]


LARGE = (
    "SELECT count(*) FROM (SELECT DISTINCT n, md5(n::VARCHAR) FROM range(20000000) a(n))",
    "SELECT len(list(n)) FROM range(100000000) a(n)",
    "SELECT len(string_agg(repeat('x', 1000), '')) FROM range(1000000)",
    "FROM range(30000000) a(n) ORDER BY md5(n::VARCHAR) LIMIT 1 OFFSET 20000000",
)


@pytest.mark.slow
@pytest.mark.parametrize("query", LARGE)
def test_a_query_has_so_much_memory(store: Store, query: str) -> None:
    """Needing more, it says so in plain English, and the store answers the next one."""
    with open_store(store.path, memory="70MB") as small:
        with pytest.raises(UsageError, match=r"needs more than 70MB of memory.*--memory SIZE$"):
            small.rows(query)
        assert small.rows("SELECT count(*) AS n FROM messages m JOIN runs USING (run_id)")[0]["n"] == 24


@pytest.mark.parametrize(
    "size",
    [
        "",
        "2",
        "GB",
        "-1GB",
        "none",
        "1e9B",
        "10MB",
        "0%",
        "101%",
        "2GB; DROP",
        "99999999999TB",
        "9" * 400 + "KiB",
    ],
)
def test_what_is_no_size_of_memory_is_refused(store: Store, size: str) -> None:
    """In words that say how to write one."""
    with pytest.raises(UsageError, match="memory"):
        open_store(store.path, memory=size)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e10, -1.0])
def test_what_is_no_time_is_refused(store: Store, seconds: float) -> None:
    """No timer waits for so long."""
    with pytest.raises(UsageError, match="is no time for a query"):
        store.answer("FROM runs", seconds=seconds)


@pytest.mark.parametrize(
    "given", [("--timeout", "inf"), ("--timeout", "1e10"), ("--memory", "99999999999TB")]
)
def test_the_command_names_what_is_no_bound(
    store: Store, given: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with status 2, and says what would be one."""
    assert cli._run(["sql", "FROM runs", "--store", str(store.path), *given]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_share_of_a_small_machine_is_enough_to_open_a_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is less than a store needs is as much as it needs."""
    monkeypatch.setattr(limits, "LEAST_MB", 3_000_000)  # no machine's share
    with open_store(store.path, memory="1%") as small:
        setting = small.current().database.execute("SELECT current_setting('memory_limit')").fetchall()
    assert setting == [("2.7 TiB",)]


@pytest.mark.slow
def test_too_little_memory_is_no_damage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be opened for want of memory says so, and names no file as damaged."""
    monkeypatch.setattr(limits, "LEAST_MB", 1)
    met: set[str] = set()
    for size in (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20):
        with suppress(StoreError), open_store(store.path, memory=f"{size}MB") as small:
            met.update(small.problems)
    assert not met
    with pytest.raises(StoreError, match="needs more than 1MB of memory"):
        open_store(store.path, memory="1MB")


@pytest.mark.parametrize(
    "query", ["DESCRIBE", "desc", "FROM (DESCRIBE)", "/* all */ Desc;", "SELECT name FROM (-- all\nDESC)"]
)
def test_every_view_is_described(store: Store, query: str) -> None:
    """Whoever asks which tables there are is told of all views, whatever was asked before."""
    with open_store(store.path) as opened:
        answer = opened.answer(query)
        names = {row[answer.columns.index("name")] for row in answer.rows}
    assert set(views()) <= names


def test_a_view_that_could_not_be_defined_is_tried_again() -> None:
    """It is missing until it was defined."""
    made = Views(duckdb.connect())  # which has none of the tables that views read
    first = next(iter(views()))
    for _ in range(2):
        with pytest.raises(duckdb.Error):
            made.define(f"FROM {first}")


@pytest.fixture
def large(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same store as one whose files are too large to be held."""
    monkeypatch.setattr(snapshot, "_SMALL_BYTES", 0)
    return open_store(store.path)


def test_one_run_is_read_by_one_look_at_each_file(large: Store) -> None:
    """What is rare in the facts is known beforehand: a look at many files takes less than planning it."""
    run_id = large.runs()[0].run_id
    plan = str(large.rows(f"EXPLAIN FROM exchanges WHERE run_id = '{run_id}'"))
    assert plan.count("READ_PARQUET") == 2, plan  # exchanges and facts


def test_what_files_say_of_themselves_is_read_once(large: Store) -> None:
    """Also for questions that come later, each of which has a connection of its own."""
    asked = "SELECT value FROM duckdb_settings() WHERE name = 'parquet_metadata_cache'"
    assert large.current().cursor("").execute(asked).fetchall() == [("true",)]


def test_a_query_is_planned_once(large: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relation would be planned when it is made, and again when it is read."""
    monkeypatch.setattr(duckdb.DuckDBPyConnection, "sql", None)
    assert large.rows("SELECT count(*) AS n FROM runs") == [{"n": 2}]


@pytest.mark.parametrize(
    "query",
    [
        "select " + "[" * 450 + "1" + "]" * 450,
        "select interval '99999999 years'",
        "select {'a': [interval '99999999 years']}",
    ],
)
def test_a_query_that_python_cannot_follow_is_refused(store: Store, query: str) -> None:
    """One nested too deep, and values beyond Python's own, are errors of the tree, not of Python."""
    with pytest.raises(UsageError, match=r"nested too deep|cast it to text"):
        store.rows(query)
