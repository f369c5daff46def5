"""Gemini's format read into messages and facts, and interventions written in it, as its SDK reads them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefork_backend.blaming import changes
from tracefork_backend.store.prices import cost_usd

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.facts import facts, request_messages
from tracefork_otel.wire.genai import conversation
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply, system_edit, tool_results

BASE = "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash"
WHOLE, STREAM, ARRAY = (
    f"{BASE}:generateContent",
    f"{BASE}:streamGenerateContent?alt=sse",
    f"{BASE}:streamGenerateContent",
)
VERTEX = (
    "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1"
    "/publishers/google/models/gemini-2.5-flash:generateContent"
)
CALL = {"id": "c8d1", "name": "weather", "args": {"city": "Zürich", "days": [1, 2]}}
USAGE = {
    "promptTokenCount": 120,
    "candidatesTokenCount": 30,
    "totalTokenCount": 190,
    "cachedContentTokenCount": 64,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 120}],
    "thoughtsTokenCount": 40,
}
SAID: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "I need the weather.", "thought": True},
                    {"text": "Moment … 🌦"},
                    {"functionCall": CALL, "thoughtSignature": "c2lnbmF0dXJl"},
                    {"functionCall": {"name": "note", "args": {"x": 1}}},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": USAGE,
    "modelVersion": "gemini-2.5-flash-001",
    "responseId": "mQI6aZLzHs3pxs0P1a",
}
ASKED: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}], "role": "user"},
    "contents": [
        {
            "role": "user",
            "parts": [{"text": "Wetter?"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}],
        },
        {"role": "model", "parts": [{"functionCall": CALL, "thoughtSignature": "c2ln"}]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c8d1", "name": "weather", "response": {"result": "Regen"}}}
            ],
        },
    ],
    "generationConfig": {"temperature": 0},
}
READ = [
    ("model", "thinking", None, "I need the weather."),
    ("model", "text", None, "Moment … 🌦"),
    ("model", "tool_use", "weather", '{"city":"Zürich","days":[1,2]}'),
    ("model", "tool_use", "note", '{"x":1}'),
]


def chunk(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream with these parts."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    return {
        "candidates": [{**candidate, **({"finishReason": finish} if finish else {})}],
        "usageMetadata": {"promptTokenCount": 120, "totalTokenCount": 120},
        "modelVersion": "gemini-2.5-flash-001",
        "responseId": "mQI6aZLzHs3pxs0P1a",
        **more,
    }


CHUNKS = [
    chunk({"text": "I need", "thought": True}),
    chunk({"text": " the weather.", "thought": True}),
    chunk({"text": "Moment "}),
    chunk({"text": "… 🌦"}),
    chunk(
        {"functionCall": CALL, "thoughtSignature": "c2lnbmF0dXJl"},
        {"functionCall": {"name": "note", "args": {"x": 1}}},
    ),
    chunk({"text": "", "thoughtSignature": "ZW5k"}, finish="STOP", usageMetadata=USAGE),
]


def sse(chunks: list[dict[str, Any]]) -> bytes:
    """The chunks as Google sends them."""
    return b"".join(f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n".encode() for one in chunks)


def array(chunks: list[dict[str, Any]]) -> bytes:
    """The chunks as Google sends them to who asks for no events."""
    return ("[" + ",\r\n".join(json.dumps(one, ensure_ascii=False) for one in chunks) + "]").encode()


BODIES = {WHOLE: json.dumps(SAID, indent=2).encode(), STREAM: sse(CHUNKS), ARRAY: array(CHUNKS)}
each = pytest.mark.parametrize("url", [WHOLE, STREAM, ARRAY], ids=["whole", "events", "array"])


def asked(url: str, body: dict[str, Any] = ASKED) -> Request:
    """The request."""
    return Request(method="POST", url=url, body=json.dumps(body).encode())


def answered(url: str, body: bytes | None = None) -> Response:
    """The recorded response."""
    kind = "text/event-stream" if url == STREAM else "application/json; charset=UTF-8"
    body = BODIES[url] if body is None else body
    return Response(status=200, headers=(("content-type", kind), ("x-xss-protection", "0")), body=body)


def facts_in(url: str, response: Response) -> Facts:
    """What is read from it."""
    found = facts(
        "POST",
        url,
        request=json.dumps(ASKED).encode(),
        response=response.body,
        content_type=response.header("content-type"),
    )
    assert found is not None
    return found


def told(messages: Any) -> list[tuple[str, str, str | None, str]]:
    """Messages as tuples."""
    return [(one.role, one.kind, one.name, one.content) for one in messages]


@each
def test_a_reply_reads_alike_whole_and_streamed(url: str) -> None:
    """Thoughts, text, calls, usage, model and end are the same from JSON, from events and from an array."""
    found = facts_in(url, answered(url))
    assert told(found.reply) == READ
    assert found.text == "Moment … 🌦"
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (120, 70, 64)
    assert (found.model, found.response_model) == ("gemini-2.5-flash", "gemini-2.5-flash-001")
    assert (found.response_id, found.finish_reason) == ("mQI6aZLzHs3pxs0P1a", "STOP")
    assert (found.provider, found.operation, found.streamed) == (
        "gcp.gemini",
        "generate_content",
        url != WHOLE,
    )


@pytest.mark.parametrize("url", [STREAM, ARRAY])
def test_a_stream_cut_at_any_byte_reads_as_a_prefix(url: str) -> None:
    """What had come of a stream is there, and none of it raises."""
    whole, said = "I need the weather.Moment … 🌦", ""
    # Steps that meet every place within an event, at a third of the cost.
    for end in (*range(0, len(BODIES[url]), 3), len(BODIES[url])):
        found = facts_in(url, answered(url, BODIES[url][:end]))
        said = "".join(one.content for one in found.reply if one.kind != "tool_use")
        assert whole.startswith(said)
    assert said == whole


def test_a_request_reads_as_messages_in_both_spellings() -> None:
    """System first; a function's result has the role `tool`, its name, and no wrapping."""
    wanted = [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "Wetter?"),
        ("user", "image", None, "[image/png, 4 base64 characters]"),
        ("model", "tool_use", "weather", '{"city":"Zürich","days":[1,2]}'),
        ("tool", "tool_result", "weather", "Regen"),
    ]
    assert told(request_messages("gemini", json.dumps(ASKED).encode())) == wanted
    snake = json.dumps(ASKED)
    for camel, under in [
        ("systemInstruction", "system_instruction"),
        ("functionCall", "function_call"),
        ("functionResponse", "function_response"),
        ("inlineData", "inline_data"),
        ("mimeType", "mime_type"),
    ]:
        snake = snake.replace(f'"{camel}"', f'"{under}"')
    assert told(request_messages("gemini", snake.encode())) == wanted


@pytest.mark.parametrize(
    ("url", "provider", "model"),
    [
        (VERTEX, "gcp.vertex_ai", "gemini-2.5-flash"),
        (
            "https://aiplatform.googleapis.com/v1/publishers/google/models/g:generateContent",
            "gcp.vertex_ai",
            "g",
        ),
        (
            "http://127.0.0.1:9/v1/projects/p/locations/l/endpoints/7:streamGenerateContent",
            "gcp.vertex_ai",
            "7",
        ),
        ("http://127.0.0.1:9/v1beta/tunedModels/mine%3AgenerateContent", "gcp.gemini", "mine"),
        ("https://gateway.example/google/v1beta/models/g:generateContent/", "gcp.gemini", "g"),
    ],
)
def test_every_address_of_the_format_is_known(url: str, provider: str, model: str) -> None:
    """The Gemini API, Vertex AI with and without a project, endpoints, tuned models and gateways are read."""
    found = facts_in(url, answered(WHOLE))
    assert (found.provider, found.model) == (provider, model)
    assert cost_usd("gcp.vertex_ai", "gemini-2.5-flash", input_tokens=1, output_tokens=1, at=None) is not None


@pytest.mark.parametrize("method", ["countTokens", "embedContent", "batchGenerateContent", "predict"])
def test_what_generates_nothing_is_no_model_call(method: str) -> None:
    """Counts, embeddings and batches have no facts and get no text."""
    url = f"{BASE}:{method}"
    assert facts("POST", url, request=b"{}", response=b"{}", content_type=None) is None
    with pytest.raises(UsageError, match="is no model call"):
        encode_reply(asked(url), None, text="x")


def test_a_blocked_prompt_and_errors_say_why() -> None:
    """A prompt that was blocked ends for its reason; an error has its status, also in mid-stream."""
    blocked = facts_in(
        WHOLE,
        answered(
            WHOLE, b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":5}}'
        ),
    )
    assert (blocked.finish_reason, blocked.reply, blocked.output_tokens) == ("SAFETY", (), 0)
    broken = [CHUNKS[2], {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}]
    for url, body in [(STREAM, sse(broken)), (ARRAY, array(broken))]:
        found = facts_in(url, answered(url, body))
        assert (found.error_type, found.text, found.finish_reason) == ("UNAVAILABLE", "Moment ", None)
    assert facts_in(ARRAY, answered(ARRAY, array(broken[1:]))).error_type == "UNAVAILABLE"


def test_arguments_that_arrive_in_pieces_are_put_together() -> None:
    """A call whose arguments Vertex AI streams reads whole, and is replaced whole."""
    pieces = [
        chunk({"functionCall": {"name": "weather", "willContinue": True}}),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.city", "stringValue": "Zü", "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
        chunk(
            {
                "functionCall": {
                    "partialArgs": [
                        {"jsonPath": "$.city", "stringValue": "rich"},
                        {"jsonPath": "$.days[1].n", "numberValue": 2},
                    ],
                    "willContinue": True,
                }
            }
        ),
        chunk({"functionCall": {}}, finish="STOP", usageMetadata=USAGE),
    ]
    (call,) = facts_in(STREAM, answered(STREAM, sse(pieces))).reply
    assert (call.name, json.loads(call.content)) == ("weather", {"city": "Zürich", "days": [None, {"n": 2}]})
    edited = encode_reply(asked(STREAM), answered(STREAM, sse(pieces)), tool_input={"city": "Oslo"})
    assert told(facts_in(STREAM, edited).reply) == [("model", "tool_use", "weather", '{"city":"Oslo"}')]


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PARTS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"text": TEXT}, optional={"thought": st.just(True)}),
        st.builds(
            lambda name, args: {"functionCall": {"name": name, "args": args}},
            TEXT,
            st.dictionaries(TEXT, VALUES, max_size=3),
        ),
    ),
    min_size=1,
    max_size=4,
)


@each
@settings(max_examples=15, deadline=None)
@given(text=TEXT)
def test_any_text_is_read_back(url: str, text: str) -> None:
    """Whatever the text, our reader finds it in the encoded reply, with or without a recorded one."""
    for recorded in (None, answered(url)):
        response = encode_reply(asked(url), recorded, text=text)
        found = facts_in(url, response)
        assert (found.text, found.finish_reason) == (text, "STOP")
        assert sum(response.chunk_sizes) == len(response.body)


@each
@settings(max_examples=15, deadline=None)
@given(given_input=st.dictionaries(TEXT, VALUES, max_size=3))
def test_any_tool_input_is_read_back(url: str, given_input: dict[str, Any]) -> None:
    """The chosen call has the new input, and everything else that was said stays."""
    response = encode_reply(asked(url), answered(url), tool_input=given_input, tool="weather")
    found = facts_in(url, response)
    call = found.reply[2]
    assert json.loads(call.content) == given_input
    assert told(found.reply[:2]) == READ[:2]
    assert told(found.reply[3:]) == READ[3:]
    assert b"c2lnbmF0dXJl" in response.body


@each
@settings(max_examples=15, deadline=None)
@given(parts=PARTS)
def test_a_whole_reply_comes_as_asked(url: str, parts: list[dict[str, Any]]) -> None:
    """A reply given as JSON says the same when it is streamed; pieces of one text run together."""
    whole = {**SAID, "candidates": [{**SAID["candidates"][0], "content": {"role": "model", "parts": parts}}]}
    raw = json.dumps(whole).encode()
    found = facts_in(url, encode_body(asked(url), None, raw))
    reference = facts_in(WHOLE, answered(WHOLE, raw))
    assert found.text == reference.text
    assert [one for one in told(found.reply) if one[1] == "tool_use"] == [
        one for one in told(reference.reply) if one[1] == "tool_use"
    ]
    assert (found.input_tokens, found.output_tokens, found.response_id) == (120, 70, reference.response_id)


@each
def test_usage_moves_by_what_changed(url: str) -> None:
    """A text counts for itself and thinks nothing; an edited call moves the output by its own length."""
    recorded = answered(url)
    found = facts_in(url, encode_reply(asked(url), recorded, text="x" * 4000))
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (120, 1000, 64)
    longer = facts_in(url, encode_reply(asked(url), recorded, tool_input={"city": "y" * 400}))
    assert 90 < (longer.output_tokens or 0) - 70 < 110
    assert longer.response_id != "mQI6aZLzHs3pxs0P1a"
    first = encode_reply(asked(url), recorded, text="a")
    assert encode_reply(asked(url), recorded, text="a") == first


@pytest.mark.parametrize(
    ("status", "sent", "name"),
    [(429, 429, "RESOURCE_EXHAUSTED"), (500, 500, "INTERNAL"), (529, 503, "UNAVAILABLE")],
)
def test_errors_are_google_s(status: int, sent: int, name: str) -> None:
    """An error has Google's body and status: where others say 529 this API says 503."""
    response = encode_error(asked(STREAM), status)
    assert (response.status, facts_in(STREAM, response).error_type) == (sent, name)
    assert json.loads(response.body)["error"]["code"] == sent
    with pytest.raises(UsageError, match="calls no tool"):
        encode_reply(asked(STREAM), response, tool_input={})


def test_bodies_that_do_not_fit_are_refused() -> None:
    """Events for who asked for JSON, an error, another format's reply and broken JSON are no replies."""
    for body, why in [
        (BODIES[STREAM], "asked for JSON"),
        (b'{"error": {"code": 400}}', "no reply in this provider's format"),
        (b'{"choices": []}', "no reply in this provider's format"),
        (b'{"candidates": [', "not valid JSON"),
    ]:
        with pytest.raises(UsageError, match=why):
            encode_body(asked(WHOLE), None, body)
    assert facts_in(STREAM, encode_body(asked(STREAM), None, BODIES[STREAM])).text == "Moment … 🌦"


@pytest.mark.parametrize("member", ["systemInstruction", "system_instruction", None])
def test_the_system_prompt_has_its_place(member: str | None) -> None:
    """A new system prompt replaces the parts of the old one in its spelling, or is added."""
    body = {key: value for key, value in ASKED.items() if key != "systemInstruction"}
    if member is not None:
        body[member] = ASKED["systemInstruction"]
    request = asked(WHOLE, body)
    edit = system_edit(request, "Rhyme.")
    edited = json.loads(apply_edits(request.body, [edit]))
    assert edited[member or "systemInstruction"]["parts"] == [{"text": "Rhyme."}]
    assert len(edited) == len(body) + (member is None)


def test_tool_results_are_found() -> None:
    """A function's response is known by its call's id, and in the last turn by its name."""
    (found,) = tool_results(asked(WHOLE))
    assert (found.name, found.call_id, found.saying({}, "{}")) == ("weather", "c8d1", "{}")
    edited = json.loads(apply_edits(asked(WHOLE).body, [(found.path, "Sonne")]))
    assert edited["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": "Sonne"}
    answers = [
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": one}}]}
        for one in ({"a": 1}, {"error": "no"})
    ]
    first, last = tool_results(asked(WHOLE, {"contents": answers}))
    assert (first.call_id, last.call_id) == (None, "f")
    assert [first.saying(value, "said") for value in ({"b": 2}, 3)] == [{"b": 2}, {"result": 3}]
    assert last.undone == (("contents[1].parts[0].functionResponse.response.error", None),)


def tape() -> Tape:
    """A run of one step."""
    exchange = Exchange(
        trace_id="a" * 32,
        span_id="b" * 16,
        parent_span_id=None,
        process_id="1-a",
        seq=0,
        started_ns=1,
        ended_ns=2,
        request=asked(WHOLE),
        response=answered(WHOLE),
        outcome="complete",
    )
    return Tape(run_id="a" * 32, exchanges=(exchange,), start=HowStarted(command=("python", "a.py")))


@pytest.mark.parametrize("name", changes.FAULT_CLASSES)
def test_every_fault_of_blame_fits_a_step(name: str) -> None:
    """Each fault class changes what it is named for in a Gemini step."""
    run = tape()
    fits, why = changes.bound(
        changes.fault(name),
        run,
    )
    assert list(fits) == [0], why
    made = fits[0]
    if name == "poisoned_argument":
        assert made.response is not None
        assert "POISONED-Zürich" in facts_in(WHOLE, made.response).reply[2].content
        return
    body = json.loads(apply_edits(run.exchanges[0].request.body, made.edits))
    messages = told(request_messages("gemini", json.dumps(body).encode()))
    if name == "wrong_system_prompt":
        assert messages[0][3].startswith("You are a poet")
    elif name == "dropped_message":
        assert [one[1] for one in messages] == ["text", "text", "image"]
    else:
        assert messages[-1][:3] == ("tool", "tool_result", "weather")
        assert "Regen" not in messages[-1][3]


def test_spans_of_others_read_as_gemini_s_calls() -> None:
    """A span of another instrumentation with Gemini's messages becomes a call in Gemini's format."""
    parts = [{"type": "tool_call", "id": "1", "name": "weather", "arguments": {"city": "Lima"}}]
    attributes = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": "gemini-2.5-flash",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
        "gen_ai.input.messages": json.dumps(
            [
                {"role": "user", "parts": [{"type": "text", "content": "Wetter?"}]},
                {"role": "assistant", "parts": parts},
                {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "Regen"}]},
            ]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": "Regen."}], "finish_reason": "stop"}]
        ),
    }
    found = conversation(attributes, "b" * 16)
    assert found is not None
    read = facts("POST", found.url, request=found.request, response=found.response, content_type=None)
    assert read is not None
    assert (read.provider, read.model, read.text, read.input_tokens) == (
        "gcp.gemini",
        "gemini-2.5-flash",
        "Regen.",
        7,
    )
    assert told(request_messages(read.form, found.request)) == [
        ("system", "text", None, "Be brief."),
        ("user", "text", None, "Wetter?"),
        ("model", "tool_use", "weather", '{"city":"Lima"}'),
        ("tool", "tool_result", "weather", "Regen"),
    ]


MEMBERS = [
    *("contents", "parts", "role", "text", "thought", "functionCall", "functionResponse", "args", "response"),
    *("candidates", "content", "index", "finishReason", "usageMetadata", "promptTokenCount", "error"),
    *("systemInstruction", "inlineData", "partialArgs", "jsonPath", "willContinue"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_no_json_of_any_shape_raises(value: object) -> None:
    """Whatever a body holds, it is read into something or nothing."""
    raw = json.dumps(value).encode()
    request_messages("gemini", raw)
    for url, body in [(WHOLE, raw), (STREAM, b"data: " + raw + b"\n\n"), (ARRAY, b"[" + raw + b"]")]:
        facts("POST", url, request=raw, response=body, content_type=None)
    tool_results(Request(method="POST", url=WHOLE, body=raw))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("url", [WHOLE, STREAM], ids=["whole", "events"])
def test_the_sdk_reads_what_is_written(url: str) -> None:
    """google-genai gets text, calls, usage and its own errors from encoded interventions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed")

    def ask(response: Response) -> list[Any]:
        def handle(request: httpx2.Request) -> httpx2.Response:
            assert str(request.url).replace("/v1/", "/v1beta/") == url
            return httpx2.Response(response.status, headers=list(response.headers), content=response.body)

        options = {"httpx_client": httpx2.Client(transport=httpx2.MockTransport(handle))}
        with genai.Client(api_key="none", http_options=options) as client:
            models, asked = client.models, {"model": "gemini-2.5-flash", "contents": "Wetter?"}
            if url == STREAM:
                return list(models.generate_content_stream(**asked))
            return [models.generate_content(**asked)]

    text = "Flug TK-12 ist frei ✈, Sitz 14A. " * 4
    chunks = ask(encode_reply(asked(url), answered(url), text=text))
    assert "".join(one.text for one in chunks) == text
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    assert chunks[-1].usage_metadata.prompt_token_count == 120
    chunks = ask(encode_reply(asked(url), answered(url), tool_input={"city": "東京"}))
    calls = [call for one in chunks for call in one.function_calls or ()]
    assert [(call.name, call.args) for call in calls] == [("weather", {"city": "東京"}), ("note", {"x": 1})]
    for status, sent in ((429, 429), (500, 500), (529, 503)):
        with pytest.raises(genai.errors.APIError) as caught:
            ask(encode_error(replace(asked(url)), status))
        assert caught.value.code == sent
        assert caught.value.status
