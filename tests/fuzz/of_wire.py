"""What reads and writes bytes of providers, of OTLP and of redacted bodies."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable
from gzip import compress

import zstandard
from conversations import NAMES, answered, asked, dumped, request_messages, sample, ways
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tracefork_backend.network import otlp, received

from tracefork_otel.errors import TraceforkError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play.match import Candidate, Explanation, explain, fingerprint
from tracefork_otel.redaction import reading, redact
from tracefork_otel.settings import Settings
from tracefork_otel.store.codec import encode
from tracefork_otel.store.delta import Delta
from tracefork_otel.wire import codings, cuts, genai, replies
from tracefork_otel.wire.facts import facts_of
from tracefork_otel.wire.framing import framing_of
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.registry import load

from .mutating import Input
from .running import Target

WAYS = [one.values for one in ways()]
RULES = reading.parse(
    {
        "rule": [
            {"json": "**.text", "replace": "T"},
            {"json": "messages[*].content"},
            {"pattern": "w[a-z]{2,9}r", "digest": True},
            {"header": "content-type"},
            {"param": "key"},
        ]
    },
    "the fuzzer's rules",
)


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogatepass") if _is_utf8(part) else part.decode("latin-1")


def _is_utf8(part: bytes) -> bool:
    try:
        part.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def exchange_parts() -> list[Input]:
    """URL, request, content type, content encoding and response of each sample, whole and streamed."""
    found: list[Input] = []
    for name, at in WAYS:
        request, response = asked(name, at), answered(name, at)
        kind = (response.header("content-type") or "").encode()
        found.append((request.url.encode(), request.body, kind, b"", response.body))
    url, body, kind, _, said = found[0]
    found.append((url, body, kind, b"gzip", compress(said)))
    return found


def exchange(url: bytes, request: bytes, kind: bytes, coding: bytes, response: bytes) -> Exchange:
    """Return the exchange of those parts."""
    headers = tuple((n, _text(v)) for n, v in (("content-type", kind), ("content-encoding", coding)) if v)
    return Exchange(
        trace_id="a" * 32,
        span_id="b" * 16,
        parent_span_id=None,
        process_id="1-a",
        seq=0,
        started_ns=1,
        ended_ns=2,
        outcome="complete",
        request=Request(method="POST", url=_text(url), headers=headers, body=request),
        response=Response(status=200, headers=headers, body=response, chunk_sizes=(len(response),)),
    )


def read_exchange(*parts: bytes) -> None:
    """Everything that reads an exchange: facts, messages, the convention's words, pieces of a tape."""
    one = exchange(*parts)
    found = facts_of(one)
    if found is not None:
        json.dumps([message.content for message in found.reply], ensure_ascii=False).encode()
    for form in NAMES:
        if found is None or form == found.form:
            for message in request_messages(form, one.request.body):
                (message.content + message.role + (message.name or "")).encode()
    genai.told_of(one.request.url, one.request.body, parts[4], _text(parts[2]))
    for body in (one.request.body, parts[4]):
        assert b"".join(cuts.decode_piece(cuts.encode_piece(piece)) for piece in cuts.cut(body)) == body
    replies.tool_results(one.request)


def write_reply(*parts: bytes) -> None:
    """Every way to write a reply or an edit in the form of a request."""
    one = exchange(*parts[:5])
    text = _text(parts[5])
    for recorded in (one.response, None):
        told = (one.request, recorded)
        _answer(replies.encode_reply, *told, text=text)
        _answer(replies.encode_reply, *told, tool_input={text: [text, 1]})
        _answer(replies.encode_reply, *told, tool_input=text, tool="get_weather")
        _answer(replies.encode_body, *told, parts[4])
    for status in (429, 500, 529):
        replies.encode_error(one.request, status)
    _answer(replies.system_edit, one.request, text)


def edit_body(body: bytes, path: bytes, value: bytes) -> None:
    """A request with the value at a path replaced."""
    try:
        given: object = json.loads(value)
    except (ValueError, RecursionError):
        given = _text(value)
    json.loads(apply_edits(body, [(_text(path), given)]))


def _answer(make: Callable[..., object], *given: object, **more: object) -> None:
    try:
        response = make(*given, **more)
    except TraceforkError as error:
        str(error).encode("utf-8", "surrogatepass")
        return
    if isinstance(response, Response):
        assert not response.chunk_sizes or sum(response.chunk_sizes) == len(response.body)


def read_stream(coding: bytes, body: bytes) -> None:
    """A body as any form's stream, and decoded by any coding."""
    codings.decode_body(body, _text(coding), limit=1_000_000)
    for name in NAMES:
        form = load(name)
        for framing in form.FRAMINGS:
            form.read_reply(form.assemble(framing.read(body)))
            assert b"".join(framing.cut(body)) == body
        framing_of(form.FRAMINGS, body, None)


def streams() -> list[Input]:
    """Streams of each form, and bodies in each coding."""
    bodies = [answered(name, at).body for name, at in WAYS if at is not None]
    coded = [(b"gzip", compress(bodies[0])), (b"deflate", zlib.compress(bodies[0]))]
    return [*((b"", body) for body in bodies), *coded, (b"zstd", zstandard.compress(bodies[0]))]


def redact_body(side: bytes, *parts: bytes) -> None:
    """A body, headers and URL with rules applied."""
    one, counts = exchange(*parts), Counter[str]()
    redactor = redact.Redactor(rules=RULES)
    assert one.response is not None
    if side == b"request":
        raw = [
            (n.encode("latin-1", "replace"), v.encode("latin-1", "replace")) for n, v in one.request.headers
        ]
        redactor.request("POST", one.request.url, raw, one.request.body)
    else:
        response, _ = redactor.response(one.response, counts)
        assert sum(response.chunk_sizes) == len(response.body)


def play(*parts: bytes) -> None:
    """A request looked for on a tape of another, and the difference explained."""
    left, right = exchange(*parts[:5]).request, exchange(parts[0], parts[5], *parts[2:5]).request
    for ignore in ((), ("messages[*].content", "**.id")):
        fingerprint(left, match="json", ignore=ignore)
        told = explain(right, [Candidate(step=0, request=left, used=False)], match="json", ignore=ignore)
        assert Explanation.from_json(told.to_json()) == told
        told.text()


def span_message() -> ExportTraceServiceRequest:
    """A request of one span that tells a conversation, one that is an exchange, and one of odd attributes."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "other"
    scope = resource.scope_spans.add()
    scope.scope.name = "lib"
    said = json.dumps(
        [
            {"role": "user", "parts": [{"type": "text", "content": "weather?"}]},
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c", "name": "w", "arguments": {"a": 1}}],
            },
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": "rain"}]},
        ]
    )
    for number, provider in enumerate(("openai", "anthropic", "gcp.gemini", "")):
        span = scope.spans.add(trace_id=b"t" * 16, span_id=bytes([number + 1]) * 8, name=f"chat {provider}")
        span.start_time_unix_nano, span.end_time_unix_nano = 10**18, 10**18 + 5
        told = {
            "gen_ai.provider.name": provider,
            "gen_ai.input.messages": said,
            "gen_ai.output.messages": said,
        }
        told |= {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "server.address": "x.example"}
        if not provider:
            told = {
                "tracefork.exchange": "true",
                "url.full": "http://x/?key=1",
                "http.request.method": "POST",
            }
            for event, body in (("tracefork.request.body", "{}"), ("tracefork.response.body", "[1]")):
                made = span.events.add(name=event)
                made.attributes.add(key="tracefork.body").value.string_value = body
                made.attributes.add(key="tracefork.body.length").value.int_value = len(body)
                sizes = made.attributes.add(key="tracefork.chunk.sizes").value.array_value
                sizes.values.add().int_value = len(body)
            span.links.add(trace_id=b"u" * 16, span_id=b"v" * 8).attributes.add(
                key="a"
            ).value.bool_value = True
        for key, value in told.items():
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = 3
        listed = span.attributes.add(key="n").value.kvlist_value.values.add(key="k")
        listed.value.array_value.values.add().double_value = 1.5
        span.attributes.add(key="raw").value.bytes_value = b"\xff"
    return request


def receive(form: otlp.Form, body: bytes) -> None:
    """A request as it comes by OTLP, as far as the log's bytes."""
    redactor = redact.of(Settings())
    for span, _ in otlp.spans_of(otlp.parse(body, form)):
        if isinstance(span, str):
            span.encode()
            continue
        for record in received.records_of(span, redactor):
            b"".join(encode(record, Delta(-1, 0, 0, -1)))


def json_spans() -> list[Input]:
    """The request as JSON, ids in hex."""
    from google.protobuf.json_format import MessageToDict

    found = MessageToDict(span_message())
    for resource in found["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                span["traceId"], span["spanId"] = "ab" * 16, "cd" * 8
                span.pop("links", None)
    return [(json.dumps(found).encode(),)]


def conversations_told() -> list[Input]:
    """Attributes of a span that tell of a call, as JSON."""
    span = span_message().resource_spans[0].scope_spans[0].spans
    told = [{a.key: a.value.string_value or a.value.int_value for a in one.attributes} for one in span[:3]]
    for one in told:
        one["gen_ai.system_instructions"] = '[{"type": "text", "content": "short"}]'
        one["gen_ai.response.finish_reasons"] = ["stop"]  # type: ignore[assignment]
        for name in ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"):
            one[name] = json.loads(str(one[name]))
    return [(json.dumps(one).encode(),) for one in told]


def tell(attributes: bytes) -> None:
    """A conversation made of a span's attributes, which have any values."""
    try:
        told = json.loads(attributes)
    except (ValueError, RecursionError):
        return
    if isinstance(told, dict):
        genai.conversation(told, "seed")


TARGETS = (
    Target(name="exchange", corpus=exchange_parts, read=read_exchange),
    Target(
        name="reply",
        corpus=lambda: [(*parts, b"some text \xf0\x9f\x98\x80") for parts in exchange_parts()],
        read=write_reply,
        dear=2,
    ),
    Target(
        name="edit",
        corpus=lambda: [
            (dumped(sample(name)["request"]), path, b'{"a": [1]}')
            for name in NAMES
            for path in (b"model", b"messages[0].content", b"a.b[*].c", b'["x y"]', b"**.content")
        ],
        read=edit_body,
    ),
    Target(name="stream", corpus=streams, read=read_stream, dear=2),
    Target(
        name="redaction",
        corpus=lambda: [(side, *parts) for parts in exchange_parts() for side in (b"request", b"response")],
        read=redact_body,
        dear=2,
    ),
    Target(
        name="match", corpus=lambda: [(*parts, parts[1]) for parts in exchange_parts()], read=play, dear=2
    ),
    Target(
        name="otlp-protobuf",
        corpus=lambda: [(span_message().SerializeToString(),)],
        read=lambda body: receive("protobuf", body),
        allowed=(otlp.Refused,),
    ),
    Target(
        name="otlp-json",
        corpus=json_spans,
        read=lambda body: receive("json", body),
        allowed=(otlp.Refused,),
        dear=2,
    ),
    Target(name="conversation", corpus=conversations_told, read=tell),
)
