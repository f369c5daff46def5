"""The legacy Completions form: read as it comes, and written so that the unmodified SDK takes it for live."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from answering import answering, events, read, whole
from conversations import request_messages

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Request, Response
from tracefork_otel.wire import openai_completions
from tracefork_otel.wire.registry import recognise
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply, system_edit, tool_results

URL = "https://api.openai.com/v1/completions"
SAID = "Grüße ✈ aus Zürich, und noch ein paar Wörter mehr."
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def asked(url: str = URL, **members: Any) -> Request:
    """A request of the SDK, its members in the order in which it sends them."""
    body = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello", **members}
    return Request(method="POST", url=url, body=json.dumps(body).encode())


def completion(*texts: str, **members: Any) -> dict[str, Any]:
    """A completion as OpenAI sends it."""
    choices = [
        {"text": text, "index": at, "logprobs": None, "finish_reason": "length"}
        for at, text in enumerate(texts)
    ]
    return {
        "id": "cmpl-9xYzAbCdEfGhIjKlMnOpQrStUvWxY",
        "object": "text_completion",
        "created": 1_750_000_000,
        "model": "gpt-3.5-turbo-instruct:20230824-v2",
        "choices": choices,
        "usage": USAGE,
        **members,
    }


def chunk(text: str, index: int = 0, finish: str | None = None, **members: Any) -> dict[str, Any]:
    """A chunk of a stream."""
    one = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    return {**completion(), "choices": [one], "usage": None, **members}


STREAM = events(
    chunk("Hel"),
    chunk("Sal", 1),
    chunk("lo"),
    chunk("ut", 1),
    chunk("", 0, "stop"),
    chunk("", 1, "length"),
    {**completion(), "choices": [], "usage": USAGE},
)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        (URL, "openai"),
        ("https://api.together.xyz/v1/completions", "together_ai"),
        ("https://x.openai.azure.com/openai/deployments/d/completions?api-version=1", "azure.ai.openai"),
        ("http://127.0.0.1:8080/v1/completions", "openai"),
    ],
)
def test_its_paths(url: str, provider: str) -> None:
    """It is recognised wherever it is spoken, as a text completion."""
    call = recognise("POST", url, asked().body)
    assert call is not None
    assert (call.form, call.provider, call.operation) == ("openai_completions", provider, "text_completion")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/openai/deployments/d/chat/completions", "/v1/fim/completions"]
)
def test_other_completions_are_not_it(path: str) -> None:
    """Chats are another form, and Mistral's `fim` answers like a chat."""
    call = recognise("POST", f"https://x.example{path}", asked().body)
    assert call is None or call.form == "openai_chat"


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("Say hello", [("text", "Say hello")]),
        (["One", "Two"], [("text", "One"), ("text", "Two")]),
        ([1, 2, 3], [("other", "[3 tokens]")]),
        ([[1, 2], [3]], [("other", "[2 tokens]"), ("other", "[1 tokens]")]),
        ([12, "mixed", 13], [("other", "[3 tokens]")]),
        (None, []),
        ({"prompt_string": "x"}, [("other", '{"prompt_string":"x"}')]),
    ],
)
def test_prompts(prompt: Any, told: list[tuple[str, str]]) -> None:
    """Every kind of prompt is a message, and comes back as it was."""
    request = json.loads(asked(prompt=prompt, suffix="the end").body)
    messages = request_messages("openai_completions", json.dumps(request).encode())
    assert [(one.kind, one.content) for one in messages] == [*told, ("other", "the end")]
    again = openai_completions.write_request(openai_completions.read_request(request), request["model"])
    assert openai_completions.read_request(again) == openai_completions.read_request(request)
    if prompt:
        assert again == request


def test_a_whole_completion() -> None:
    """Its choices, usage, model, id and end are read."""
    found = read(asked(n=2), whole(completion("Hello", "Salut")))
    assert (found.text, [one.content for one in found.reply]) == ("Hello", ["Hello", "Salut"])
    assert (found.input_tokens, found.output_tokens, found.finish_reason) == (5, 7, "length")
    assert found.response_model == "gpt-3.5-turbo-instruct:20230824-v2"
    assert found.response_id == "cmpl-9xYzAbCdEfGhIjKlMnOpQrStUvWxY"
    assert not found.streamed


def test_a_stream_of_two_choices() -> None:
    """Each choice's text adds up, and the counts come at the end."""
    request = asked(n=2, stream=True, stream_options={"include_usage": True})
    found = read(request, STREAM)
    assert [one.content for one in found.reply] == ["Hello", "Salut"]
    assert (found.finish_reason, found.input_tokens, found.output_tokens) == ("stop", 5, 7)


def test_an_error_in_a_stream_and_whole() -> None:
    """Both are told by their type; llama.cpp's have a number for a code."""
    failed = {"error": {"code": 500, "message": "slot unavailable", "type": "server_error"}}
    assert read(asked(), whole(failed, 500)).error_type == "server_error"
    found = read(asked(stream=True), events(chunk("He"), failed))
    assert (found.text, found.error_type) == ("He", "server_error")


def test_logprobs_of_a_stream_add_up() -> None:
    """The lists of all chunks are one after the other in the whole."""
    parts = [
        {"tokens": [text], "token_logprobs": [-0.5], "top_logprobs": [{text: -0.5}], "text_offset": [at]}
        for at, text in enumerate(("a", "b"))
    ]
    chunks = [chunk(text, choices=[{"text": text, "index": 0, "logprobs": part, "finish_reason": None}])
              for text, part in zip("ab", parts, strict=True)]  # fmt: skip
    added = openai_completions.assemble(openai_completions.SSE.read(events(*chunks).body))
    assert added["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"a": -0.5}, {"b": -0.5}],
        "text_offset": [0, 1],
    }


WAYS: list[dict[str, Any]] = [
    {},
    {"n": 2},
    {"prompt": ["One", "Two"], "n": 2},
    {"prompt": [1, 2, 3]},
    {"suffix": " and more", "logprobs": 2},
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_sdk_reads_what_is_written(way: dict[str, Any], streamed: bool) -> None:
    """The unmodified SDK gets the text in each choice, and counts where it asked for them."""
    recorded: list[Response] = [STREAM if streamed else whole(completion("Hello"))]
    with answering(lambda *_: recorded[-1]) as server:
        sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        arguments: Any = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello", **way}
        if streamed:
            arguments |= {"stream": True, "stream_options": {"include_usage": True}}
        list(sdk.completions.create(**arguments))
        request = server.requests[0]
        assert request.url.endswith("/v1/completions")
        recorded.append(encode_reply(request, recorded[0], text=SAID))
        answer = sdk.completions.create(**arguments)
        parts = list(answer) if streamed else [answer]
    texts: dict[int, str] = {}
    for part in parts:
        for choice in part.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    wanted = (way.get("n") or 1) * (2 if way.get("prompt") == ["One", "Two"] else 1)
    assert texts == dict.fromkeys(range(wanted), SAID)
    assert parts[-1].usage.prompt_tokens == 5
    assert parts[-1].usage.completion_tokens > 0
    assert {part.object for part in parts} == {"text_completion"}
    assert parts[0].id != completion()["id"]
    found = read(request, recorded[-1])
    assert (found.text, found.streamed) == (SAID, streamed)
    assert found.finish_reason == "stop"
    assert recorded[-1].body == encode_reply(request, recorded[0], text=SAID).body


@pytest.mark.parametrize("text", ["Hi", "Say hello, then"])
def test_an_echo_begins_with_the_prompt(text: str) -> None:
    """A reply to `echo` repeats the prompt before the text, as the API does; never twice."""
    found = read(asked(echo=True), encode_reply(asked(echo=True), None, text=text))
    assert found.text == ("Say helloHi" if text == "Hi" else text)
    request = asked(echo=True, prompt=["One ", [1, 2]])
    assert [one.content for one in read(request, encode_reply(request, None, text="x")).reply] == [
        "One x",
        "x",
    ]


def test_a_given_body_is_streamed_where_a_stream_was_asked_for() -> None:
    """A whole completion becomes chunks, its end and its probabilities kept."""
    probable = {"tokens": ["Hi"], "token_logprobs": [-0.1]}
    given = completion("Hi")
    given["choices"][0]["logprobs"] = probable
    response = encode_body(asked(stream=True), None, json.dumps(given).encode())
    added = openai_completions.assemble(openai_completions.SSE.read(response.body))
    assert added["choices"] == given["choices"]
    assert response.body.endswith(b"data: [DONE]\n\n")
    with pytest.raises(UsageError, match="no reply in this provider's format"):
        encode_body(asked(), None, b'{"choices": [{"message": {}}]}')


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
def test_the_sdk_raises_its_own_errors(status: int, kind: type[openai.APIStatusError]) -> None:
    """A fault is the API's error of that status."""
    with answering(lambda *_: encode_error(asked(), status)) as server:
        sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(kind) as caught:
            sdk.completions.create(model="m", prompt="p")
    assert isinstance(caught.value.body, dict)
    assert caught.value.request_id


def test_there_are_no_tools_and_no_system_prompt() -> None:
    """What the API has no place for is refused, and says what to do."""
    for recorded in (whole(completion("Hello")), STREAM):
        with pytest.raises(UsageError, match="calls no tool, so it has no input to replace: use --text"):
            encode_reply(asked(stream=recorded is STREAM), recorded, tool_input={})
    with pytest.raises(UsageError, match="has no system prompt"):
        system_edit(asked(), "Be brief.")
    assert tool_results(asked()) == []
