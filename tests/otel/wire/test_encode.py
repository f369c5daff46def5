"""Encoded interventions are read by the unmodified SDKs like live answers, in every wire form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracefork_backend.simulate import Call, ModelServer, Reply, ToolUse, Usage

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply
from tracefork_otel.wire.sse import sse_events

SAID = "Flug TK-12 ist frei ✈, Sitz 14A. " * 4
SEARCH = {"city": "Zürich", "days": [1, 2], "deep": {"unit": "°C", "none": None}}
NEW_INPUT = {"city": "東京", "nights": 3, "flex": True, "note": 'a "quoted" \\ line\nbreak'}
USAGE = Usage(input_tokens=900, output_tokens=70, cached_tokens=100)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
MESSAGES: Any = [{"role": "user", "content": "Zürich, bitte"}]


def live(call: Call) -> Reply:
    """Thinks and calls two tools; or what the last user message says it should."""
    if call.prompt == "say":
        return Reply(text=SAID, usage=USAGE)
    first = NEW_INPUT if call.prompt == "edited" else SEARCH
    tools = (ToolUse("search", first, "call_one"), ToolUse("note", {"x": 1}, "call_two"))
    text = None if call.operation == "chat" else "Moment."
    return Reply(thinking="Hm, two calls." if call.provider == "anthropic" else None, text=text, tools=tools)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """One model server for all tests of this file."""
    with ModelServer(live) as running:
        yield running


class Recorder(httpx2.HTTPTransport):
    """A transport that keeps each exchange as the store would."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Request, Response]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """The response, read and kept before it is handed on."""
        answer = super().handle_request(request)
        chunks = tuple(answer.stream)  # type: ignore[arg-type]
        headers = tuple((k.decode(), v.decode()) for k, v in answer.headers.raw)
        asked = Request(
            method=request.method,
            url=str(request.url),
            headers=tuple((k.decode(), v.decode()) for k, v in request.headers.raw),
            body=request.read(),
        )
        kept = Response(
            status=answer.status_code,
            headers=headers,
            body=b"".join(chunks),
            chunk_sizes=tuple(map(len, chunks)),
        )
        self.kept.append((asked, kept))
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=Chunks(chunks))


class Chunks(httpx2.SyncByteStream):
    """A body in given cuts."""

    def __init__(self, chunks: tuple[bytes, ...]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


def playing(response: Response) -> httpx2.Client:
    """A client that gets this response, in its cuts, for whatever it asks."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            response.status, headers=list(response.headers), stream=Chunks(response.chunks())
        )

    return httpx2.Client(transport=httpx2.MockTransport(handle))


@dataclass(frozen=True)
class Api:
    """One wire format: how its SDK is called, and what of its answer is compared."""

    name: str
    ask: Callable[[str, httpx2.Client, str, bool], Any]
    said: Callable[[Any], tuple[str, list[tuple[str, str, Any]], str | None]]
    """The text, the tool calls as (id, name, input), and how the answer ended."""
    usage: Callable[[Any], tuple[int, int]]


def ask_anthropic(url: str, client: httpx2.Client, prompt: str, streamed: bool) -> Any:
    """The message, by `create` or by the stream helper."""
    sdk = anthropic.Anthropic(base_url=url, api_key="none", http_client=client, max_retries=0)
    request: Any = {
        "model": "claude-sonnet-5",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": prompt}],
    }
    request["tools"] = [{"name": "search", "input_schema": SCHEMA}]
    if not streamed:
        return sdk.messages.create(**request)
    with sdk.messages.stream(**request) as stream:
        texts = "".join(stream.text_stream)
        message = stream.get_final_message()
        assert texts == "".join(b.text for b in message.content if b.type == "text")
        return message


def anthropic_said(message: Any) -> tuple[str, list[tuple[str, str, Any]], str | None]:
    """What a message says."""
    text = "".join(b.text for b in message.content if b.type == "text")
    calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    return text, calls, message.stop_reason


def anthropic_usage(message: Any) -> tuple[int, int]:
    """All input tokens and the output tokens."""
    return message.usage.input_tokens + message.usage.cache_read_input_tokens, message.usage.output_tokens


def ask_chat(url: str, client: httpx2.Client, prompt: str, streamed: bool) -> Any:
    """The completion, by `create` or by the stream helper."""
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=client, max_retries=0)
    request: Any = {"model": "gpt-5", "messages": [{"role": "user", "content": prompt}]}
    request["tools"] = [{"type": "function", "function": {"name": "search", "parameters": SCHEMA}}]
    if not streamed:
        return sdk.chat.completions.create(**request)
    with sdk.chat.completions.stream(**request, stream_options={"include_usage": True}) as stream:
        return stream.get_final_completion()


def chat_said(completion: Any) -> tuple[str, list[tuple[str, str, Any]], str | None]:
    """What a completion says."""
    (choice,) = completion.choices
    calls = [
        (c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or []
    ]
    return choice.message.content or "", calls, choice.finish_reason


def chat_usage(completion: Any) -> tuple[int, int]:
    """All input tokens and the output tokens."""
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return usage.prompt_tokens, usage.completion_tokens


def ask_responses(url: str, client: httpx2.Client, prompt: str, streamed: bool) -> Any:
    """The response, by `create` or by the stream helper."""
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=client, max_retries=0)
    request: Any = {"model": "gpt-5", "input": [{"role": "user", "content": prompt}]}
    request["tools"] = [{"type": "function", "name": "search", "parameters": SCHEMA, "strict": False}]
    if not streamed:
        return sdk.responses.create(**request)
    with sdk.responses.stream(**request) as stream:
        return stream.get_final_response()


def responses_said(response: Any) -> tuple[str, list[tuple[str, str, Any]], str | None]:
    """What a response says."""
    calls = [
        (item.call_id, item.name, json.loads(item.arguments))
        for item in response.output
        if item.type == "function_call"
    ]
    return response.output_text, calls, response.status


def responses_usage(response: Any) -> tuple[int, int]:
    """All input tokens and the output tokens."""
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    return usage.input_tokens, usage.output_tokens


APIS = [
    Api("anthropic", ask_anthropic, anthropic_said, anthropic_usage),
    Api("chat", ask_chat, chat_said, chat_usage),
    Api("responses", ask_responses, responses_said, responses_usage),
]
EACH = [
    pytest.param(api, streamed, id=f"{api.name}-{'sse' if streamed else 'json'}")
    for api in APIS
    for streamed in (False, True)
]
each = pytest.mark.parametrize(("api", "streamed"), EACH)


def recorded(server: ModelServer, api: Api, streamed: bool, prompt: str) -> tuple[Any, Request, Response]:
    """A live answer as the SDK gives it, and its exchange as recorded."""
    transport = Recorder()
    answer = api.ask(server.url, httpx2.Client(transport=transport), prompt, streamed)
    ((asked, kept),) = transport.kept
    return answer, asked, kept


def played(server: ModelServer, api: Api, streamed: bool, response: Response) -> Any:
    """What the SDK makes of a response."""
    return api.ask(server.url, playing(response), "whatever", streamed)


def facts_in(asked: Request, response: Response) -> Facts:
    """What our own reader makes of it."""
    found = facts(
        asked.method, asked.url, request=asked.body, response=response.body,
        content_type=response.header("content-type"),
    )  # fmt: skip
    assert found is not None
    return found


def shape(answer: Any) -> Any:
    """An SDK object without what may differ between two live answers: ids, dates, token counts."""
    loose = ("id", "created", "created_at", "usage", "signature", "_request_id")
    # What only the stream helpers add.
    loose += ("index", "parsed", "parsed_arguments", "output_parsed")

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: item for key, item in value.items() if key not in loose and item not in (None, [])}
            return {key: clean(item) for key, item in kept.items()}
        return [clean(item) for item in value] if isinstance(value, list) else value

    return clean(answer.model_dump(mode="json"))


def kinds(response: Response) -> list[str]:
    """The sequence of event types, repeats counted once, `ping` left out."""
    found: list[str] = []
    for name, data in sse_events(response.body):
        kind = name or ("[DONE]" if data == b"[DONE]" else "chunk")
        if kind != "ping" and found[-1:] != [kind]:
            found.append(kind)
    return found


@each
def test_a_text_is_read_like_a_live_answer(server: ModelServer, api: Api, streamed: bool) -> None:
    """In place of a tool call, the SDK gets the object that a live answer with that text gives."""
    _, asked, kept = recorded(server, api, streamed, "go")
    reference, _, live_kept = recorded(server, api, streamed, "say")
    response = encode_reply(asked, kept, text=SAID)
    answer = played(server, api, streamed, response)
    assert shape(answer) == shape(reference)
    text, calls, ended = api.said(answer)
    assert (text, calls) == (SAID, [])
    assert ended in ("end_turn", "stop", "completed")
    assert kinds(response) == kinds(live_kept)
    found = facts_in(asked, response)
    assert (found.text, found.streamed, found.finish_reason) == (SAID, streamed, ended)
    assert found.model == found.response_model == json.loads(asked.body)["model"]
    assert [m.kind for m in found.reply] == ["text"]


@each
def test_a_tool_input_is_read_like_a_live_answer(server: ModelServer, api: Api, streamed: bool) -> None:
    """Only the first call's input differs from the recorded reply; call ids and all other blocks are kept."""
    original, asked, kept = recorded(server, api, streamed, "go")
    reference, _, _ = recorded(server, api, streamed, "edited")
    response = encode_reply(asked, kept, tool_input=NEW_INPUT)
    answer = played(server, api, streamed, response)
    assert shape(answer) == shape(reference)
    text, calls, ended = api.said(answer)
    assert calls == [("call_one", "search", NEW_INPUT), ("call_two", "note", {"x": 1})]
    assert (text, ended) == (api.said(original)[0], api.said(original)[2])
    assert answer.id != original.id
    assert kinds(response) == kinds(kept)
    found = facts_in(asked, response)
    used = [(m.name, json.loads(m.content)) for m in found.reply if m.kind == "tool_use"]
    assert used == [("search", NEW_INPUT), ("note", {"x": 1})]


@each
def test_a_named_tool_is_the_one_that_changes(server: ModelServer, api: Api, streamed: bool) -> None:
    """With a tool's name, that tool's call changes; one that was not called is refused."""
    _, asked, kept = recorded(server, api, streamed, "go")
    response = encode_reply(asked, kept, tool_input={"x": 2}, tool="note")
    calls = api.said(played(server, api, streamed, response))[1]
    assert calls == [("call_one", "search", SEARCH), ("call_two", "note", {"x": 2})]
    with pytest.raises(UsageError, match=r"does not call a tool 'gone'; it calls search, note"):
        encode_reply(asked, kept, tool_input={}, tool="gone")


@each
def test_an_empty_input_is_an_empty_object(server: ModelServer, api: Api, streamed: bool) -> None:
    """A tool input of no members arrives as one."""
    _, asked, kept = recorded(server, api, streamed, "go")
    response = encode_reply(asked, kept, tool_input={})
    assert api.said(played(server, api, streamed, response))[1][0] == ("call_one", "search", {})


@each
def test_usage_is_plausible(server: ModelServer, api: Api, streamed: bool) -> None:
    """Input counts as recorded, output by length; an edited call moves the output by its own length only."""
    original, asked, kept = recorded(server, api, streamed, "go")
    given, spent = api.usage(original)
    answer = played(server, api, streamed, encode_reply(asked, kept, text="x" * 4000))
    assert api.usage(answer) == (given, 1000)
    longer = {"city": "y" * 400}
    answer = played(server, api, streamed, encode_reply(asked, kept, tool_input=longer))
    assert api.usage(answer)[0] == given
    assert 60 < api.usage(answer)[1] - spent < 110
    _, asked, kept = recorded(server, api, streamed, "say")
    answer = played(server, api, streamed, encode_reply(asked, kept, text="no"))
    assert api.usage(answer) == (900, 1)


@each
def test_a_reply_without_a_tool_call_has_no_input(server: ModelServer, api: Api, streamed: bool) -> None:
    """A tool input for a recorded text, a recorded error, or no response at all is refused."""
    _, asked, kept = recorded(server, api, streamed, "say")
    with pytest.raises(UsageError, match="calls no tool"):
        encode_reply(asked, kept, tool_input={})
    with pytest.raises(UsageError, match="calls no tool"):
        encode_reply(asked, encode_error(asked, 500), tool_input={})
    with pytest.raises(UsageError, match="no recorded reply"):
        encode_reply(asked, None, tool_input={})


@each
def test_the_same_intervention_gives_the_same_bytes(server: ModelServer, api: Api, streamed: bool) -> None:
    """Ids follow from request and content: equal for equal, different for another text or another request."""
    _, asked, kept = recorded(server, api, streamed, "go")
    first = encode_reply(asked, kept, text="a")
    assert encode_reply(asked, kept, text="a") == first
    ids = {
        facts_in(asked, response).response_id
        for response in (
            kept,
            first,
            encode_reply(asked, kept, text="b"),
            encode_reply(asked, kept, tool_input={"a": 1}),
            encode_reply(asked, kept, tool_input={"a": 2}),
            encode_reply(replace(asked, body=asked.body.replace(b"go", b"no")), kept, text="a"),
        )
    }
    assert len(ids) == 6
    recorded_id = facts_in(asked, kept).response_id or ""
    assert {(len(one or ""), (one or "")[:4]) for one in ids} == {(len(recorded_id), recorded_id[:4])}


@each
def test_headers_are_the_recorded_ones(server: ModelServer, api: Api, streamed: bool) -> None:
    """The request id and the rest are kept; encoding, length and framing of the recorded body are not."""
    _, asked, kept = recorded(server, api, streamed, "go")
    more = (("content-encoding", "identity"), ("Transfer-Encoding", "chunked"), ("retry-after", "9"))
    kept = replace(kept, headers=kept.headers + more)
    response = encode_reply(asked, kept, text=SAID)
    named = "request-id" if api.name == "anthropic" else "x-request-id"
    assert response.header(named) == kept.header(named)
    assert response.header("content-type") == kept.header("content-type")
    gone = ("content-encoding", "content-length", "transfer-encoding", "retry-after")
    assert not {name.lower() for name, _ in response.headers} & set(gone)
    assert sum(response.chunk_sizes) == len(response.body)
    events = list(sse_events(response.body)) if streamed else [None]
    assert len(response.chunk_sizes) == len(response.chunk_offsets_us) == len(events)
    assert all(chunk.endswith(b"\n\n") for chunk in response.chunks() if streamed)


@each
def test_a_text_needs_no_recorded_reply(server: ModelServer, api: Api, streamed: bool) -> None:
    """Where no response came, or an error, or half a stream, the text is still a whole answer."""
    _, asked, kept = recorded(server, api, streamed, "go")
    cut = replace(kept, body=kept.body[: len(kept.body) // 3], chunk_sizes=())
    named = "request-id" if api.name == "anthropic" else "x-request-id"
    for before in (None, encode_error(asked, 529), cut):
        response = encode_reply(asked, before, text="Da.")
        answer = played(server, api, streamed, response)
        assert api.said(answer)[0] == "Da."
        assert (response.status, response.header("x-should-retry")) == (200, None)
        assert response.header(named)
        given, spent = api.usage(answer)
        assert given > 0
        assert spent == 1


@each
def test_a_whole_reply_given_as_json_comes_as_asked(server: ModelServer, api: Api, streamed: bool) -> None:
    """A reply in JSON is streamed to an agent that asked for a stream, with the same blocks and calls."""
    _, asked, kept = recorded(server, api, streamed, "go")
    reference, _, whole = recorded(server, api, False, "edited")
    response = encode_body(asked, kept, whole.body)
    answer = played(server, api, streamed, response)
    assert shape(answer) == shape(reference)
    assert answer.id == reference.id
    assert api.usage(answer) == api.usage(reference)
    if not streamed:
        assert response.body == whole.body


@each
def test_bodies_that_the_sdk_could_not_read_are_refused(
    server: ModelServer, api: Api, streamed: bool
) -> None:
    """Invalid JSON, another format's reply, an error body, and events for an agent that asked for JSON."""
    _, asked, kept = recorded(server, api, streamed, "go")
    with pytest.raises(UsageError, match="not valid JSON"):
        encode_body(asked, kept, b'{"content": [')
    for wrong in (b'{"foo": 1}', b"[]", encode_error(asked, 429).body):
        with pytest.raises(UsageError, match="no reply in this provider's format"):
            encode_body(asked, kept, wrong)
    _, _, events = recorded(server, api, True, "say")
    if streamed:
        same = encode_body(asked, kept, events.body)
        assert same.body == events.body
        assert len(same.chunk_sizes) == len(list(sse_events(events.body)))
        assert api.said(played(server, api, True, same))[0] == SAID
        with pytest.raises(UsageError, match="none that begin"):
            encode_body(asked, kept, b"data: {}\n\n")
    else:
        with pytest.raises(UsageError, match="asked for JSON"):
            encode_body(asked, kept, events.body)


@pytest.mark.parametrize(
    ("status", "ours", "theirs"),
    [
        (429, anthropic.RateLimitError, openai.RateLimitError),
        (500, anthropic.InternalServerError, openai.InternalServerError),
        (529, anthropic.APIStatusError, openai.InternalServerError),
    ],
)
@each
def test_errors_raise_the_sdks_own(
    server: ModelServer, api: Api, streamed: bool, status: int, ours: type[Exception], theirs: type[Exception]
) -> None:
    """Each fault's status raises the SDK's class for it, with the provider's type and message."""
    _, asked, _ = recorded(server, api, streamed, "go")
    response = encode_error(asked, status)
    with pytest.raises(ours if api.name == "anthropic" else theirs) as caught:
        played(server, api, streamed, response)
    error: Any = caught.value
    assert error.status_code == status
    assert error.request_id
    assert error.body
    assert response.header("retry-after") == ("1" if status == 429 else None)
    expected = {429: "rate_limit_error", 500: "api_error", 529: "overloaded_error"}
    if api.name == "anthropic":
        assert facts_in(asked, response).error_type == expected[status]
    else:
        assert facts_in(asked, response).error_type == ("requests" if status == 429 else "server_error")


def request_of(api: Api, streamed: bool) -> Request:
    """A small request in that format."""
    path = {"anthropic": "messages", "chat": "chat/completions", "responses": "responses"}[api.name]
    body = {"model": "m", "stream": streamed, "messages": MESSAGES, "input": "hi"}
    return Request(method="POST", url=f"https://gateway.test/v1/{path}", body=json.dumps(body).encode())


@each
@settings(max_examples=40, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_is_read_back(api: Api, streamed: bool, text: str) -> None:
    """Whatever Unicode the text holds, our reader finds it in the encoded reply."""
    asked = request_of(api, streamed)
    assert facts_in(asked, encode_reply(asked, None, text=text)).text == text


@each
def test_half_a_character_is_refused(api: Api, streamed: bool) -> None:
    """Text that UTF-8 cannot hold is a mistake said before anything runs."""
    with pytest.raises(UsageError, match="not valid Unicode at character 1"):
        encode_reply(request_of(api, streamed), None, text="a\ud800")


def test_a_request_that_is_no_model_call_gets_no_text() -> None:
    """A text for a model listing, a token count or a search is refused, naming method and URL."""
    for method, url, body in [
        ("GET", "https://api.anthropic.com/v1/models", b""),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens", b'{"model":"m"}'),
        ("POST", "https://search.example/v1/responses", b"{}"),
        ("POST", "https://api.anthropic.com/v1/messages", b"not json"),
    ]:
        with pytest.raises(UsageError, match="is no model call") as caught:
            encode_reply(Request(method=method, url=url, body=body), None, text="x")
        assert f"{method} {url}" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"text": "a", "tool_input": {}}])
def test_exactly_one_change(given: dict[str, Any]) -> None:
    """Neither or both of text and tool input is a mistake."""
    with pytest.raises(UsageError, match="either"):
        encode_reply(request_of(APIS[0], False), None, **given)


@each
def test_the_recorded_input_gives_the_recorded_call(server: ModelServer, api: Api, streamed: bool) -> None:
    """A tool input equal to the recorded one leaves every byte that an agent sends back as it was."""
    original, asked, kept = recorded(server, api, streamed, "go")
    answer = played(server, api, streamed, encode_reply(asked, kept, tool_input=SEARCH))
    assert shape(answer) == shape(original)
    assert api.usage(answer) == api.usage(original)
