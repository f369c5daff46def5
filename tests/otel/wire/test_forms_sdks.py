"""The providers' own SDKs read what we write, and read of the samples what we read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from conversations import (
    WAY,
    answered,
    asked,
    calls,
    dumped,
    read,
    sample,
    ways,
)

from tracefork_otel.exchange import Response
from tracefork_otel.wire.replies import encode_body, encode_error, encode_reply

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
Heard = tuple[str, list[tuple[str, Any]]]
"""What an SDK gives of a reply: its text, and its tool calls as (name, input)."""


def _anthropic(client: httpx2.Client, streamed: bool) -> Heard:
    sdk = anthropic.Anthropic(api_key="none", http_client=client, max_retries=0)
    request: Any = sample("anthropic")["request"]
    if streamed:
        with sdk.messages.stream(**request) as stream:
            text, message = "".join(stream.text_stream), stream.get_final_message()
            assert text == "".join(one.text for one in message.content if one.type == "text")
    else:
        message = sdk.messages.create(**request)
    return (
        "".join(one.text for one in message.content if one.type == "text"),
        [(one.name, one.input) for one in message.content if one.type == "tool_use"],
    )


def _chat(client: httpx2.Client, streamed: bool) -> Heard:
    sdk = openai.OpenAI(api_key="none", http_client=client, max_retries=0)
    request: Any = sample("openai_chat")["request"]
    completion: Any
    if streamed:
        with sdk.chat.completions.stream(**request) as stream:
            completion = stream.get_final_completion()
    else:
        completion = sdk.chat.completions.create(**request)
    said, usage = completion.choices[0].message, completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    made = [(one.function.name, json.loads(one.function.arguments)) for one in said.tool_calls or []]
    return said.content or "", made


def _responses(client: httpx2.Client, streamed: bool) -> Heard:
    sdk = openai.OpenAI(api_key="none", http_client=client, max_retries=0)
    request: Any = sample("openai_responses")["request"]
    response: Any
    if streamed:
        with sdk.responses.stream(**request) as stream:
            response = stream.get_final_response()
    else:
        response = sdk.responses.create(**request)
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    made = [one for one in response.output if one.type == "function_call"]
    return response.output_text, [(one.name, json.loads(one.arguments)) for one in made]


def _gemini(client: httpx2.Client, streamed: bool) -> Heard:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed")
    request = {"model": "gemini-3-flash", "contents": "Wetter?"}
    with genai.Client(api_key="none", http_options={"httpx_client": client}) as sdk:
        if streamed:
            chunks = list(sdk.models.generate_content_stream(**request))
        else:
            chunks = [sdk.models.generate_content(**request)]
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    made = [call for one in chunks for call in one.function_calls or ()]
    return "".join(one.text or "" for one in chunks), [(one.name, one.args) for one in made]


SDKS: dict[str, Callable[[httpx2.Client, bool], Heard]] = {
    "anthropic": _anthropic,
    "openai_chat": _chat,
    "openai_responses": _responses,
    "gemini": _gemini,
}
"""The unmodified SDKs that take a transport of ours; the others are held in their forms' own files."""
# An SDK asks for one of the ways in which its API streams.
each_sdk = pytest.mark.parametrize(WAY, [one for one in ways(names=list(SDKS)) if one.values[1] in (None, 0)])


class Chunks(httpx2.SyncByteStream):
    """A body in given cuts."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


def heard(name: str, at: int | None, made: Response) -> Heard:
    """What the SDK makes of a response, got in its cuts."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(made.status, headers=list(made.headers), stream=Chunks(made.chunks()))
    )
    return SDKS[name](httpx2.Client(transport=transport), at is not None)


@each_sdk
def test_a_reply_is_read_as_the_sdk_reads_it(name: str, at: int | None) -> None:
    """Of the same bytes we read the text and the calls that the provider's own SDK reads."""
    found = read(asked(name, at), answered(name, at))
    assert heard(name, at, answered(name, at)) == (found.text, calls(found))


SPOKEN = "Flug TK-12 ist frei ✈, Sitz 14A. " * 4


@each_sdk
def test_the_sdk_accepts_a_written_text(name: str, at: int | None) -> None:
    """The provider's own SDK reads a text that we wrote, in place of a reply and with none to go by."""
    for recorded in (answered(name, at), None):
        assert heard(name, at, encode_reply(asked(name, at), recorded, text=SPOKEN)) == (SPOKEN, [])


NASTY = {"city": "東京", "nights": 3, "flex": True, "note": 'a "quoted" \\ line\nbreak', "none": None}


@each_sdk
@pytest.mark.parametrize("given_input", [NASTY, {}], ids=["full", "empty"])
def test_the_sdk_accepts_a_written_input(name: str, at: int | None, given_input: dict[str, Any]) -> None:
    """The provider's own SDK reads the new input where the call was, and the text beside it."""
    before = read(asked(name, at), answered(name, at))
    made = encode_reply(asked(name, at), answered(name, at), tool_input=given_input, tool="note")
    wanted = [(named, given_input if named == "note" else value) for named, value in calls(before)]
    assert heard(name, at, made) == (before.text, wanted)


@each_sdk
def test_the_sdk_accepts_a_reply_of_ones_own(name: str, at: int | None) -> None:
    """The provider's own SDK reads a reply that was given as JSON, by the way that it asked for."""
    before = read(asked(name, at), answered(name, at))
    made = encode_body(asked(name, at), None, dumped(sample(name)["reply"]))
    assert heard(name, at, made) == (before.text, calls(before))


@each_sdk
@pytest.mark.parametrize("status", [429, 500, 529])
def test_the_sdk_raises_its_own_error(name: str, at: int | None, status: int) -> None:
    """A fault's status raises the SDK's class for it, with the provider's body and request id."""
    made = encode_error(asked(name, at), status)
    assert made.header("retry-after") == ("1" if status == 429 else None)
    with pytest.raises(Exception, match=str(made.status)) as caught:
        heard(name, at, made)
    error: Any = caught.value
    if name == "gemini":
        assert (error.code, bool(error.status)) == (made.status, True)
        return
    sdk: Any = anthropic if name == "anthropic" else openai
    wanted = {429: sdk.RateLimitError, 500: sdk.InternalServerError}.get(status, sdk.APIStatusError)
    assert isinstance(error, wanted)
    assert error.status_code == made.status == status
    assert error.body
    assert error.request_id
