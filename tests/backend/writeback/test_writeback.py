"""Spans that the backend writes: into the store, where they outlive the director, and to a collector."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collecting
from hypothesis import given
from hypothesis import strategies as st
from recorded import read_store
from tracefork_backend.store import open_store
from tracefork_backend.writeback.names import jaeger_url
from tracefork_backend.writeback.spans import RootSpan, SpanRef, WriteBack, end_of, link

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.store import manifest
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted, ProcessStarted
from tracefork_otel.store.wal import Wal

PARENT = "a" * 32
PARENT_ROOT = "b" * 16
STARTED = 1_764_000_000_000_000_000
EXCHANGE = Exchange(
    trace_id=PARENT,
    span_id="c" * 16,
    parent_span_id=PARENT_ROOT,
    process_id="1-aaaaaaaa",
    seq=0,
    started_ns=STARTED,
    ended_ns=STARTED + 250_000_000,
    request=Request(method="POST", url="http://127.0.0.1/v1/messages"),
    response=Response(status=200),
    outcome="complete",
)


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    with collecting(monkeypatch) as server:
        yield server


def fork(back: WriteBack, **changes: Any) -> RootSpan:
    """An open fork of the one exchange."""
    given: dict[str, Any] = {
        "name": "book_flight",
        "parent_run_id": PARENT,
        "parent_root_span_id": PARENT_ROOT,
        "forked": SpanRef(trace_id=PARENT, span_id=EXCHANGE.span_id),
    }
    return back.open_fork(Intervention(kind="text", step=3, label="text"), **{**given, **changes})


def attributes_of(span: Any) -> dict[str, Any]:
    """The attributes of a span of OTLP."""
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}


def record_exchanges(store: Path, *traces: tuple[str, str]) -> None:
    """A process of its own has recorded one exchange in each (trace, below that span)."""
    process = ProcessStarted(
        process_id=f"{os.getpid()}-{'e' * 8}",
        pid=os.getpid(),
        ppid=1,
        started_ns=STARTED,
        executable="python",
        argv=("agent.py",),
        cwd="here",
        mode="fork",
        via="sitecustomize",
    )
    wal = Wal(store, process)
    for number, (trace_id, parent) in enumerate(traces):
        span_id = f"{number + 1:016x}"
        wal.append(
            ExchangeStarted(
                trace_id=trace_id,
                span_id=span_id,
                parent_span_id=parent,
                seq=number,
                started_ns=time.time_ns(),
                request=EXCHANGE.request,
                name="POST 127.0.0.1",
                service="booking-agent",
            )
        )
        wal.append(
            ExchangeEnded(
                span_id=span_id, ended_ns=time.time_ns(), outcome="complete", response=EXCHANGE.response
            )
        )
    wal.close()


def test_a_fork_is_in_the_store_before_its_agent_runs(tmp_path: Path) -> None:
    """The open root can be read by others, with what it forks and its links."""
    with WriteBack(tmp_path) as back:
        opened = fork(back, experiment_id="e1")
        span = read_store(tmp_path).span("fork book_flight@3")
        assert span.ended_ns is None
        assert (span.trace_id, span.span_id, span.parent_span_id) == (opened.trace_id, opened.span_id, None)
        assert (span.service, span.kind, span.status) == ("tracefork", "INTERNAL", "UNSET")
        assert span.attributes == {
            "tracefork.run.kind": "trial",
            "tracefork.parent.run_id": PARENT,
            "tracefork.fork.step": 3,
            "tracefork.fork.intervention": "text",
            "tracefork.fork.tail": "live",
            "tracefork.experiment.id": "e1",
        }
        assert list(span.links) == [
            link(PARENT, PARENT_ROOT, "parent"),
            link(PARENT, EXCHANGE.span_id, "forked_from"),
        ]
        opened.end()


@pytest.mark.slow
def test_a_killed_director_leaves_a_readable_fork(tmp_path: Path) -> None:
    """After kill -9 the fork is a run of the store with its parent and step, and its status is `killed`."""
    store = tmp_path / "store"
    code = (
        "import sys, time\n"
        "from tracefork_backend.writeback.spans import SpanRef, WriteBack\n"
        "from tracefork_otel.play.intervention import Intervention\n"
        "change = Intervention(kind='noop', step=2, label='noop')\n"
        "root = WriteBack(sys.argv[1]).open_fork(change, name='n', parent_run_id='a' * 32,\n"
        "    parent_root_span_id=None, forked=SpanRef(trace_id='a' * 32, span_id='c' * 16))\n"
        "print(root.trace_id, root.span_id, flush=True)\n"
        "time.sleep(60)\n"
    )
    director = subprocess.Popen([sys.executable, "-c", code, str(store)], stdout=subprocess.PIPE, text=True)
    try:
        assert director.stdout is not None
        trace_id, span_id = director.stdout.readline().split()
        record_exchanges(store, (trace_id, span_id))
    finally:
        director.send_signal(signal.SIGKILL)
        director.wait()
        director.stdout.close()  # type: ignore[union-attr]
    with open_store(store) as opened:
        run = opened.run(trace_id)
    assert (run.kind, run.status, run.name) == ("fork", "killed", "fork n@2")
    assert (run.parent_run_id, run.fork_step) == (PARENT, 2)


def test_a_graded_fork_is_a_run_of_the_store(tmp_path: Path) -> None:
    """The ended root carries the outcome and what else was found; the run is ok though it was lost."""
    with WriteBack(tmp_path) as back:
        opened = fork(back)
        record_exchanges(tmp_path, (opened.trace_id, opened.span_id))
        opened.end(outcome=False, attributes={"tracefork.fork.reconverged_at": 5, "tracefork.nothing": None})
    with open_store(tmp_path) as store:
        run = store.run(opened.trace_id)
        (root,) = store.rows("select * from spans where parent_span_id is null")
        assert store.problems == ()
    assert (run.kind, run.status, run.name, run.steps) == ("fork", "ok", "fork book_flight@3", 1)
    assert (run.parent_run_id, run.fork_step) == (PARENT, 3)
    assert root["ended_at"] is not None
    assert '"tracefork.run.outcome":false' in root["attributes"].replace(" ", "")
    assert '"tracefork.fork.reconverged_at":5' in root["attributes"].replace(" ", "")
    assert "tracefork.nothing" not in root["attributes"]


def test_spans_are_sealed_at_the_end_of_the_block(tmp_path: Path) -> None:
    """No WAL of the backend is left, and the segment holds the spans once."""
    with WriteBack(tmp_path) as back:
        opened = fork(back)
        back.note_fork(exchange=EXCHANGE, kind="text", fork=opened)
        opened.end(outcome=True)
    assert list((tmp_path / "wal").iterdir()) == []
    assert [entry.spans for entry in manifest.load(tmp_path).segments] == [3]  # two, and the process itself


def test_nothing_written_leaves_no_store(tmp_path: Path) -> None:
    """An operation that wrote no span has made no directory."""
    with WriteBack(tmp_path / "store"):
        pass
    assert not (tmp_path / "store").exists()


def test_only_the_first_end_counts(tmp_path: Path) -> None:
    """A second end changes nothing."""
    with WriteBack(tmp_path) as back:
        opened = fork(back)
        opened.end(outcome=True, status="OK")
        opened.end(outcome=False, status="ERROR", message="no")
        span = read_store(tmp_path).span("fork book_flight@3")
    assert (span.status, span.status_message) == ("OK", None)
    assert span.attributes["tracefork.run.outcome"] is True


def test_what_stops_the_operation_ends_its_forks(tmp_path: Path, collector: Collector) -> None:
    """A fork that is open when an exception leaves the block is ended with it, at the collector too."""

    def interrupted() -> None:
        with WriteBack(tmp_path) as back:
            fork(back)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        interrupted()
    (span,) = collector.spans().values()
    assert (span.status.code, span.status.message) == (span.status.STATUS_CODE_ERROR, "RuntimeError: boom")
    with open_store(tmp_path) as store:
        assert store.rows("select status from spans") == [{"status": "ERROR"}]


def test_a_store_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    """Opening a fork raises StoreError, before an agent would start."""
    (tmp_path / "file").write_text("")
    with WriteBack(tmp_path / "file") as back, pytest.raises(StoreError, match="file"):
        fork(back)


def test_a_run_without_a_root_of_its_own_is_linked_once(tmp_path: Path) -> None:
    """Where the forked exchange is the parent's root, or it has none, one link leads to the exchange."""
    only = [link(PARENT, EXCHANGE.span_id, "forked_from")]
    with WriteBack(tmp_path) as back:
        for root in (None, EXCHANGE.span_id):
            opened = fork(back, name=f"under {root}", parent_root_span_id=root)
            assert list(read_store(tmp_path).span(f"fork under {root}@3").links) == only
            opened.end()


def test_a_replay_has_a_root_of_the_backend_too(tmp_path: Path) -> None:
    """The root of a replay is named after its run, of kind replay, and linked to the root of that run."""
    with WriteBack(tmp_path) as back:
        opened = back.open_replay(name="book_flight", parent_run_id=PARENT, parent_root_span_id=PARENT_ROOT)
        opened.end(status="ERROR", message="drift at step 2")
        span = read_store(tmp_path).span("replay book_flight")
    assert span.attributes == {"tracefork.run.kind": "replay", "tracefork.parent.run_id": PARENT}
    assert list(span.links) == [link(PARENT, PARENT_ROOT, "parent")]
    assert (span.status, span.status_message) == ("ERROR", "drift at step 2")


def test_a_note_stands_at_the_end_of_its_exchange(tmp_path: Path) -> None:
    """It is a child of the exchange in the parent's trace, 1 µs long, ends with it, and links to the fork."""
    target = SpanRef(trace_id="d" * 32, span_id="e" * 16)
    with WriteBack(tmp_path) as back:
        written = back.note_fork(
            exchange=EXCHANGE, kind="text", fork=target, attributes={"tracefork.fork.step": 3}
        )
        note = read_store(tmp_path).span("tracefork.fork text")
    assert (note.trace_id, note.span_id) == (written.trace_id, written.span_id)
    assert (note.trace_id, note.parent_span_id) == (PARENT, EXCHANGE.span_id)
    assert EXCHANGE.ended_ns is not None
    assert (note.started_ns, note.ended_ns) == (EXCHANGE.ended_ns - 1000, EXCHANGE.ended_ns)
    assert (note.status, note.service) == ("UNSET", "tracefork")
    assert list(note.links) == [link(target.trace_id, target.span_id, "fork")]
    assert note.attributes == {
        "tracefork.note": True,
        "tracefork.fork.run_id": target.trace_id,
        "tracefork.fork.step": 3,
    }


@given(st.integers(0, 5_000), st.integers(-10, 5_000_000))
def test_a_note_ends_when_its_exchange_does_in_whole_microseconds(offset: int, length: int) -> None:
    """Whatever the nanoseconds, a backend that keeps start and length in µs shows both ending together."""
    exchange = replace(EXCHANGE, started_ns=STARTED + offset, ended_ns=STARTED + offset + length)
    started, ended = end_of(exchange)

    def shown(start: int, end: int) -> int:
        return start // 1000 + (end - start) // 1000

    assert shown(started, ended) == shown(
        exchange.started_ns, max(exchange.started_ns, STARTED + offset + length)
    )
    assert exchange.started_ns <= started <= ended
    assert ended - started == (1000 if length >= 1000 else 0)


@pytest.mark.slow
def test_notes_leave_the_run_as_it_was(tmp_path: Path) -> None:
    """The row of the parent in `runs` is the same before and after notes were written into its trace."""
    record_exchanges(tmp_path, (PARENT, PARENT_ROOT))
    with open_store(tmp_path) as store:
        before = store.rows("select * from runs")
        (exchange,) = store.run(PARENT).exchanges
        with WriteBack(tmp_path) as back:
            opened = fork(back)
            back.note_fork(exchange=exchange, kind="text", fork=opened)
            opened.end(outcome=True)
        assert store.rows("select * from runs") == before
        notes = store.rows("select name, parent_span_id from spans where name like 'tracefork.%'")
    assert notes == [{"name": "tracefork.fork text", "parent_span_id": exchange.span_id}]


def test_a_note_can_be_an_error_with_words(tmp_path: Path, collector: Collector) -> None:
    """The mechanism behind notes takes a status, a text and many links, as a blame's root cause needs."""
    links = [link(f"{number:032x}", f"{number:016x}", "fork") for number in range(1, 201)]
    with WriteBack(tmp_path) as back:
        note = back.note(
            exchange=EXCHANGE,
            name="tracefork.blame certified",
            links=links,
            attributes={"tracefork.blame.effect": 0.8},
            status="ERROR",
            message="this step lost the run",
        )
    span = collector.spans()[note.span_id]
    assert (span.status.code, span.status.message) == (
        span.status.STATUS_CODE_ERROR,
        "this step lost the run",
    )
    assert len(span.links) == 200
    assert attributes_of(span)["tracefork.blame.effect"] == 0.8


def test_the_collector_gets_what_the_store_has(tmp_path: Path, collector: Collector) -> None:
    """Ids, parents, times, links and attributes are the same on both sides, of service `tracefork`."""
    with WriteBack(tmp_path) as back:
        opened = fork(back)
        back.note_fork(exchange=EXCHANGE, kind="text", fork=opened)
        opened.end(outcome=True)
        stored = {span.span_id: span for span in read_store(tmp_path).spans}
    sent = collector.spans()
    assert len(collector.received) == 2
    assert sent.keys() == stored.keys()
    for span_id, record in stored.items():
        span = sent[span_id]
        assert span.name == record.name
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (
            record.trace_id,
            record.parent_span_id or "",
        )
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (record.started_ns, record.ended_ns)
        assert attributes_of(span) == record.attributes
        assert [(one.trace_id.hex(), one.span_id.hex()) for one in span.links] == [
            (one["trace_id"], one["span_id"]) for one in record.links
        ]
        assert [attributes_of(one) for one in span.links] == [one["attributes"] for one in record.links]
    assert {resource["service.name"] for _, resource, _ in collector.received} == {"tracefork"}


def test_settings_for_the_agents_spans_do_not_touch_ours(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler that drops, small limits and a service name for the agent leave our spans whole, and ours."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "4")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "booking-agent")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    with WriteBack(tmp_path) as back:
        opened = fork(back)
        opened.end()
    ((headers, resource, span),) = collector.received
    assert attributes_of(span)["tracefork.parent.run_id"] == PARENT
    assert len(span.links) == 2
    assert resource["service.name"] == "tracefork"
    assert resource["deployment.environment.name"] == "staging"
    assert headers["x-tenant"] == "blue"


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none"), (None, None)]
)
def test_nothing_is_sent_where_the_environment_wants_none(
    tmp_path: Path,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str | None,
    value: str | None,
) -> None:
    """The store has the fork; no collector hears of it, and nobody is warned."""
    if name is None:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    else:
        monkeypatch.setenv(name, value or "")
    with WriteBack(tmp_path) as back:
        fork(back).end(outcome=True)
    assert collector.received == []
    assert capsys.readouterr().err == ""
    with open_store(tmp_path) as store:
        assert len(store.rows("select * from spans")) == 1


def test_the_endpoint_for_traces_goes_before_the_general_one(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used as it is, path and all."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
    with WriteBack(tmp_path) as back:
        fork(back).end()
    assert len(collector.received) == 1


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """The URL of a collector that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def refused() -> Iterator[str]:
    """A URL at which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "why"), [(silent, ("no answer in 3 s",)), (refused, ("connection refused",))]
)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_that_is_not_there_costs_a_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    place: Any,
    why: tuple[str],
    protocol: str,
) -> None:
    """One line on stderr says how many spans and which collector, soon; the store has them."""
    if protocol == "grpc" and importlib.util.find_spec("grpc") is None:
        pytest.skip("opentelemetry-exporter-otlp-proto-grpc is not installed")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with place() as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        back = WriteBack(tmp_path)
        for _ in range(3):
            fork(back).end()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            back.close()
        took = time.monotonic() - began
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: 3 spans did not reach the collector at {url}, the store has them")
    # The gRPC exporter says the same thing once a minute only.
    assert line.endswith(why if protocol != "grpc" else (*why, "it did not take them"))
    assert [
        record.getMessage() for record in caplog.records if "tracefork-otlp" in (record.threadName or "")
    ] == []
    assert took < 30  # a collector that takes nothing would hold it up for minutes
    with open_store(tmp_path) as store:
        assert len(store.rows("select * from spans")) == 3


def test_http_sent_to_the_port_of_grpc_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the environment names port 4317 and no protocol, the warning says which variable to set."""
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317x"
    )  # an address nobody listens on
    with WriteBack(tmp_path) as back:
        fork(back).end()
    assert "set OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in capsys.readouterr().err


def test_an_exporter_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The warning says what to install."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with WriteBack(tmp_path) as back:
        fork(back).end()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 1 span did not reach the collector")
    assert "pip install 'tracefork-otel[otlp]'" in line


def test_forks_end_in_many_threads_at_once(tmp_path: Path, collector: Collector) -> None:
    """Sixteen threads with 25 forks and notes each lose none, in the store or at the collector."""

    def one(back: WriteBack) -> str:
        opened = fork(back)
        back.note_fork(exchange=EXCHANGE, kind="text", fork=opened)
        opened.end(outcome=True)
        return opened.span_id

    warnings: list[str] = []
    with WriteBack(tmp_path, warn=warnings.append) as back, ThreadPoolExecutor(16) as pool:
        forks = set(pool.map(one, [back] * 400))
    assert warnings == []
    assert len(forks) == 400
    sent = collector.spans()
    assert len(sent) == len(collector.received) == 800
    assert forks <= sent.keys()
    with open_store(tmp_path) as store:
        (counted,) = store.rows("select count(*) as n, count(ended_at) as ended from spans")
    assert counted == {"n": 800, "ended": 800}


def test_a_trace_has_a_page_where_a_jaeger_is_named() -> None:
    """The link goes by TRACEFORK_JAEGER_UI, with or without scheme and trailing slash; else it is None."""
    page = f"http://127.0.0.1:16686/trace/{PARENT}"
    for named in ("http://127.0.0.1:16686", "http://127.0.0.1:16686/", "127.0.0.1:16686"):
        assert jaeger_url(PARENT, environ={"TRACEFORK_JAEGER_UI": named}) == page
    assert jaeger_url(PARENT, "c" * 16, environ={"TRACEFORK_JAEGER_UI": "https://j.example/ui/"}) == (
        f"https://j.example/ui/trace/{PARENT}?uiFind={'c' * 16}"
    )
    assert jaeger_url(PARENT, environ={}) is None
    assert jaeger_url(PARENT, environ={"TRACEFORK_JAEGER_UI": " "}) is None
