"""What others send of a run that was recorded here is kept beside it, and is no part of it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import START, Recorder, answered, asked
from tracefork_backend.network.received import records_of
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store

from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.marks import marked
from tracefork_otel.tape.start import HowStarted

RUN, THEIRS = "ab" * 16, "cd" * 16
VIEWS = ("runs", "exchanges", "bodies", "messages", "tools")


def of_run(path: Path, run_id: str = RUN) -> dict[str, list[dict[str, Any]]]:
    """What the views say of a run."""
    with open_store(path) as store:
        query = f"select * from {{}} where run_id = '{run_id}' order by all"
        return {view: list(store.rows(query.format(view))) for view in VIEWS}


def recorded(store: Path) -> list[str]:
    """A run that is whole, with a marked start and a tool call, was recorded here; the spans of its calls."""
    recorder = Recorder(store)
    start = HowStarted(command=("python", "agent.py"), cwd="/srv")
    recorder.root(RUN, attributes=marked(RUN, start.attributes()))
    spans = [
        recorder.exchange(RUN, asked("weather?"), answered("rain")),
        recorder.exchange(RUN, asked("weather?", "rain", "and now?"), answered("sun")),
    ]
    recorder.wal.close()
    return spans


def call(span_id: str, at: int, trace_id: str = RUN, **more: Any) -> SpanRecord:
    """A span of a call as somebody sends it."""
    return span(
        "chat",
        at,
        trace_id,
        span_id=span_id,
        attributes={
            "tracefork.exchange": True,
            "url.full": "https://api.openai.com/v1/chat/completions",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"planted"}]}]',
        },
        **more,
    )


def span(name: str, at: int, trace_id: str = RUN, **fields: Any) -> SpanRecord:
    """A span as somebody sends it."""
    told = {"kind": "INTERNAL", "parent_span_id": None, "span_id": secrets.token_hex(8), **fields}
    return SpanRecord(trace_id=trace_id, name=name, started_ns=START + at, ended_ns=START + at + 1, **told)


def received(store: Path, *spans: SpanRecord) -> None:
    """The spans came by OTLP."""
    wal = Wal(store, process_started(mode="record", via="otlp", service="tracefork"))
    for one in spans:
        for record in records_of(one, Redactor()):
            wal.append(record)
    wal.close()


PLANTED: dict[str, Callable[[list[str]], SpanRecord]] = {
    "a call before all others": lambda ids: call("e" * 16, -1000),
    "a call after all others": lambda ids: call("e" * 16, 10**12),
    "a call with the id of one of ours": lambda ids: call(ids[0], -5),
    "an earlier root with another end": lambda ids: span(
        "theirs",
        -(10**9),
        status="ERROR",
        attributes={"tracefork.exit_status": 3, "tracefork.run.kind": "trial"},
    ),
    "a server's span": lambda ids: span("GET /", -7, kind="SERVER", parent_span_id="f" * 16),
    "an agent's span": lambda ids: span(
        "invoke_agent x", -7, parent_span_id="f" * 16, attributes={"tracefork.result": "BOOKED"}
    ),
    "a tool's result": lambda ids: span(
        "execute_tool pay",
        5,
        parent_span_id="f" * 16,
        scope="tracefork_otel",
        attributes={
            "gen_ai.tool.call.arguments": "{}",
            "tracefork.tool.form": "value",
            "gen_ai.tool.call.result": "1",
        },
    ),
}


@pytest.mark.slow
def test_what_is_sent_of_a_run_is_no_part_of_it(tmp_path: Path) -> None:
    """Whatever it is, and when all is one segment too: views, bodies, start and tape are as they were."""
    ids = recorded(tmp_path)
    alone = of_run(tmp_path)
    with open_store(tmp_path) as store:
        tape = reconstruct(store, store.run(RUN), command=True)
    for what, make in PLANTED.items():
        received(tmp_path, make(ids))
        assert of_run(tmp_path) == alone, what
    with open_store(tmp_path) as store:
        assert store.compact() is not None
    assert of_run(tmp_path) == alone
    with open_store(tmp_path) as store:
        assert reconstruct(store, store.run("last"), command=True) == tape
        assert store.beside(RUN) == (3, 4)
        (found,) = store.rows(f"select count(*) as n from spans where trace_id = '{RUN}'")
        assert found["n"] == 3 + 7


@pytest.mark.slow
def test_what_is_sent_first_gives_way(tmp_path: Path) -> None:
    """Whoever knows a trace's id before its run is sealed changes nothing either."""
    other = tmp_path / "other"
    recorded(other)
    received(tmp_path, *(make(["e" * 16]) for make in PLANTED.values()))
    recorded(tmp_path)
    told, alone = of_run(tmp_path), of_run(other)
    for view in VIEWS:
        for row, own in itertools.zip_longest(told[view], alone[view]):
            assert {**row, "span_id": 0} == {**own, "span_id": 0}, view


@pytest.mark.slow
def test_what_is_only_sent_is_a_run(tmp_path: Path) -> None:
    """Nothing is kept beside where nobody here recorded the trace; and nothing vouches for it."""
    recorded(tmp_path)
    received(tmp_path, span("theirs", 1, THEIRS), call("e" * 16, 2, THEIRS))
    with open_store(tmp_path) as store:
        assert store.run(THEIRS).name == "theirs"
        assert store.run(THEIRS).steps == 1
        assert store.beside(THEIRS) == (0, 0)
        assert not store.came_in([RUN])
        assert store.came_in([THEIRS])


@pytest.mark.slow
def test_calls_through_a_proxys_port_join_no_recorded_run(tmp_path: Path) -> None:
    """A client that names the trace of a run that was recorded otherwise has its calls beside it."""
    recorded(tmp_path)
    alone = of_run(tmp_path)
    for launch, trace_id in ((None, RUN), (None, THEIRS)):
        wal = Wal(tmp_path, process_started(mode="record", via="proxy", launch_id=launch, service="proxy"))
        for record in records_of(call("e" * 16, 3, trace_id), Redactor()):
            wal.append(record)
        wal.close()
    assert of_run(tmp_path) == alone
    with open_store(tmp_path) as store:
        assert store.beside(RUN) == (1, 0)
        assert store.run(THEIRS).steps == 1
