"""Stored runs sent by OTLP: by `send`, and by `run` for an agent that has no provider."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collecting
from e2e.command import here
from forked import Desk, at_desk
from stored import Recorder, answered, asked
from told import chat, ours, plain, received
from tracefork_backend.store import open_store, outgoing

RUN, OTHER = "ab" * 16, "cd" * 16


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names."""
    with collecting(monkeypatch) as server:
        yield server


def told(span: Any) -> tuple[Any, ...]:
    """What makes a span one that was sent before."""
    return (
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def test_a_run_is_sent_as_it_was_recorded(collector: Collector, tmp_path: Path) -> None:
    """Its ids and times, the service of each span, no word of what was said; the same when sent again."""
    recorder = Recorder(tmp_path)
    root = recorder.root(RUN, "book", attributes={"tracefork.command": '["secret"]', "agent.mood": "good"})
    span_id = recorder.exchange(RUN, asked("my secret"), answered("your secret"))
    recorder.exchange(OTHER)
    recorder.close()
    with open_store(tmp_path) as store:
        run = store.run(RUN)
        assert outgoing.send([run]).spans == 2
        first = sorted(told(span) for _, _, span in collector.received)
        sent, (exchange,) = collector.spans(), run.exchanges
        assert sent.keys() == {root, span_id}
        assert sent[span_id].start_time_unix_nano == exchange.started_ns
        assert {one.key for one in sent[root].attributes} >= {"agent.mood"}
        assert b"secret" not in b"".join(span.SerializeToString() for span in sent.values())
        collector.received.clear()
        assert outgoing.send([run]).problems == ()
        assert sorted(told(span) for _, _, span in collector.received) == first


def test_what_never_ended_ends_with_its_run(collector: Collector, tmp_path: Path) -> None:
    """A killed run's root and open exchange are sent; of one that goes on, what has ended."""
    recorder = Recorder(tmp_path)
    root = recorder.root(RUN, "book", end=False)
    whole, opened = recorder.exchange(RUN), recorder.exchange(RUN, end=False)
    with open_store(tmp_path) as store:
        outgoing.send([store.run(RUN)])
        assert collector.spans().keys() == {whole}
    recorder.close()
    with open_store(tmp_path) as store:
        outgoing.send([store.run(RUN)])
    sent = collector.spans()
    assert sent.keys() == {root, whole, opened}
    assert sent[root].end_time_unix_nano >= sent[opened].end_time_unix_nano
    assert sent[root].status.message == "its process was killed"


@pytest.mark.parametrize("fields", [{}, {"status": "ERROR"}, {"attributes": {"tracefork.part": True}}])
def test_only_a_killed_run_was_killed(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A span that was never ended ends with its run, and says nothing that nobody knows."""
    recorder = Recorder(tmp_path)
    root = recorder.root(RUN, "book", **fields)
    recorder.exchange(RUN)
    left = recorder.root(RUN, "left open", end=False, parent_span_id=root)
    recorder.close()
    with open_store(tmp_path) as store:
        run = store.run(RUN)
        assert run.status in ("ok", "error", "part")
        (sent,) = [span for span in outgoing.spans_of(run) if span.span_id == left]
    assert (sent.status, sent.status_message) == ("UNSET", None)
    assert sent.ended_ns is not None


def ids_in_view(path: Path) -> list[str]:
    """The spans of the run's trace, as the view has them."""
    with open_store(path) as store:
        rows = store.rows("SELECT DISTINCT span_id FROM spans WHERE trace_id = $run", {"run": RUN})
        return sorted(row["span_id"] for row in rows)


def ids_sent(path: Path) -> list[str]:
    """The spans that are sent of the run."""
    with open_store(path) as store:
        return sorted(span.span_id for span in outgoing.spans_of(store.run(RUN)))


@pytest.mark.parametrize(
    "spans",
    [
        [chat(1, None), chat(2, 1)],
        [plain(1, None), chat(2, 1), plain(3, 2), chat(4, 3)],
        [chat(1, None), ours(2, 1)],
        [chat(1, None), plain(2, 1), plain(2, 1)],
    ],
    ids=["two", "with spans between", "ours", "twice the same"],
)
def test_a_call_that_two_spans_tell_of_is_sent_as_two(tmp_path: Path, spans: list[Any]) -> None:
    """What the view `spans` has is sent, each span once: none has a parent that the backend never gets."""
    received(tmp_path, spans)
    assert ids_sent(tmp_path) == ids_in_view(tmp_path) == sorted({one.span_id for one in spans})


@pytest.mark.slow
def test_what_others_say_of_the_trace_is_sent_too(tmp_path: Path) -> None:
    """The recorder's own word for a span counts."""
    recorder = Recorder(tmp_path)
    root = recorder.root(RUN, "ours")
    call = recorder.exchange(RUN)
    recorder.close()
    received(tmp_path, [chat(1, None), plain(2, 1), plain(3, 2, span_id=root), chat(4, 1, span_id=call)])
    with open_store(tmp_path) as store:
        sent = list(outgoing.spans_of(store.run(RUN)))
    assert sorted(span.span_id for span in sent) == ids_in_view(tmp_path)
    assert {span.name for span in sent if span.span_id in (root, call)} == {"ours", "chat claude-sonnet-4-5"}


@pytest.mark.slow
def test_the_command(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`send` says how much went where; without a backend, a run, or an answer it says so, and how."""
    recorder = Recorder(tmp_path / "store")
    recorder.exchange(RUN)
    recorder.exchange(OTHER)
    recorder.close()
    names = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    done = here("send", RUN[:8], OTHER[:8], RUN, "--store", "store", cwd=tmp_path, **names)
    assert (done.status, done.out) == (0, f"2 spans of 2 runs (abababab, cdcdcdcd) sent to {collector.url}\n")
    assert here("send", "last", "--store", "store", "--json", cwd=tmp_path, **names).rows[0]["spans"] == 1
    here("send", "last", "--store", "store", cwd=tmp_path).refused("OTEL_EXPORTER_OTLP_ENDPOINT")
    here("send", "f" * 8, "--store", "store", cwd=tmp_path, **names).refused("no run")
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    gone = here("send", "last", "--store", "store", cwd=tmp_path, **nobody)
    assert gone.status == 3
    assert "1 span did not reach" in gone.err
    assert gone.out == ""
    lost = here("send", "last", "--store", "store", "--json", cwd=tmp_path, **nobody).rows[0]
    assert (lost["spans"], lost["of"], len(lost["problems"])) == (0, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["x" * 700_000, "é" * 350_000, '"' * 700_000])
def test_messages_are_small_enough_for_a_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    """Whatever bodies are asked for: by gRPC collectors take 4 MiB."""
    monkeypatch.setenv("TRACEFORK_EVENT_BODY_LIMIT", "unlimited")
    recorder = Recorder(tmp_path)
    for _ in range(6):
        recorder.exchange(RUN, asked(text), b"{}")
    recorder.close()
    with open_store(tmp_path) as store:
        sent = outgoing.send([store.run(RUN)])
    assert (sent.spans, sent.of, sent.runs, sent.problems) == (6, 6, (RUN,), ())
    sizes = [int(headers["Content-Length"]) for headers, _, _ in collector.received]
    assert len(sizes) == 6
    assert max(sizes) < 4 * 1024 * 1024


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""


@pytest.mark.slow
@pytest.mark.parametrize("body", ["", PROVIDER], ids=["without a provider", "with one"])
def test_run_sends_what_nobody_else_does(desk: Desk, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """At its end `run` sends the run of an agent without a provider, root and all, and no other."""
    desk.write(body + "say('a secret'); say('b')")
    with collecting(monkeypatch) as collector:
        recorded = desk.record()
    assert recorded.problems == ()
    sent = collector.spans()
    if body:
        assert sent == {}
        return
    run = desk.run()
    assert {one.span_id for one in run.exchanges} < sent.keys()
    assert {span.trace_id.hex() for span in sent.values()} == {run.run_id}
    assert desk.store.root_of(run.run_id) in sent
    assert all(not span.parent_span_id or span.parent_span_id.hex() in sent for span in sent.values())
    assert b"secret" not in b"".join(span.SerializeToString() for span in sent.values())


@pytest.mark.slow
def test_run_says_what_did_not_arrive(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is not there changes nothing but a line."""
    desk.write("say('a')")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    recorded = desk.record()
    assert recorded.exit_status == 0
    assert [run.steps for run in recorded.runs] == [1]
    (problem,) = recorded.problems
    assert "did not reach the collector" in problem
