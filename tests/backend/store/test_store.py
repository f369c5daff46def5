"""An open store: naming runs, reading them, live tails, read-only folders."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.store import Run, Store, doctor, facts, open_store, parse_ref, prices

from tracefork_otel.errors import StoreError, UnknownRun, UsageError
from tracefork_otel.store import manifest


@pytest.mark.slow
def test_last_counts_records_and_forks_newest_first(tmp_path: Path) -> None:
    """`last` and `last~N` are the newest recordings and forks; replays and trials are not counted."""
    now = time.time_ns()
    kinds = ("record", "fork", "replay", "trial")
    ids = [
        record(tmp_path, at=now + n * 1_000_000, attributes={"tracefork.run.kind": kind})
        for n, kind in enumerate(kinds)
    ]
    with open_store(tmp_path) as store:
        assert store.run("last").run_id == ids[1]
        assert store.run("last~1").run_id == ids[0]
        with pytest.raises(UnknownRun, match="last~2"):
            store.run("last~2")
        assert [run.kind for run in store.runs()] == ["trial", "replay", "fork", "record"]
        assert [run.run_id for run in store.runs("replay")] == [ids[2]]
        assert [run.run_id for run in store.runs(limit=1)] == [ids[3]]
        assert store.run(ids[2]).kind == "replay"


def test_a_replayed_exchange_makes_a_replay_that_cost_nothing(tmp_path: Path) -> None:
    """A run whose exchanges a tape answered is a replay although nobody said so, and its cost is 0."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.exchange(run_id, replayed=True)
    recorder.close()
    run = open_store(tmp_path).run(run_id)
    assert (run.kind, run.cost_usd, run.input_tokens) == ("replay", 0.0, 1000)


@pytest.mark.slow
def test_a_prefix_names_a_run_if_it_is_long_enough_and_unique(tmp_path: Path) -> None:
    """Six digits name a run; fewer, unknown and ambiguous ones raise UnknownRun, which lists near runs."""
    first = record(tmp_path, trace_id="abcdef0" + "1" * 25, name="booking")
    record(tmp_path, trace_id="abcdef0" + "2" * 25)
    store = open_store(tmp_path)
    assert store.run("abcdef01").run_id == first
    assert store.run("ABCDEF01").run_id == first
    assert store.run(first).name == "booking"
    with pytest.raises(UnknownRun, match=r"more than one run: abcdef01 \(booking\), abcdef02"):
        store.run("abcdef0")
    with pytest.raises(UnknownRun, match="at least 6 digits"):
        store.run("abcde")
    with pytest.raises(UnknownRun, match=r"near it: .*abcdef01"):
        store.run("abcdef03")
    with pytest.raises(UnknownRun, match="last~2"):
        store.run("yesterday")
    with pytest.raises(UnknownRun, match="names no run"):
        store.run("z" * 5000)  # longer than a file's name may be


def test_a_reference_may_carry_a_step() -> None:
    """`NAME@STEP` is a name and a step; a step that is no number raises UsageError."""
    assert parse_ref("last@7") == ("last", 7)
    assert parse_ref("last~2") == ("last~2", None)
    for wrong in ("last@", "last@x", "last@-1", "@3"):
        with pytest.raises(UsageError, match="names no step"):
            parse_ref(wrong)


def test_a_run_tells_all_that_was_recorded(tmp_path: Path) -> None:
    """A run has its exchanges byte for byte in step order, its totals, its cost and how it was started."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(
        run_id,
        attributes={
            "tracefork.command": json.dumps(["python", "agent.py", "--city", "Paris"]),
            "tracefork.cwd": "/srv",
            "tracefork.environment": json.dumps({"LANG": "C"}),
            "tracefork.environment.withheld": json.dumps(["API_KEY"]),
            "tracefork.git.commit": "abc",
            "tracefork.exit_status": 0,
        },
    )
    recorder.root(
        run_id,
        "invoke_agent book",
        parent_span_id="1" * 16,
        attributes={"tracefork.entrypoint": "shop:book", "tracefork.arguments": '{"args":["Paris"]}'},
    )
    binary = bytes(range(256))
    recorder.exchange(run_id, asked("héllo"), answered("hi"))
    recorder.exchange(run_id, binary, b"", cuts=(0,))
    recorder.close()
    run = open_store(tmp_path).run("last")
    assert [(e.request.body, e.response and e.response.body) for e in run.exchanges] == [
        (asked("héllo"), answered("hi")),
        (binary, b""),
    ]
    assert [e.damage for e in run.exchanges] == [None, None]
    assert (run.name, run.service, run.kind, run.status) == ("agent", "tests", "record", "ok")
    assert (run.steps, run.input_tokens, run.output_tokens) == (2, 1000, 100)
    assert run.cost_usd == pytest.approx(1000 * 3e-6 + 100 * 15e-6)
    assert run.command == ("python", "agent.py", "--city", "Paris")
    assert run.complete
    start = run.start
    assert (start.command, start.cwd, start.environment) == (run.command, "/srv", {"LANG": "C"})
    assert (start.withheld, start.git_commit, start.exit_status) == (("API_KEY",), "abc", 0)
    assert (start.entrypoint, start.arguments) == (run.entrypoint, {"args": ["Paris"]})


@pytest.mark.slow
def test_a_run_without_a_command_of_its_own_has_its_launch_s(tmp_path: Path) -> None:
    """Runs in traces of their own are found by the launch of their processes, whose command they have."""
    launch, runs = trace(), [trace(), trace()]
    director = Recorder(tmp_path)
    director.root(launch, "python agent.py", attributes={"tracefork.command": '["python","agent.py"]'})
    director.close()
    for run_id in runs:
        recorder = Recorder(tmp_path, launch_id=launch)
        recorder.root(run_id)
        recorder.exchange(run_id)
        recorder.close()
    store = open_store(tmp_path)
    for run_id in runs:
        run = store.run(run_id)
        assert run.command == run.start.command == ("python", "agent.py")
        assert run.launch_id == launch
    assert sorted(store.runs_of_launch(launch)) == sorted(runs)
    assert [run.run_id for run in store.runs()] != [launch]


@pytest.fixture(params=["live", "killed"])
def open_run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, str, str]]:
    """A run with one whole exchange and an open one, its process running or killed; store, id, status."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id, end=False)
    recorder.root(run_id, "execute_tool look", attributes={"gen_ai.tool.name": "look"})
    recorder.exchange(run_id)
    recorder.ask(run_id, asked("more"))
    if request.param == "killed":
        recorder.close()
    yield open_store(tmp_path), run_id, "running" if request.param == "live" else "killed"
    recorder.close()


def test_what_is_not_sealed_yet_is_in_every_view(open_run: tuple[Store, str, str]) -> None:
    """The tail of a running process is in every view, and so is what a killed one left."""
    store, run_id, status = open_run
    wanted = {"run_id": run_id}
    (run,) = store.rows("FROM runs")
    assert (run["status"], run["complete"], run["steps"], run["input_tokens"]) == (status, False, 2, 1000)
    exchanges = store.rows("FROM exchanges WHERE run_id = $run_id ORDER BY step", wanted)
    assert [row["outcome"] for row in exchanges] == ["complete", "in_flight"]
    assert exchanges[0]["model"] == "claude-sonnet-4-5"
    bodies = store.rows("FROM bodies WHERE run_id = $run_id ORDER BY step", wanted)
    assert [row["request_bytes"] for row in bodies] == [asked("hello"), asked("more")]
    assert [row["response"] for row in bodies] == [answered("hi").decode(), None]
    messages = store.rows("FROM messages WHERE run_id = $run_id ORDER BY step, position", wanted)
    assert [(row["role"], row["content"]) for row in messages] == [
        ("user", "hello"),
        ("assistant", "hi"),
        ("user", "more"),
    ]
    assert [row["name"] for row in store.rows("FROM tools")] == ["look"]
    assert len(store.rows("FROM spans WHERE trace_id = $run_id", wanted)) == 4


def test_why_a_run_is_incomplete_is_said(open_run: tuple[Store, str, str]) -> None:
    """A run with an open exchange says which step it is, and whether it may still end."""
    store, run_id, status = open_run
    run = store.run(run_id)
    why = "is still open" if status == "running" else "was open when its process ended"
    assert run.incomplete_reasons == (f"step 1 {why}",)
    assert not run.complete
    assert [e.request.body for e in run.exchanges] == [asked("hello"), asked("more")]


@pytest.mark.slow
def test_an_open_store_sees_what_is_written_later(tmp_path: Path) -> None:
    """A question sees what was written, ended and sealed after the store was opened."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.exchange(run_id)
    store = open_store(tmp_path)
    count = "SELECT steps, status FROM runs"
    assert store.rows(count) == [{"steps": 1, "status": "running"}]
    recorder.exchange(run_id)
    assert store.rows(count) == [{"steps": 2, "status": "running"}]
    recorder.close()
    assert store.rows(count) == [{"steps": 2, "status": "ok"}]
    assert not list((tmp_path / "wal").iterdir())
    record(tmp_path)
    assert len(store.rows(count)) == 2


@pytest.mark.slow
def test_a_run_over_several_wals_and_processes_is_one_run(tmp_path: Path) -> None:
    """Exchanges of one trace from rotated WALs and from several processes are one run in order of start."""
    run_id = trace()
    big = "x" * 4000
    first = Recorder(tmp_path, rotate_bytes=10_000)
    second = Recorder(tmp_path)
    wanted = []
    open_span = first.ask(run_id, asked("open all along"))
    for turn in range(6):
        body = asked(big + str(turn))
        first.exchange(run_id, body, answered(big))
        wanted.append(body)
        if turn == 2:
            # A live process and finished WALs of it, sealed while it goes on.
            assert open_store(tmp_path).run(run_id).steps == 4
    second.now = first.now
    second.exchange(run_id, asked("other process"))
    assert len(list((tmp_path / "wal").glob(f"{first.process_id}-*"))) > 1 or manifest.load(tmp_path).segments
    store = open_store(tmp_path)
    before = [e.span_id for e in store.run(run_id).exchanges]
    first.close()
    second.close()
    run = store.run(run_id)
    assert [e.request.body for e in run.exchanges] == [
        asked("open all along"), *wanted, asked("other process")
    ]  # fmt: skip
    assert [e.span_id for e in run.exchanges] == before
    assert len(set(before)) == 8 == run.steps
    assert before[0] == open_span
    assert len({e.process_id for e in run.exchanges}) == 2


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a read-only store dead processes' WALs are read as they are, and no file changes."""
    sealed = record(tmp_path)
    open_store(tmp_path).close()
    left = record(tmp_path)
    # Tests may run as root, whom no file mode stops.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    store = open_store(tmp_path)
    assert {run.run_id for run in store.runs()} == {sealed, left}
    assert store.run(left).cost_usd is not None
    assert len(store.run(left).exchanges) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_segments_without_facts_have_them_in_a_read_only_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where facts cannot be written beside a segment they are read when the store is opened."""
    run_id = record(tmp_path)
    from tracefork_otel.store.sealing import seal_dead

    seal_dead(tmp_path)
    assert [entry.facts for entry in manifest.load(tmp_path).segments] == [None]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert open_store(tmp_path).run(run_id).input_tokens == 3000
    assert [entry.facts for entry in manifest.load(tmp_path).segments] == [None]


def test_facts_are_written_anew_when_their_version_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts of an older version are replaced when the store is opened."""
    record(tmp_path)
    store = open_store(tmp_path)
    assert [entry.facts for entry in manifest.load(tmp_path).segments] == [facts.VERSION]
    store.close()
    (entry,) = manifest.load(tmp_path).segments
    manifest.commit(tmp_path, facts={entry.id: manifest.FactsFile(facts.VERSION - 1, entry.sha256["facts"])})
    real = facts.Reader.row
    monkeypatch.setattr(facts.Reader, "row", lambda *given: (real(*given) or {}) | {"model": "read anew"})
    with open_store(tmp_path) as newer:
        assert newer.rows("SELECT DISTINCT model FROM exchanges") == [{"model": "read anew"}]
    assert [entry.facts for entry in manifest.load(tmp_path).segments] == [facts.VERSION]


def test_calls_without_a_price_get_one_from_a_newer_price_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older list did not know is asked of a newer one; an older one takes no price away."""
    record(tmp_path)

    def opened(version: str, *, knows: bool) -> tuple[object, object, str | None]:
        with monkeypatch.context() as installed:
            installed.setattr(facts, "list_version", lambda: version)
            if not knows:
                installed.setattr(prices, "list_price", lambda *told, **at: None)
            with open_store(tmp_path) as store:
                (row,) = store.rows("SELECT DISTINCT cost_usd, cost_reason FROM exchanges")
        (entry,) = manifest.load(tmp_path).segments
        return row["cost_usd"], row["cost_reason"], entry.unpriced

    why = "the price of claude-sonnet-4-5 is not known"
    assert opened("0.9.2", knows=False) == (None, why, "0.9.2")
    assert opened("0.9.1", knows=True) == (None, why, "0.9.2")
    assert opened("0.10.0", knows=False) == (None, why, "0.10.0")
    cost, reason, unpriced = opened("0.10.1", knows=True)
    assert cost
    assert (reason, unpriced) == (None, None)
    assert opened("0.10.2", knows=False) == (cost, None, None)
    (entry,) = manifest.load(tmp_path).segments
    told_no_list = manifest.FactsFile(9, entry.sha256["facts"])
    manifest.commit(tmp_path, facts={entry.id: told_no_list})
    assert opened("0.10.2", knows=False) == (None, why, "0.10.2")  # nobody knows by which list: read anew


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    """A store that does not exist has no runs, is not made, and says how to record one."""
    with open_store(tmp_path / "none") as store:
        assert store.runs() == []
        assert store.rows("FROM messages") == []
        assert not store.has_run("0" * 32)
        with pytest.raises(UnknownRun, match=r"no runs yet: record one with `tracefork-otel run"):
            store.run("last")
    assert not (tmp_path / "none").exists()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """A file in place of a folder, a foreign manifest and a bucket of no cloud are errors that name them."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"file: this is a file"):
        open_store(tmp_path / "file")
    (tmp_path / "MANIFEST.json").write_text("[]")
    with pytest.raises(StoreError, match=r"MANIFEST\.json: this is not a manifest"):
        open_store(tmp_path)
    with pytest.raises(UsageError, match="gopher://bucket/prefix: a store is a directory, or a bucket"):
        open_store("gopher://bucket/prefix")


@pytest.mark.slow
def test_losses_make_the_runs_of_their_process_incomplete(tmp_path: Path) -> None:
    """A note of lost records counts for the runs of its process, one on a run for that run alone."""
    runs = [trace(), trace(), trace()]
    losing = Recorder(tmp_path)
    for run_id in runs[:2]:
        losing.exchange(run_id)
    losing.note("lost", count=2, why="the disk is full")
    losing.close()
    other = Recorder(tmp_path)
    other.exchange(runs[2])
    other.note("leak", runs[2], host="example.org")
    other.close()
    store = open_store(tmp_path)
    assert store.losses() == 2
    found = {row["run_id"]: row["complete"] for row in store.rows("FROM runs")}
    assert found == {runs[0]: False, runs[1]: False, runs[2]: True}
    assert store.run(runs[0]).incomplete_reasons == ("2 records lost: the disk is full",)
    assert [note.kind for note in store.run(runs[2]).notes] == ["leak"]


def test_what_a_process_lost_is_said_once(tmp_path: Path) -> None:
    """Each note tells all that its process had lost until then; a loss of another kind has its own line."""
    run_id = trace()
    losing = Recorder(tmp_path)
    losing.exchange(run_id)
    losing.note("lost", count=1, why="a: E x1")
    losing.note("lost", count=2, why="a: E x2; b: E x1")
    losing.note("lost", count=4, why="a: E x6; b: E x1")
    losing.note("lost", count=3, why="its spans were lost")
    losing.close()
    store = open_store(tmp_path)
    expected = ("7 records lost: a: E x6; b: E x1", "3 records lost: its spans were lost")
    assert store.run(run_id).incomplete_reasons == expected
    assert sum(line.startswith("lost: 7 records of process") for line in doctor(tmp_path).lines()) == 1


def test_a_run_holds_no_more_than_its_store_says(tmp_path: Path) -> None:
    """`has_run` is true for a whole id alone, and `runs()` gives Run values."""
    run_id = record(tmp_path)
    store = open_store(tmp_path)
    assert store.has_run(run_id)
    assert not store.has_run(run_id[:8])
    assert all(isinstance(run, Run) for run in store.runs())


@pytest.mark.slow
def test_what_a_newer_version_wrote_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """A segment and a WAL of a newer format cost their own runs, and are neither merged nor removed."""
    for run_id in ("1" * 32, "2" * 32, "3" * 32):
        recorder = Recorder(tmp_path)
        recorder.exchange(run_id, asked("hi"), answered("ho"))
        recorder.close()
        open_store(tmp_path).close()
    listed = json.loads((tmp_path / "MANIFEST.json").read_text())
    assert all("format" not in entry for entry in listed["segments"])
    listed["segments"][0]["format"] = 2
    (tmp_path / "MANIFEST.json").write_text(json.dumps(listed))
    (tmp_path / "wal" / "1-a-0.wal").write_bytes(b"tracefork wal 2\nwhatever it is")
    with open_store(tmp_path) as store:
        assert {run.run_id for run in store.runs()} == {"2" * 32, "3" * 32}
        segment, wal = sorted(store.problems, key=lambda why: "WAL" in why)
        store.compact()
        assert {run.run_id for run in store.runs()} == {"2" * 32, "3" * 32}
    newest = "is newer than 1, the newest that this version reads; upgrade tracefork-otel"
    assert (
        segment
        == f"{tmp_path}/segments/{listed['segments'][0]['id']}.exchanges.parquet: segment format 2 {newest}"
    )
    assert wal == f"{tmp_path}/wal/1-a-0.wal: WAL format 2 {newest}"
    kept = json.loads((tmp_path / "MANIFEST.json").read_text())["segments"]
    assert [entry.get("format") for entry in kept] == [2, None]


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["gone", "cut", "empty", "foreign", "bit"])
@pytest.mark.parametrize("writable", [True, False])
def test_facts_that_are_lost_are_made_anew(
    tmp_path: Path, harm: str, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that facts say is in the bodies: no run is hidden, no command has less to say, none complains."""
    run_id = record(tmp_path)
    query = (
        "select e.step, e.model, e.cost_usd, count(*) n from exchanges e join messages m on m.step = e.step "
        "group by all order by e.step"
    )
    with open_store(tmp_path) as store:
        before = store.rows(query)
        assert before[0]["n"]
    (path,) = (tmp_path / "segments").glob("*.facts.parquet")
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "bit":
        data = bytearray(whole)
        data[len(data) // 3] ^= 16
        path.write_bytes(bytes(data))
    elif harm == "foreign":
        parquet.write_table(pa.table({"a": pa.array([1])}), path)
    else:
        path.write_bytes(whole[:-50] if harm == "cut" else b"")
    if not writable:
        monkeypatch.setattr(Store, "writable", False)
    with open_store(tmp_path) as store:
        assert store.run("last").run_id == run_id
        assert store.rows(query) == before
        assert not store.problems
    if writable and harm in ("gone", "cut", "empty"):
        assert parquet.read_table(path).num_rows


@pytest.mark.slow
def test_views_are_there_however_they_are_named(tmp_path: Path) -> None:
    """Each is defined when a query first names it, in whatever spelling, or asks which there are."""
    record(tmp_path)
    for query in (
        'FROM "RUNS"', "select * from Runs", "SELECT * FROM main.runs", 'from memory.main."runs"',
        "with a as (from runs) select * from a", "select (select count(*) from/**/runs)", "table runs",
        "from duckdb_views() where view_name = 'forks'", "describe tools",
        "from information_schema.tables where table_name = 'blame'", "show tables",
        "describe", "summarize runs",
    ):  # fmt: skip
        with open_store(tmp_path) as store:
            assert store.rows(query), query
    with open_store(tmp_path) as store:
        with pytest.raises(UsageError, match=r"(?s)rums.*runs"):
            store.rows("from rums")
        assert store.rows("from runs")
        held = store.sql("from exchanges")
        assert store.rows("from blame") == []
        assert len(held.fetchall()) == 3
