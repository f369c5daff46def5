"""What goes wrong on purpose reaches the SDKs as the real thing would."""

from __future__ import annotations

import time
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from tracefork_backend.simulate import Call, ModelServer, Reply
from tracefork_backend.simulate.behaviours import fail_first

ASK: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "hi"}],
}
CHAT: dict[str, Any] = {"model": "gpt-5-mini", "messages": ASK["messages"]}
LONG = Reply(text="one two three four five six seven eight nine ten")


def fine(_: Call) -> Reply:
    """Answers with a long text."""
    return LONG


@pytest.mark.parametrize(
    ("fault", "of_anthropic", "kind", "of_openai"),
    [
        ("429", anthropic.RateLimitError, "rate_limit_error", openai.RateLimitError),
        ("500", anthropic.InternalServerError, "api_error", openai.InternalServerError),
        ("529", anthropic.APIStatusError, "overloaded_error", openai.InternalServerError),
    ],
)
def test_status_faults_raise_the_sdks_own_errors(
    fault: Any, of_anthropic: type[Exception], kind: str, of_openai: type[Exception]
) -> None:
    """A 429, 500 or 529 raises the error class of either SDK, with the provider's body."""
    with (
        ModelServer(lambda _: Reply(fault=fault, retry_after=2)) as server,
        Anthropic(base_url=server.url, api_key="none", max_retries=0) as client,
        OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as other,
    ):
        with pytest.raises(of_anthropic) as caught:
            client.messages.create(**ASK)
        assert caught.value.body["error"]["type"] == kind  # type: ignore[attr-defined]
        assert caught.value.response.headers["retry-after"] == "2"  # type: ignore[attr-defined]
        with pytest.raises(of_anthropic), client.messages.stream(**ASK):
            pass
        with pytest.raises(of_openai) as refused:
            other.chat.completions.create(**CHAT)
        assert refused.value.status_code == int(fault)  # type: ignore[attr-defined]
        with pytest.raises(of_openai):
            other.responses.create(model="gpt-5-mini", input="x", stream=True)


def test_retries_honour_retry_after() -> None:
    """Requests that fail first are retried by the SDK after as long as retry-after says."""
    behaviour = fail_first(2, fine, fault="429", retry_after=0.2)
    with ModelServer(behaviour) as server, Anthropic(base_url=server.url, api_key="none") as client:
        began = time.monotonic()
        message = client.messages.create(**ASK)
        took = time.monotonic() - began
    assert message.content[0].text == LONG.text
    assert [request.header("x-stainless-retry-count") for request in server.requests] == ["0", "1", "2"]
    assert took >= 0.4


@pytest.mark.parametrize("status", [401, 404, 413])
def test_other_statuses_have_the_providers_body(status: int) -> None:
    """Any status of 400 and above answers with an error body that carries the reply's text."""
    with (
        ModelServer(lambda _: Reply(status=status, text="no such luck")) as server,
        Anthropic(base_url=server.url, api_key="none") as client,
        pytest.raises(anthropic.APIStatusError, match="no such luck") as caught,
    ):
        client.messages.create(**ASK)
    assert caught.value.status_code == status
    assert len(server.requests) == 1


def test_disconnect_in_a_stream_comes_after_the_events_before_it() -> None:
    """A cut stream gives the client exactly the events before the cut, then a protocol error."""
    with (
        ModelServer(lambda _: Reply(text=LONG.text, fault="disconnect", cut_after_events=5)) as server,
        httpx2.Client() as client,
        client.stream("POST", f"{server.url}/v1/messages", json={**ASK, "stream": True}) as response,
    ):
        chunks: list[bytes] = []
        with pytest.raises(httpx2.RemoteProtocolError, match="incomplete chunked read"):
            chunks.extend(response.iter_raw())
    got = b"".join(chunks)
    assert got.count(b"\n\n") == 5
    assert got.endswith(b"\n\n")


def test_disconnect_through_the_sdks() -> None:
    """A cut stream raises in both SDKs after the deltas that came, and a cut JSON answer is retried."""
    with ModelServer(lambda _: Reply(text=LONG.text, fault="disconnect", cut_after_events=5)) as server:
        texts: list[str] = []
        with (
            Anthropic(base_url=server.url, api_key="none") as client,
            client.messages.stream(**ASK) as stream,
            pytest.raises(httpx2.RemoteProtocolError),
        ):
            texts.extend(stream.text_stream)
        assert texts == ["one two three fo", "ur five six seve"]
        with OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as other:
            with pytest.raises(openai.APIConnectionError):
                list(other.chat.completions.create(**CHAT, stream=True))
            with pytest.raises(openai.APIConnectionError):
                other.chat.completions.create(**CHAT)


def test_disconnect_before_the_answer() -> None:
    """A disconnect after no events closes the connection without a byte, and the server goes on."""
    once = fail_first(1, fine, fault="disconnect")

    async def silent(call: Call) -> Reply:
        if call.index == 0:
            return Reply(text="x", fault="disconnect", cut_after_events=0)
        return await once(call)  # type: ignore[misc]

    with ModelServer(silent) as server, Anthropic(base_url=server.url, api_key="none") as client:
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending a response"):
            httpx2.post(f"{server.url}/v1/messages", json=ASK)
        assert client.messages.create(**ASK).content[0].text == LONG.text


def test_error_event_in_a_stream() -> None:
    """An overload in mid-stream is an error event after the events that came."""
    reply = Reply(text=LONG.text, fault="529", cut_after_events=4)
    with ModelServer(lambda _: reply) as server:
        texts: list[str] = []
        with (
            Anthropic(base_url=server.url, api_key="none") as client,
            client.messages.stream(**ASK) as stream,
            pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        ):
            texts.extend(stream.text_stream)
        assert texts == ["one two three fo"]
        with OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as other:
            with pytest.raises(openai.APIError, match="overloaded"):
                list(other.chat.completions.create(**CHAT, stream=True))
            with pytest.raises(openai.APIError, match="overloaded"):
                list(other.responses.create(model="gpt-5-mini", input="x", stream=True))


def test_slow_streams_hit_the_clients_time_limit() -> None:
    """A slow stream is slower than a short time limit, and whole under a long one."""
    reply = Reply(text="ab", chunk_chars=1, fault="slow", chunk_delay_s=0.1)
    with (
        ModelServer(lambda _: reply) as server,
        Anthropic(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        with (
            pytest.raises((httpx2.ReadTimeout, anthropic.APITimeoutError)),
            client.with_options(timeout=0.04).messages.stream(**ASK) as stream,
        ):
            stream.until_done()
        with client.messages.stream(**ASK) as stream:
            assert stream.get_final_text() == "ab"


def test_a_raising_behaviour_is_told_and_not_retried() -> None:
    """A behaviour's own exception reaches the client as one 500 with its text, and is kept."""

    def broken(_: Call) -> Reply:
        raise KeyError("city")

    with (
        ModelServer(broken) as server,
        Anthropic(base_url=server.url, api_key="none") as client,
        pytest.raises(anthropic.InternalServerError, match="the behaviour raised KeyError: 'city'"),
    ):
        client.messages.create(**ASK)
    assert len(server.requests) == 1
    assert [type(error) for error in server.errors] == [KeyError]


def test_close_cuts_running_answers_off(capfd: pytest.CaptureFixture[str]) -> None:
    """Closing does not wait for a slow answer, its client sees an error, and nothing is logged."""
    with ModelServer(lambda _: Reply(text="x" * 99, chunk_delay_s=30)) as server:
        client = httpx2.Client()
        with client.stream("POST", f"{server.url}/v1/messages", json={**ASK, "stream": True}) as response:
            chunks = response.iter_raw()
            next(chunks)
            began = time.monotonic()
            server.close()
            assert time.monotonic() - began < 25  # the answer would go on for 30 s
            with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
                list(chunks)
        client.close()
    assert capfd.readouterr() == ("", "")
