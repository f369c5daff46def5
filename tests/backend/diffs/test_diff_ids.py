"""Ids that a provider makes, compared by their places: tool calls, messages, responses, signatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import ANTHROPIC, Recorder, trace
from tracefork_backend.diffs.diff import Diff, diff
from tracefork_backend.store import open_store

RESPONSES = "https://api.openai.com/v1/responses"
CHAT = "https://api.openai.com/v1/chat/completions"
SSE = (("content-type", "text/event-stream"),)
Made = Callable[[str], str]
"""An id by what it is of; another run gives others."""


def body(value: object) -> bytes:
    """The value as a body."""
    return json.dumps(value).encode()


def anthropic(recorder: Recorder, run: str, made: Made, *, swapped: bool = False) -> None:
    """Two calls of one tool with a signed thought, and their results, in order or not."""
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": made("signature")},
        *({"type": "tool_use", "id": made(f"toolu {n}"), "name": "look", "input": {}} for n in (1, 2)),
    ]
    asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "go"}]}
    answer = {"id": made("msg"), "role": "assistant", "model": "claude-sonnet-4-5", "content": blocks}
    recorder.exchange(run, body(asked), body({**answer, "usage": {"input_tokens": 1, "output_tokens": 1}}))
    ids = [made("toolu 1"), made("toolu 2")]
    results = [
        {"type": "tool_result", "tool_use_id": one, "content": "seen"}
        for one in (ids[::-1] if swapped else ids)
    ]
    said = [{"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    asked["messages"] += said
    answer["content"] = [{"type": "text", "text": "done"}]
    recorder.exchange(run, body(asked), body({**answer, "id": made("msg 2")}))


def responses(recorder: Recorder, run: str, made: Made) -> None:
    """A response that goes on with a stored one, and is asked for by its id; a reasoning item."""
    items = [
        {"type": "reasoning", "id": made("rs"), "summary": [], "encrypted_content": made("enc")},
        {
            "type": "function_call",
            "id": made("fc"),
            "call_id": made("call"),
            "name": "look",
            "arguments": "{}",
        },
    ]
    answer = {"object": "response", "id": made("resp"), "model": "gpt-5", "status": "completed"}
    recorder.exchange(
        run, body({"model": "gpt-5", "input": "go"}), body({**answer, "output": items}), url=RESPONSES
    )
    recorder.exchange(run, b"", body({**answer, "output": items}), url=f"{RESPONSES}/{made('resp')}/items")
    result = {"type": "function_call_output", "call_id": made("call"), "output": "seen"}
    asked = {"model": "gpt-5", "previous_response_id": made("resp"), "input": [result]}
    recorder.exchange(run, body(asked), body({**answer, "id": made("resp 2"), "output": []}), url=RESPONSES)


def chat(recorder: Recorder, run: str, made: Made) -> None:
    """A streamed call, and its result."""
    call = {
        "index": 0,
        "id": made("call"),
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }
    chunk = {"id": made("chatcmpl"), "object": "chat.completion.chunk", "model": "gpt-5"}
    deltas: tuple[dict[str, Any], ...] = ({"role": "assistant", "tool_calls": [call]}, {})
    events = [
        {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "tool_calls"}]}
        for delta in deltas
    ]
    stream = b"".join(b"data: " + body(one) + b"\n\n" for one in events) + b"data: [DONE]\n\n"
    asked: dict[str, Any] = {
        "model": "gpt-5",
        "stream": True,
        "messages": [{"role": "user", "content": "go"}],
    }
    recorder.exchange(run, body(asked), stream, url=CHAT, headers=SSE)
    asked["messages"] += [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": made("call"), "content": "seen"},
    ]
    recorder.exchange(run, body(asked), stream, url=CHAT, headers=SSE)


def refused(recorder: Recorder, run: str, made: Made) -> None:
    """An error that names its request, and a tool's own answer, whose id is no provider's."""
    error = {"type": "error", "error": {"type": "overloaded_error"}, "request_id": made("req")}
    asked = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "go"}]}
    recorder.exchange(run, body(asked), body(error), url=ANTHROPIC)


def fetched(recorder: Recorder, run: str, made: Made) -> None:
    """A response in the background, an uploaded file, and a batch, each asked for by its id."""
    openai = "https://api.openai.com/v1"
    told = body(
        {"object": "response", "id": made("resp"), "model": "gpt-5", "status": "queued", "output": []}
    )
    recorder.exchange(run, body({"model": "gpt-5", "background": True, "input": "go"}), told, url=RESPONSES)
    recorder.exchange(run, b"", told, url=f"{RESPONSES}/{made('resp')}?after={made('resp')}", method="GET")
    recorder.exchange(run, b"x", body({"id": made("file"), "object": "file"}), url=f"{openai}/files")
    recorder.exchange(run, b"", b"no JSON", url=f"{openai}/files/{made('file')}/content", method="GET")
    batches = "https://api.anthropic.com/v1/messages/batches"
    told = body({"id": made("batch"), "results_url": f"{batches}/{made('batch')}/results"})
    recorder.exchange(run, body({"requests": []}), told, url=batches)
    recorder.exchange(run, b"", b"{}\n{}", url=f"{batches}/{made('batch')}/results", method="GET")


def operations(recorder: Recorder, run: str, made: Made) -> None:
    """A long operation and a file of Google's, whose ids end their names; a gateway that has no name."""
    google = "https://generativelanguage.googleapis.com/v1beta"
    name = f"models/veo-3/operations/{made('op')}"
    recorder.exchange(run, b"{}", body({"name": name}), url=f"{google}/models/veo-3:predictLongRunning")
    recorder.exchange(run, b"", body({"name": name, "done": True}), url=f"{google}/{name}", method="GET")
    uri = f"{google}/files/{made('file')}"
    told = body({"file": {"name": f"files/{made('file')}", "uri": uri}})
    recorder.exchange(run, b"x", told, url="https://generativelanguage.googleapis.com/upload/v1beta/files")
    recorder.exchange(run, b"", b"\x00", url=f"{uri}:download", method="GET")
    asked = {"contents": [{"parts": [{"fileData": {"fileUri": uri}}]}]}
    answer = {"candidates": [{"content": {"parts": [{"text": "a cat"}]}}]}
    recorder.exchange(run, body(asked), body(answer), url=f"{google}/models/gemini-2.5-flash:generateContent")
    gateway = "http://gateway.internal:4000/v1"
    chat(_Behind(recorder, f"{gateway}/chat/completions"), run, made)
    recorder.exchange(run, b"x", body({"id": made("upload"), "object": "file"}), url=f"{gateway}/files")
    recorder.exchange(run, b"", b"", url=f"{gateway}/files/{made('upload')}", method="DELETE")


class _Behind:
    """A recorder of exchanges that go to one address."""

    def __init__(self, recorder: Recorder, url: str) -> None:
        self.recorder, self.url = recorder, url

    def exchange(self, *told: Any, **more: Any) -> None:
        """The exchange, there."""
        self.recorder.exchange(*told, **more | {"url": self.url})


def compared(store: Path, how: Callable[[Recorder, str, Made], None], *, exact: bool = False) -> Diff:
    """Two runs that differ in ids only, compared."""
    runs: list[str] = []
    for which in "ab":
        recorder = Recorder(store)
        runs.append(run := trace())
        recorder.root(run)
        how(recorder, run, lambda what, which=which: f"{what.replace(' ', '_')}_{which * 8}==")
        recorder.close()
    opened = open_store(store)
    return diff(opened.run(runs[0]), opened.run(runs[1]), exact=exact)


@pytest.mark.slow
@pytest.mark.parametrize("how", [anthropic, responses, chat, refused, fetched, operations])
def test_runs_that_differ_in_ids_only_are_the_same(
    tmp_path: Path, how: Callable[[Recorder, str, Made], None]
) -> None:
    """Whatever is an id: of a call, a message, a response, a request, a thought. `exact` compares letters."""
    found = compared(tmp_path, how)
    assert not found.differs, found
    assert "same: nothing differs, the runs are the same" in str(found)
    assert compared(tmp_path / "exact", how, exact=True).differs


def test_an_id_in_another_place_is_a_difference(tmp_path: Path) -> None:
    """Results that answer each other's calls are not the same, whatever the letters."""
    order = iter((False, True))
    found = compared(tmp_path, lambda *told: anthropic(*told, swapped=next(order)))
    (changed,) = [step for step in found.steps if step.differs]
    assert [one.path for one in changed.changes] == ["messages[2].content"]


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_asked_for_by_an_id_that_a_tool_told_has_its_counterpart(tmp_path: Path, exact: bool) -> None:
    """Its letters count, so it is changed, and follows from who told the id; it is not gone and added."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        orders = "https://tools.example/v1/orders"
        number = 4711 + ord(made("")[-3])
        recorder.exchange(run, b"{}", body({"id": number}), url=orders)
        recorder.exchange(run, b"", body({"of": "tea"}), url=f"{orders}/{number}", method="GET")
        recorder.exchange(run, b"", body({"of": "tea"}), url=f"{orders}/{number}/items", method="GET")

    found = compared(tmp_path, how, exact=exact)
    assert [step.kind for step in found.steps] == ["changed"] * 3
    assert [[one.path for one in step.changes] for step in found.steps] == [["body.id"], ["url"], ["url"]]
    assert [step.brief_b for step in found.steps][1:] == [
        f"GET /v1/orders/{4711 + ord('b')}",
        f"GET /v1/orders/{4711 + ord('b')}/items",
    ]
    assert [step.follows for step in found.steps] == [(), (0,), (0,)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [responses, fetched, operations])
def test_where_letters_count_nothing_loses_its_counterpart(
    tmp_path: Path, how: Callable[[Recorder, str, Made], None]
) -> None:
    """A request whose URL has another id is changed, by its URL."""
    found = compared(tmp_path, how, exact=True)
    assert not {step.kind for step in found.steps} & {"gone", "added"}
    assert any([one.path for one in step.changes][:1] == ["url"] for step in found.steps)


def test_an_id_that_the_agent_made_counts_by_its_letters(tmp_path: Path) -> None:
    """Also where the provider repeats it; and what a tool's service answered."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        asked = {"model": "gpt-5", "input": "go", "metadata": {"trip_id": made("trip")}}
        answer = {"object": "response", "id": made("resp"), "model": "gpt-5", "output": []}
        told = body({**answer, "metadata": asked["metadata"]})
        recorder.exchange(run, body(asked), told, url=RESPONSES)
        recorder.exchange(run, body({}), body({"id": made("booking")}), url="https://tools.example/book")

    found = compared(tmp_path, how)
    assert [step.kind for step in found.steps] == ["changed", "changed"]


@pytest.mark.parametrize("levels", [90, 900, 3000])
def test_a_deep_answer_is_compared(tmp_path: Path, levels: int) -> None:
    """Level by level or as a text, by how deep it is."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        deep = b'{"x": ' + b"[" * levels + body(made("said")) + b"]" * levels + b"}"
        recorder.exchange(run, body({"model": "claude-sonnet-4-5", "messages": []}), deep, url=ANTHROPIC)

    (changed,) = compared(tmp_path, how).steps[0].changes
    assert changed.path == ("body" if levels > 100 else "body.x" + "[0]" * levels)
    assert changed.a != changed.b


def test_an_id_that_a_tool_is_called_with_counts_by_its_letters(tmp_path: Path) -> None:
    """It is what the task is about: in the call, and in the request that carries it."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        asked: dict[str, Any] = {
            "model": "claude-sonnet-4-5",
            "messages": [{"role": "user", "content": "go"}],
        }
        block = {
            "type": "tool_use",
            "id": made("toolu"),
            "name": "book",
            "input": {"order_id": made("order")},
        }
        answer = {"id": made("msg"), "role": "assistant", "model": "claude-sonnet-4-5", "content": [block]}
        recorder.exchange(run, body(asked), body(answer))
        asked["messages"] = [*asked["messages"], {"role": "assistant", "content": [block]}]
        recorder.exchange(run, body(asked), body({**answer, "content": [{"type": "text", "text": "done"}]}))

    first, second = compared(tmp_path, how).steps
    assert [one.path for one in first.changes] == ["reply[0].input.order_id"]
    assert [one.path for one in second.changes] == ["messages[1].content[0].input.order_id"]


def test_an_id_in_a_call_of_an_answer_that_is_not_read_counts_too(tmp_path: Path) -> None:
    """As in what is asked for by a response's id."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        answer = {"object": "response", "id": made("resp"), "model": "gpt-5", "output": []}
        recorder.exchange(run, body({"model": "gpt-5", "input": "go"}), body(answer), url=RESPONSES)
        call = {"id": made("fc"), "name": "book", "arguments": {"order_id": made("order")}}
        recorder.exchange(run, b"", body({"data": [call]}), url=f"{RESPONSES}/{made('resp')}/items")

    _, second = compared(tmp_path, how).steps
    assert [one.path for one in second.changes] == ["body.data[0].arguments.order_id"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [anthropic, responses, chat])
def test_a_request_with_ids_of_an_earlier_answer_follows_from_it(
    tmp_path: Path, how: Callable[[Recorder, str, Made], None]
) -> None:
    """Where letters of ids count, who repeats another id says which step made it, and no "other reason"."""
    found = compared(tmp_path, how, exact=True)
    assert found.steps[-1].follows == (0,)


@pytest.mark.slow
def test_a_model_that_is_asked_for_does_not_follow_from_the_answer_that_names_it(tmp_path: Path) -> None:
    """What a request changes itself comes back in its answer, and is not what later requests have it from."""

    def asked(recorder: Recorder, run: str, made: Made) -> None:
        for text in ("go", "on"):
            request = {"model": made("model"), "messages": [{"role": "user", "content": text}]}
            answer = {"id": "chatcmpl-1", "model": made("model"), "choices": []}
            recorder.exchange(run, body(request), body(answer), url=CHAT)

    assert [step.follows for step in compared(tmp_path, asked, exact=True).steps] == [(), ()]


@pytest.mark.parametrize("url", ["http://[::1/v1/messages", "http://a/\udcff", "::", ""])
def test_addresses_that_are_none_are_compared_by_their_letters(tmp_path: Path, url: str) -> None:
    """Whatever a recorder was told of a request's address, its run can be compared."""

    def how(recorder: Recorder, run: str, made: Made) -> None:
        recorder.exchange(run, b"{}", body({"id": made("thing")}), url=url)
        recorder.exchange(run, b"{}", body({"id": made("thing")}), url=f"{url}/{made('thing')}")

    first, second = compared(tmp_path, how).steps
    assert [one.kind for one in (first, second)] == ["changed", "changed"]
