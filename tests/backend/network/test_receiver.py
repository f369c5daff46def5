"""The OTLP receiver: real exporters, real sockets, and everything that it has to refuse."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import zstandard
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from recorded import read_store
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.receiver import Receiver
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.errors import TruncatedBody, UsageError
from tracefork_otel.settings import Settings

PROTOBUF = "application/x-protobuf"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The receiver's store."""
    return tmp_path / "received"


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    """Where a receiver with small limits takes traces."""
    receiver = Receiver(bind("127.0.0.1", 0), store=store, max_compressed=200_000, max_plain=2_000_000)
    with receiver:
        yield f"http://127.0.0.1:{receiver.port}/v1/traces"


def message(count: int = 1, **fields: Any) -> ExportTraceServiceRequest:
    """A request of so many spans, the first with these fields."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    attribute = resource.resource.attributes.add()
    attribute.key, attribute.value.string_value = "service.name", "other"
    scope = resource.scope_spans.add()
    scope.scope.name = "lib"
    for number in range(count):
        span = scope.spans.add()
        span.trace_id, span.span_id = b"t" * 16, number.to_bytes(7, "big") + b"s"
        span.name, span.kind = f"span {number}", 3
        span.start_time_unix_nano = time.time_ns()
        span.end_time_unix_nano = span.start_time_unix_nano + 1000
        for name, value in fields.items() if number == 0 else ():
            setattr(span, name, value)
    return request


def post(url: str, body: bytes, kind: str = PROTOBUF, **headers: str) -> httpx2.Response:
    """The answer to a body."""
    return httpx2.post(url, content=body, headers={"content-type": kind, **headers})


@pytest.mark.parametrize("encoding", [None, "gzip", "zstd", "deflate"])
def test_takes_protobuf(url: str, store: Path, encoding: str | None) -> None:
    """A span is in the WAL, whole, when the 200 comes, in each content encoding."""
    plain = message().SerializeToString()
    packed = {
        None: lambda: plain,
        "gzip": lambda: gzip.compress(plain),
        "deflate": lambda: zlib.compress(plain),
        "zstd": lambda: zstandard.compress(plain),
    }[encoding]()
    answer = post(url, packed, **({"content-encoding": encoding} if encoding else {}))
    assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
    assert not ExportTraceServiceResponse.FromString(answer.content).HasField("partial_success")
    (span,) = read_store(store).spans
    assert (span.name, span.kind, span.service, span.scope) == ("span 0", "CLIENT", "other", "lib")
    assert span.trace_id == (b"t" * 16).hex()


def test_takes_json(url: str, store: Path) -> None:
    """JSON with hex ids, numbers as strings and unknown fields is taken, and answered in JSON."""
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "parentSpanId": "",
        "name": "json",
        "kind": 2,
        "startTimeUnixNano": "1544712660000000000",
        "endTimeUnixNano": "1544712661000000000",
        "attributes": [{"key": "n", "value": {"intValue": "7"}}],
        "fieldOfTomorrow": 1,
    }
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    answer = post(url, json.dumps(body).encode(), "application/json; charset=utf-8")
    assert (answer.status_code, answer.json()) == (200, {})
    (found,) = read_store(store).spans
    assert (found.trace_id, found.span_id) == (span["traceId"], span["spanId"])
    assert (found.parent_span_id, found.kind, dict(found.attributes)) == (None, "SERVER", {"n": 7})


def test_partial_success_counts_what_was_not_taken(url: str, store: Path) -> None:
    """A span without a usable id is rejected by number and reason; the others are stored."""
    answer = post(url, message(3, trace_id=b"\0" * 16).SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_spans) == (200, 1)
    assert "trace id" in partial.error_message
    assert len(read_store(store).spans) == 2


def test_a_batch_sent_again_is_stored_once(url: str, store: Path) -> None:
    """An exporter that missed the answer may send its batch a second time."""
    body = message(2).SerializeToString()
    assert [post(url, body).status_code for _ in range(2)] == [200, 200]
    assert len(read_store(store).spans) == 2


def test_span_ids_may_repeat_in_other_traces(url: str, store: Path) -> None:
    """Spans and conversations of two traces that happen to share their span ids are kept apart."""
    for number in range(2):
        request = message(2, trace_id=bytes([number + 1]) * 16, name=f"trace {number}")
        span = request.resource_spans[0].scope_spans[0].spans[1]
        span.trace_id = bytes([number + 1]) * 16
        said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": f"question {number}"}]}])
        for key, value in {"gen_ai.operation.name": "chat", "gen_ai.input.messages": said}.items():
            pair = span.attributes.add()
            pair.key, pair.value.string_value = key, value
        assert post(url, request.SerializeToString()).status_code == 200
    found = read_store(store)
    assert [span.name for span in found.spans] == ["trace 0", "trace 1"]
    assert [one.trace_id[:2] for one in found.exchanges] == ["01", "02"]
    assert [f"question {n}".encode() in one.request.body for n, one in enumerate(found.exchanges)] == [
        True
    ] * 2
    assert {one.outcome for one in found.exchanges} == {"complete"}


def test_rules_of_the_receiver_redact_what_comes(store: Path) -> None:
    """Attributes, events and conversations are stored as the receiver's rules leave them, and say so."""
    rules = {"rule": [{"name": "mails", "pattern": r"\w+@x\.com", "replace": "MAIL"}]}
    settings = Settings(redact_rules=json.dumps(rules))
    receiver = Receiver(bind("127.0.0.1", 0), store=store, settings=settings)
    request = message(2)
    spans = request.resource_spans[0].scope_spans[0].spans
    said = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "write to joe@x.com"}]}])
    for span, key, value in (
        (spans[0], "note", "joe@x.com called"),
        (spans[1], "gen_ai.operation.name", "chat"),
        (spans[1], "gen_ai.input.messages", said),
    ):
        pair = span.attributes.add()
        pair.key, pair.value.string_value = key, value
    event = spans[0].events.add(name="log")
    pair = event.attributes.add()
    pair.key, pair.value.string_value = "line", "joe@x.com again"
    with receiver:
        assert post(f"http://127.0.0.1:{receiver.port}/v1/traces", request.SerializeToString()).is_success
    found = read_store(store)
    assert "joe@" not in repr(found)
    assert found.spans[0].attributes["note"] == "MAIL called"
    exchange = found.only()
    assert b"write to MAIL" in exchange.request.body
    assert json.loads(str(exchange.attributes["tracefork.redacted"])) == {"request": {"mails": 1}}


BAD = [
    (b"\xff\xff\xff", PROTOBUF, {}, 400),
    (message().SerializeToString()[:-3], PROTOBUF, {}, 400),
    (b"{", "application/json", {}, 400),
    (b"[]", "application/json", {}, 400),
    (b'{"resourceSpans": 3}', "application/json", {}, 400),
    (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}', "application/json", {}, 400),
    (b"[" * 100_000, "application/json", {}, 400),
    (b"x", "text/plain", {}, 415),
    (b"x", "application/grpc", {}, 415),
    (b"x", PROTOBUF, {"content-encoding": "br"}, 415),
    (b"no gzip", PROTOBUF, {"content-encoding": "gzip"}, 400),
    (gzip.compress(b"x" * 1000)[:-4], PROTOBUF, {"content-encoding": "gzip"}, 400),
    (zstandard.compress(b"x" * 1000)[:-4], PROTOBUF, {"content-encoding": "zstd"}, 400),
    (b"x" * 200_001, PROTOBUF, {}, 413),
    (gzip.compress(b"\0" * 20_000_000), PROTOBUF, {"content-encoding": "gzip"}, 413),
    (zstandard.compress(b"\0" * 20_000_000), PROTOBUF, {"content-encoding": "zstd"}, 413),
    (message().SerializeToString(), PROTOBUF, {"host": "evil.example"}, 421),
]


@pytest.mark.parametrize(
    ("body", "kind", "headers", "status"), BAD, ids=[f"{at}-{case[3]}" for at, case in enumerate(BAD)]
)
def test_refuses_bad_input(
    url: str, store: Path, body: bytes, kind: str, headers: dict[str, str], status: int
) -> None:
    """Malformed, cut, foreign, oversized and exploding requests get their status, and nothing is stored."""
    answer = post(url, body, kind, **headers)
    assert answer.status_code == status
    assert answer.content
    assert not store.exists() or not read_store(store).spans
    assert post(url, message().SerializeToString()).status_code == 200


def test_other_places(url: str) -> None:
    """Metrics and logs have no place here, and GET is no way to send."""
    assert post(url.replace("traces", "metrics"), b"").status_code == 404
    assert httpx2.get(url).status_code == 405


def test_a_store_that_cannot_be_written_is_503(tmp_path: Path) -> None:
    """The exporter is told to try again, and not that its spans are safe."""
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    with Receiver(bind("127.0.0.1", 0), store=blocked) as receiver:
        answer = post(f"http://127.0.0.1:{receiver.port}/v1/traces", message().SerializeToString())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_too_much_at_once_is_429(tmp_path: Path) -> None:
    """Whoever sends while too much waits is asked to try again."""
    with Receiver(bind("127.0.0.1", 0), store=tmp_path / "s", max_waiting=-1) as receiver:
        answer = post(f"http://127.0.0.1:{receiver.port}/v1/traces", message().SerializeToString())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def exported(endpoint: str, agent_store: Path, **settings: Any) -> None:
    """An agent's traced calls went through the Python exporter to the endpoint."""
    provider = TracerProvider(resource=Resource.create({"service.name": "agent"}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, compression=Compression.Gzip)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    TraceforkInstrumentor().instrument(
        tracer_provider=provider, http_spans=False, store=agent_store, **settings
    )
    try:
        with ModelServer() as server, provider.get_tracer("t").start_as_current_span("agent"):
            httpx2.get(server.url + "/raw/sse?events=44")
            httpx2.get(server.url + "/raw/bytes/3000")
    finally:
        TraceforkInstrumentor().uninstrument()
        provider.shutdown()


@pytest.mark.slow
def test_our_exchanges_arrive_whole(url: str, store: Path, tmp_path: Path) -> None:
    """Exchange spans sent with whole bodies are the exchanges that the agent's own store holds."""
    agent = tmp_path / "agent"
    exported(url, agent, event_body_limit=1 << 40)
    with open_store(agent) as sent, open_store(store) as got:
        (ours,), (theirs,) = sent.runs(), got.runs()
        assert (theirs.run_id, theirs.name, theirs.steps) == (ours.run_id, "agent", 2)
        for one, other in zip(ours.exchanges, theirs.exchanges, strict=True):
            assert other.request.url == one.request.url
            assert other.response is not None
            assert one.response is not None
            assert other.response.body == one.response.body
            assert other.response.chunk_sizes == one.response.chunk_sizes
            assert (other.outcome, other.started_ns, other.ended_ns) == (
                one.outcome,
                one.started_ns,
                one.ended_ns,
            )
        assert reconstruct(got, theirs).steps == 2


def test_cut_bodies_are_marked_and_not_replayed(url: str, store: Path, tmp_path: Path) -> None:
    """An exchange of which a prefix came can be read; to replay it is refused, naming the step."""
    exported(url, tmp_path / "agent", event_body_limit=100)
    with open_store(store) as opened:
        (run,) = opened.runs()
        assert run.steps == 2
        with pytest.raises(TruncatedBody, match=r"step 0 .* bytes of the response body came"):
            reconstruct(opened, run)


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("acme", "m-1")]
)
def test_messages_of_others_are_runs(url: str, store: Path, provider: str, model: str) -> None:
    """A span with GenAI messages can be read and queried as a run; to replay it is refused, saying why."""
    request = message(1, name=f"chat {model}", end_time_unix_nano=time.time_ns() + 10**9)
    asked = [
        {"role": "user", "parts": [{"type": "text", "content": "weather?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "w", "arguments": {}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]},
    ]
    said = [{"role": "assistant", "parts": [{"type": "text", "content": "It rains."}]}]
    values = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.input.messages": json.dumps(asked),
        "gen_ai.output.messages": json.dumps(said),
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be short."}]),
    }
    span = request.resource_spans[0].scope_spans[0].spans[0]
    for name, value in values.items():
        pair = span.attributes.add()
        pair.key, pair.value.string_value = name, value
    pair = span.attributes.add()
    pair.key, pair.value.int_value = "gen_ai.usage.input_tokens", 12
    assert post(url, request.SerializeToString()).status_code == 200
    with open_store(store) as opened:
        (run,) = opened.runs()
        assert (run.steps, run.input_tokens) == (1, 12)
        rows = opened.rows("select role, kind, content from messages order by position")
        texts = [row["content"] for row in rows]
        assert texts[0] == "Be short."
        assert texts[-1] == "It rains."
        assert "rain" in texts
        assert {"tool_use", "tool_result"} <= {row["kind"] for row in rows}
        with pytest.raises(UsageError, match="fidelity = messages"):
            reconstruct(opened, run)


def test_received_spans_name_their_run(url: str, store: Path) -> None:
    """A resource's session and a span's conversation are columns of the run, once told by two requests."""
    sent = message(3)
    session = sent.resource_spans[0].resource.attributes.add()
    session.key, session.value.string_value = "session.id", "s1"
    spans = sent.resource_spans[0].scope_spans[0].spans
    conversation = spans[2].attributes.add()
    conversation.key, conversation.value.string_value = "gen_ai.conversation.id", "c1"
    asked = spans[1].attributes.add()
    asked.key = "gen_ai.input.messages"
    asked.value.string_value = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
    for _ in range(2):
        assert post(url, sent.SerializeToString()).status_code == 200
    with open_store(store) as opened:
        assert opened.rows("SELECT session_id, conversation_id FROM runs") == [
            {"session_id": "s1", "conversation_id": "c1"}
        ]
    assert len([note for note in read_store(store).notes if note.kind == "named"]) == 2
