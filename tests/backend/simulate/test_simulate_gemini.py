"""The model server speaks Gemini: answers, streams, errors, ends that come too early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tracefork_backend.simulate import Call, ModelServer, Reply, ToolUse, Usage

from tracefork_otel.wire.facts import facts
from tracefork_otel.wire.messages import Facts

MODEL = "/v1beta/models/gemini-3-flash"
PROJECT = "/v1beta1/projects/p/locations/l/publishers/google/models/gemini-3-flash"
ASKS: dict[str, Any] = {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}
SEEN: list[Call] = []


def weather(call: Call) -> Reply:
    """What the prompt asks for: a fault, or a thought and a call, then what the function returned."""
    SEEN.append(call)
    faults: dict[str, Reply] = {
        "busy": Reply(fault="429"),
        "overloaded": Reply(fault="529"),
        "gone": Reply(status=404),
        "breaks": Reply(text="a" * 64, fault="529", cut_after_events=2),
        "leaves": Reply(text="a" * 64, fault="disconnect", cut_after_events=2),
    }
    if call.prompt in faults:
        return faults[call.prompt]
    if call.tool_results:
        return Reply(text=f"It says: {call.tool_results[0][1]}")
    usage = Usage(input_tokens=50, output_tokens=9, cached_tokens=20)
    return Reply(
        thinking="One call.", text="Moment.", tools=(ToolUse("weather", {"city": "Zürich"}),), usage=usage
    )


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """A client of a model server."""
    with ModelServer(weather, seed=3) as server, httpx2.Client(base_url=server.url) as made:
        yield made


def asked(prompt: str, *more: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A request's body."""
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}, *more], **members}


def facts_in(response: httpx2.Response) -> Facts:
    """What our reader makes of an answer."""
    found = facts(
        "POST",
        str(response.request.url),
        request=response.request.content,
        response=response.content,
        content_type=response.headers["content-type"],
    )
    assert found is not None
    return found


@pytest.mark.parametrize("base", [MODEL, PROJECT])
@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent?alt=sse"])
def test_a_function_is_called_and_answered(client: httpx2.Client, base: str, method: str) -> None:
    """Thought, text, call and usage come in both methods' forms; the response of the function is read."""
    members = {
        "system_instruction": {"parts": [{"text": "Be brief."}]},
        "tools": [{"functionDeclarations": [{"name": "weather"}]}],
    }
    first = client.post(f"{base}:{method}", json=asked("Wetter?", **members))
    found = facts_in(first)
    assert [(one.kind, one.content) for one in found.reply] == [
        ("thinking", "One call."),
        ("text", "Moment."),
        ("tool_use", '{"city":"Zürich"}'),
    ]
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (50, 9, 20)
    assert (found.finish_reason, found.streamed) == ("STOP", "stream" in method)
    call = SEEN[-1]
    assert (call.provider, call.operation, call.model, call.stream) == (
        "gemini", "generate_content", "gemini-3-flash", "stream" in method
    )  # fmt: skip
    assert (call.system, call.tools, call.prompt) == ("Be brief.", ("weather",), "Wetter?")
    turns = [
        {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"name": "weather", "response": {"result": "Regen"}}}],
        },
    ]
    assert facts_in(client.post(f"{base}:{method}", json=asked("Wetter?", *turns))).text == "It says: Regen"


@pytest.mark.parametrize(
    ("prompt", "status", "name"),
    [("busy", 429, "RESOURCE_EXHAUSTED"), ("overloaded", 503, "UNAVAILABLE"), ("gone", 404, "NOT_FOUND")],
)
def test_errors_have_google_s_shape(client: httpx2.Client, prompt: str, status: int, name: str) -> None:
    """Each error has its status in the head and in the body, for a stream too."""
    for method in ("generateContent", "streamGenerateContent?alt=sse"):
        response = client.post(f"{MODEL}:{method}", json=asked(prompt))
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["status"]) == (status, status, name)
        assert error["message"]


def test_a_stream_can_break(client: httpx2.Client) -> None:
    """An error in mid-stream is a chunk; a connection that ends leaves what came before."""
    url = f"{MODEL}:streamGenerateContent?alt=sse"
    found = facts_in(client.post(url, json=asked("breaks")))
    assert (found.text, found.error_type, found.finish_reason) == ("a" * 32, "UNAVAILABLE", None)
    got: list[bytes] = []
    with (
        client.stream("POST", url, json=asked("leaves")) as stream,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        got.extend(stream.iter_bytes())
    assert b"".join(got).count(b"data: ") == 2


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({}, "contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
        ({"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
        (asked("x", ASKS, {"parts": [{"text": "y"}]}), "function response parts"),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused_as_the_provider_does(
    client: httpx2.Client, body: dict[str, Any], why: str
) -> None:
    """What Gemini would reject is rejected with its status and a message that says why."""
    response = client.post(f"{MODEL}:generateContent", content=json.dumps(body))
    assert (response.status_code, response.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert why in response.json()["error"]["message"]


def test_other_methods_are_not_found(client: httpx2.Client) -> None:
    """A method that generates nothing has no route, and says so in the provider's words."""
    response = client.post(f"{MODEL}:embedContent", json=asked("x"))
    assert (response.status_code, response.json()["error"]["status"]) == (404, "NOT_FOUND")
