"""The SQL contract: every view by a plain DuckDB, with `views.sql` of the store and nothing of ours."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from conversations import NAMES, dumped, request_messages, sample
from conversations import answered as answered_by
from recorded import REPOSITORY
from stored import START, Recorder, answered, asked, record, trace
from tracefork_backend.store import compact, open_store
from tracefork_backend.store.outgoing import spans_of

from tracefork_otel.exchange import Exchange
from tracefork_otel.store import manifest, sealing
from tracefork_otel.store.columns import FACTS_VERSION
from tracefork_otel.wire.facts import facts_of

VIEWS = ("runs", "exchanges", "bodies", "messages", "tools", "draws", "spans", "forks")
CHAT = "https://api.openai.com/v1/chat/completions"
RESPONSES = "https://api.openai.com/v1/responses"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/gemini-3-flash:generateContent"


def documented(view: str) -> list[str]:
    """The columns of a view as its row in docs/sql.md has them, without what is said of each."""
    page = (REPOSITORY / "docs" / "sql.md").read_text()
    (row,) = re.findall(rf"^\| `{view}` \| (.+) \|$", page, re.MULTILINE)
    return re.sub(r" \([^)]*\)", "", row).split(", ")


def plain(store: Path) -> duckdb.DuckDBPyConnection:
    """A connection as a user's own DuckDB makes it."""
    connection = duckdb.connect()
    connection.execute((store / "views.sql").read_text())
    return connection


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """The rows of the answer by column."""
    answer = connection.execute(query)
    names = [column[0] for column in answer.description or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["empty", "without facts", "sealed", "compacted"])
def test_every_view_has_its_columns_in_order(tmp_path: Path, state: str) -> None:
    """A plain DuckDB gets the views of the contract from a store in any state."""
    if state == "empty":
        manifest.commit(tmp_path)
    else:
        record(tmp_path)
        sealing.seal_dead(tmp_path)
        record(tmp_path)
        sealing.seal_dead(tmp_path)
    if state in ("sealed", "compacted"):
        open_store(tmp_path).close()
    if state == "compacted":
        assert compact(tmp_path)
    connection = plain(tmp_path)
    for view in VIEWS:
        assert connection.sql(f"FROM {view}").columns == documented(view), view
        if view in ("runs", "exchanges", "bodies", "spans"):
            assert len(rows(connection, f"FROM {view}")) == {"empty": 0}.get(
                state, {"runs": 2, "spans": 8}.get(view, 6)
            )
    models = rows(connection, "SELECT DISTINCT model, input_tokens FROM exchanges")
    if state in ("sealed", "compacted"):
        assert models == [{"model": "claude-sonnet-4-5", "input_tokens": 1000}]
        assert len(rows(connection, "FROM messages")) == 2 * (2 + 4 + 6)


@pytest.mark.slow
def test_views_are_the_same_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing but duckdb is imported to read a store, even at a path with a quote in it."""
    store = tmp_path / "it's here"
    run_id = record(store)
    open_store(store).close()
    code = (
        "import sys, duckdb; c = duckdb.connect(); c.execute(open(sys.argv[1]).read());"
        "print(c.execute('SELECT run_id, steps FROM runs').fetchall());"
        "assert not any('tracefork' in name for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store / "views.sql")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([(run_id, 3)])


def test_times_are_utc_and_durations_milliseconds(tmp_path: Path) -> None:
    """Times of runs, exchanges and spans are naive UTC timestamps; durations count milliseconds."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.exchange(run_id, cuts=(5, len(answered("hi")) - 5))
    recorder.close()
    open_store(tmp_path).close()
    connection = plain(tmp_path)
    started = datetime.fromtimestamp(START / 1e9).astimezone().utctimetuple()[:6]
    (exchange,) = rows(connection, "FROM exchanges")
    assert exchange["started_at"].utctimetuple()[:6] == started
    assert exchange["started_at"].tzinfo is None
    assert (exchange["duration_ms"], exchange["ttfb_ms"]) == (250.0, 40.0)
    (run,) = rows(connection, "FROM runs")
    assert (run["started_at"], run["duration_ms"]) == (exchange["started_at"], 250.0)
    (span,) = rows(connection, "FROM spans")
    assert (span["ended_at"] - span["started_at"]).total_seconds() == 0.25


@pytest.mark.slow
def test_bodies_are_byte_exact_and_readable_where_they_are_text(tmp_path: Path) -> None:
    """Bytes are those of the wire; text is decoded where encoded, and NULL where it is none."""
    said = answered("höhe 🏔")
    binary = bytes(range(256)) * 300
    mixed = b'{"text":"' + b"x" * 20_000 + b"\xff\xfe" + b"y" * 20_000 + b'"}'
    cases = [
        (asked("héllo"), said, said.decode(), None),
        (asked("zipped"), gzip.compress(said), said.decode(), "gzip"),
        (binary, binary, None, None),
        (mixed, mixed, None, None),
        (b"", b"", "", None),
        (asked("bad"), b"\x1f\x8b not gzip \xff", None, "gzip"),
    ]
    recorder, run_id = Recorder(tmp_path), trace()
    for request, response, _, encoding in cases:
        headers = (
            ("content-type", "application/json"),
            *((("content-encoding", encoding),) if encoding else ()),
        )
        recorder.exchange(run_id, request, response, headers=headers)
    recorder.ask(run_id, asked("no answer"))
    recorder.close()
    open_store(tmp_path).close()
    found = rows(plain(tmp_path), "FROM bodies ORDER BY step")
    for (request, response, text, _), row in zip(cases, found, strict=False):
        assert row["request_bytes"] == request
        assert row["response_bytes"] == response
        assert row["response"] == text
        assert row["request"] == (None if request in (binary, mixed) else request.decode())
    assert found[-1]["request"] == asked("no answer").decode()
    assert found[-1]["response"] is found[-1]["response_bytes"] is None
    lengths = rows(plain(tmp_path), "SELECT request_length, response_length FROM exchanges ORDER BY step")
    assert [tuple(row.values()) for row in lengths[:-1]] == [(len(a), len(b)) for a, b, *_ in cases]


def test_a_body_of_an_unknown_service_reads_as_text_too(tmp_path: Path) -> None:
    """A compressed answer of any service reads decoded, and has no provider, tokens or messages."""
    recorder, run_id = Recorder(tmp_path), trace()
    headers = (("content-type", "text/plain"), ("content-encoding", "gzip"))
    recorder.exchange(run_id, b"q", gzip.compress(b"weather"), url="https://example.org/w", headers=headers)
    recorder.close()
    open_store(tmp_path).close()
    connection = plain(tmp_path)
    assert rows(connection, "SELECT response, request FROM bodies") == [
        {"response": "weather", "request": "q"}
    ]
    (row,) = rows(connection, "SELECT provider, input_tokens, cost_usd FROM exchanges")
    assert set(row.values()) == {None}
    assert rows(connection, "FROM messages") == []


@pytest.mark.parametrize("view", ["exchanges", "runs", "bodies", "messages"])
def test_a_filter_on_the_run_reaches_the_files(tmp_path: Path, view: str) -> None:
    """Every scan of exchanges and facts for one run is filtered by its id as the file is read."""
    run_id, _ = record(tmp_path), record(tmp_path)
    # Two runs in each file: where a file holds one, DuckDB needs no filter.
    with open_store(tmp_path) as store:
        assert len(store.current().entries) == 1
    query = f"EXPLAIN (FORMAT json) FROM {view} WHERE run_id = '{run_id}'"
    ((_, text),) = plain(tmp_path).execute(query).fetchall()
    scans: list[tuple[str, str]] = []

    def walk(node: dict[str, Any]) -> None:
        if "READ_PARQUET" in node["name"]:
            info = node["extra_info"]
            scans.append((str(info.get("Projections")), str(info.get("Filters"))))
        for child in node.get("children", ()):
            walk(child)

    for node in json.loads(text):
        walk(node)
    # Facts and exchanges alone have these columns; chunks are joined by number, launches by process.
    own = [
        filters
        for columns, filters in scans
        if "outcome" in columns or "span_id" in columns or "seq" in columns
    ]
    assert own
    assert all(run_id in filters for filters in own), scans


def test_a_tool_stands_after_the_step_that_called_it(tmp_path: Path) -> None:
    """`tools` are the spans of tool calls, each with the last step that began before it."""
    recorder, run_id = Recorder(tmp_path), trace()

    def tool(name: str, **fields: Any) -> None:
        recorder.root(run_id, f"execute_tool {name}", parent_span_id="1" * 16, **fields)

    tool("early")
    recorder.exchange(run_id)
    recorder.exchange(run_id)
    event = {"name": "tracefork.tool.arguments", "time_ns": 1, "attributes": {"tracefork.body": '{"a":1}'}}
    tool("look", attributes={"gen_ai.tool.call.result": "42"}, events=[event])
    tool("fail", status="ERROR", status_message="no such city", attributes={"tracefork.replayed": True})
    recorder.close()
    open_store(tmp_path).close()
    found = rows(plain(tmp_path), "FROM tools ORDER BY step_before NULLS FIRST, name DESC")
    assert [(row["name"], row["step_before"]) for row in found] == [("early", None), ("look", 1), ("fail", 1)]
    assert (found[1]["arguments"], found[1]["result"], found[1]["error"]) == ('{"a":1}', "42", None)
    assert (found[2]["error"], found[2]["replayed"], found[1]["replayed"]) == ("no such city", True, False)
    assert found[1]["duration_ms"] == 60_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("root", "status"),
    [
        ({"status": "ERROR"}, "error"),
        ({"attributes": {"tracefork.exit_status": 3}}, "error"),
        ({"attributes": {"tracefork.exit_status": 0}}, "ok"),
        ({"end": False}, "killed"),
        ({}, "ok"),
        ({"parent_span_id": "2" * 16, "kind": "SERVER", "status": "ERROR"}, "error"),
    ],
)
def test_a_run_s_status_is_how_its_root_ended(tmp_path: Path, root: dict[str, Any], status: str) -> None:
    """The root, also one under another service's span, says whether a run ended well, badly or not at all."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id, "GET /book", **root)
    recorder.exchange(run_id)
    recorder.close()
    open_store(tmp_path).close()
    (run,) = rows(plain(tmp_path), "FROM runs")
    assert (run["status"], run["name"]) == (status, "GET /book")


def test_a_fork_names_its_parent(tmp_path: Path) -> None:
    """What the root of a fork says of parent, step and experiment is in its run's row."""
    attributes = {
        "tracefork.run.kind": "fork",
        "tracefork.parent.run_id": "p" * 32,
        "tracefork.fork.step": 3,
        "tracefork.experiment.id": "e1",
    }
    record(tmp_path, attributes=attributes)
    open_store(tmp_path).close()
    (run,) = rows(plain(tmp_path), "FROM runs")
    assert (run["kind"], run["parent_run_id"], run["fork_step"], run["experiment_id"]) == (
        "fork", "p" * 32, 3, "e1"
    )  # fmt: skip


def said_by(exchanges: Iterable[Exchange]) -> list[tuple[Any, ...]]:
    """What the exchanges ask and say by the readers of wire formats, as `messages` has it."""
    found: list[tuple[Any, ...]] = []
    for step, exchange in enumerate(exchanges):
        read = facts_of(exchange)
        assert read is not None
        asked = request_messages(read.form, exchange.request.body)
        for position, one in enumerate((*asked, *read.reply)):
            found.append((exchange.trace_id, step, position, one.role, one.kind, one.name, one.content))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("state", ["live", "read-only", "sealed", "in parts", "compacted"])
def test_messages_are_those_that_the_wire_forms_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Conversations of every form that grow, side by side, are told whole in every state of the store."""
    runs = [trace() for _ in NAMES]
    recorder = Recorder(tmp_path)
    recorders = [recorder]
    for again in range(3):
        for run_id, name in zip(runs, NAMES, strict=True):
            request = sample(name)["request"]
            longer = {key: value * (again + 1) for key, value in request.items() if isinstance(value, list)}
            recorder.exchange(
                run_id, dumped(request | longer), answered_by(name, None).body, url=sample(name)["url"]
            )
        if state in ("in parts", "compacted"):
            recorder.close()
            open_store(tmp_path).close()
            recorders.append(recorder := Recorder(tmp_path))
        if state == "live":
            with open_store(tmp_path) as store:
                assert len(store.rows("SELECT DISTINCT step FROM messages")) == again + 1
    if state != "live":
        recorder.close()
    if state == "read-only":
        sealing.seal_dead(tmp_path)
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    query = "FROM messages ORDER BY ALL"
    with open_store(tmp_path) as store:
        if state == "compacted":
            assert store.compact()
        wanted = [one for run_id in runs for one in said_by(store.exchanges(run_id))]
        assert [tuple(row.values()) for row in store.rows(query)] == sorted(wanted, key=lambda one: one[:3])
    if state in ("sealed", "in parts", "compacted"):
        assert plain(tmp_path).execute(query).fetchall() == sorted(wanted, key=lambda one: one[:3])
    recorder.close()


@pytest.mark.slow
def test_facts_of_another_version_are_left_to_the_next_command(tmp_path: Path) -> None:
    """A plain DuckDB reads exchanges without facts that this version did not write."""
    record(tmp_path)
    open_store(tmp_path).close()
    (entry,) = manifest.load(tmp_path).segments
    file = entry.file(tmp_path, "facts")
    duckdb.execute(f"COPY (SELECT 'x' AS trace_id, 1 AS reply) TO '{file}' (FORMAT parquet)")
    manifest.commit(tmp_path, facts={entry.id: manifest.FactsFile(FACTS_VERSION - 1, manifest.digest(file))})
    assert rows(plain(tmp_path), "SELECT DISTINCT input_tokens FROM exchanges") == [{"input_tokens": None}]
    assert rows(plain(tmp_path), "FROM messages") == []
    with open_store(tmp_path) as store:
        assert store.problems == ()
        assert store.rows("SELECT DISTINCT input_tokens FROM exchanges") == [{"input_tokens": 1000}]
    assert len(rows(plain(tmp_path), "FROM messages")) == 2 + 4 + 6


def test_the_reply_follows_the_request(tmp_path: Path) -> None:
    """The last messages of a step are the reply's, and a tool's result has the name of its call."""
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"city": "Paris", "n": [1, 2]}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "18 °C"}]}
    body = {
        "model": "claude-sonnet-4-5",
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ],
    }
    reply = json.loads(answered("Mild."))
    reply["content"] = [call, {"type": "text", "text": "Mild."}]
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.exchange(run_id, json.dumps(body).encode(), json.dumps(reply).encode())
    recorder.close()
    open_store(tmp_path).close()
    found = rows(plain(tmp_path), "FROM messages ORDER BY position")
    assert [tuple(row.values())[2:] for row in found] == [
        (0, "system", "text", None, "Be brief."),
        (1, "user", "text", None, "Weather?"),
        (2, "assistant", "tool_use", "look", '{"city":"Paris","n":[1,2]}'),
        (3, "user", "tool_result", "look", "18 °C"),
        (4, "assistant", "tool_use", "look", '{"city":"Paris","n":[1,2]}'),
        (5, "assistant", "text", None, "Mild."),
    ]


def test_bodies_on_bedrock_are_read_by_the_path(tmp_path: Path) -> None:
    """Converse, and invoke in the form of the model's vendor, however the URL spells the model."""
    runtime = "https://bedrock-runtime.us-east-1.amazonaws.com/model"
    arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.claude-sonnet-5-v1%3A0"
    said = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    block = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    told = {
        "output": {"message": {"role": "assistant", "content": [{"text": "Ho"}]}},
        "stopReason": "end_turn",
    }
    calls = [
        (f"{runtime}/{arn}/converse", said, told),
        (f"{runtime}/us.amazon.nova-lite-v1:0/invoke", said, told),
        (f"{runtime}/{arn}/invoke", {"anthropic_version": "x", **block}, json.loads(answered("Ho"))),
        (
            f"{runtime}/openai.gpt-oss-20b-1%3A0/invoke",
            {"messages": [{"role": "user", "content": "Hi"}]},
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Ho"}}]},
        ),
    ]
    recorder, run_id = Recorder(tmp_path), trace()
    for url, request, reply in calls:
        recorder.exchange(run_id, json.dumps(request).encode(), json.dumps(reply).encode(), url=url)
    recorder.close()
    open_store(tmp_path).close()
    found = rows(plain(tmp_path), "FROM messages ORDER BY step, position")
    assert [(row["step"], row["role"], row["kind"], row["content"]) for row in found] == [
        row for step in range(4) for row in ((step, "user", "text", "Hi"), (step, "assistant", "text", "Ho"))
    ]


CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({**CALL, "tracefork.below_call": False}, "CLIENT"),
        ({**CALL, "tracefork.below_call": True}, "INTERNAL"),
        (CALL, "INTERNAL"),
        ({}, "INTERNAL"),
        ({"a": "gen_ai.operation.name", "b": '"gen_ai.operation.name": '}, "INTERNAL"),
        ({**CALL, "a": '{"tracefork.below_call":false}'}, "INTERNAL"),
    ],
)
def test_the_kind_of_an_exchanges_span(tmp_path: Path, attributes: dict[str, object], kind: str) -> None:
    """It is CLIENT where it is its call's only one, as the recorder told; so it is sent, too."""
    run_id, recorder = trace(), Recorder(tmp_path)
    span_id = recorder.exchange(run_id, attributes=attributes)
    kinds = "SELECT kind FROM spans WHERE span_id = $span"
    with open_store(tmp_path) as store:
        assert [row["kind"] for row in store.rows(kinds, {"span": span_id})] == [kind]
    recorder.close()
    with open_store(tmp_path) as store:
        assert [row["kind"] for row in store.rows(kinds, {"span": span_id})] == [kind]
        assert [span.kind for span in spans_of(store.run(run_id))] == [kind]
