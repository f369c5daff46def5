"""A fork at the seam: what goes over the wire, what the client sees, and what is recorded of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from conftest import Capture
from recorded import Recorded, fetch, read_store, stream
from tracefork_backend.simulate import ModelServer

from tracefork_otel import Tape, launch
from tracefork_otel.exchange import Response
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.settings import Settings

BOTH = pytest.mark.parametrize("module", [httpx2, httpx], ids=["httpx2", "httpx"])
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
CHANGED = Response(status=200, headers=(("content-type", "text/plain"),), body=b"changed")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server that remembers what came in."""
    with ModelServer() as running:
        yield running


@contextmanager
def forking(recorded: Recorded, folder: Path, change: Intervention) -> Iterator[Path]:
    """Inside the block this process forks what was recorded, into the store that is given."""
    folder.mkdir()
    Tape(run_id="0" * 32, exchanges=tuple(recorded.in_order())).dump(folder / "run.tape")
    change.dump(folder / "change.json")
    chosen = Settings(
        mode="fork",
        tape=folder / "run.tape",
        intervention=folder / "change.json",
        store=folder / "fork",
        seal=False,
    )
    with launch.playing(chosen):
        yield folder / "fork"


def change(kind: Any, **members: Any) -> Intervention:
    """An intervention at step 1."""
    return Intervention(kind=kind, step=1, label=f"{kind} it", **members)


def say(module: ModuleType, kind: str, url: str, text: str) -> Any:
    """The response to a JSON request."""
    return fetch(module, kind, "POST", f"{url}/raw/echo", json={"say": text, "n": [1]})


def phases(recorded: Recorded) -> list[tuple[object, bool, str | None]]:
    """Phase, whether a tape answered, and the label of each exchange."""
    return [
        (one.attributes.get("tracefork.phase"), one.replayed, one.intervention) for one in recorded.in_order()
    ]


@BOTH
@KINDS
def test_an_edited_request_goes_out_edited(
    module: ModuleType, kind: str, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """Wire and record have the edited body with its length; prefix and tail go as the agent sent them."""
    capture.on()
    for text in "abc":
        say(module, kind, server.url, text)
    recorded = capture.read()
    server.requests.clear()
    edits = (("say", "something longer"), ("more", True))
    with forking(recorded, tmp_path / "f", change("request", edits=edits)) as store:
        answers = [say(module, kind, server.url, text) for text in "abc"]
    wanted = {"say": "something longer", "n": [1], "more": True}
    sent = [json.loads(one.body) for one in server.requests]
    assert sent == [wanted, {"say": "c", "n": [1]}]
    assert server.requests[0].header("content-length") == str(len(server.requests[0].body))
    assert answers[1].content == server.requests[0].body
    found = read_store(store)
    assert phases(found) == [
        ("prefix", True, None),
        ("intervention", False, "request it"),
        ("tail", False, None),
    ]
    written = found.in_order()[1].request
    assert written.body == server.requests[0].body
    assert ("content-length", str(len(written.body))) in [(k.lower(), v) for k, v in written.headers]
    assert [one.served_span_id is not None for one in found.in_order()] == [True, False, False]


@BOTH
@KINDS
def test_another_response_is_served_and_the_rest_is_live(
    module: ModuleType, kind: str, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """The client reads the changed response; nothing of it reached the network, and what follows does."""
    capture.on()
    for text in "abc":
        say(module, kind, server.url, text)
    recorded = capture.read()
    server.requests.clear()
    with forking(recorded, tmp_path / "f", change("response", response=CHANGED)) as store:
        answers = [say(module, kind, server.url, text) for text in "abz"]
    assert (answers[1].status_code, answers[1].headers["content-type"], answers[1].text) == (
        200,
        "text/plain",
        "changed",
    )
    assert [json.loads(one.body)["say"] for one in server.requests] == ["z"]
    found = read_store(store)
    assert phases(found) == [
        ("prefix", True, None),
        ("intervention", True, "response it"),
        ("tail", False, None),
    ]
    assert found.in_order()[1].served_span_id is None
    assert not any(note.kind == "leak" for note in found.notes)


@BOTH
@KINDS
def test_faults_are_the_clients_own_errors(
    module: ModuleType, kind: str, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """A timeout raises ReadTimeout; a disconnect gives the part that came, and then RemoteProtocolError."""
    capture.on()
    for text in "ab":
        say(module, kind, server.url, text)
    recorded = capture.read()
    with forking(recorded, tmp_path / "t", change("fault", error="timeout")) as store:
        say(module, kind, server.url, "a")
        with pytest.raises(module.ReadTimeout):
            say(module, kind, server.url, "b")
    assert (found := read_store(store).in_order()[1]).error_type == f"{module.__name__}.ReadTimeout"
    assert (found.outcome, found.replayed, found.intervention) == ("no_response", True, "fault it")
    for name, part in (("part", CHANGED), ("nothing", None)):
        broken = change("fault", error="disconnect", response=part)
        with forking(recorded, tmp_path / name, broken) as store:
            say(module, kind, server.url, "a")
            with pytest.raises(module.RemoteProtocolError):
                say(module, kind, server.url, "b")
        found = read_store(store).in_order()[1]
        assert found.outcome == ("cut" if part else "no_response")
        assert (found.response and found.response.body) == (part and part.body)


@BOTH
@KINDS
def test_a_live_tail_streams(
    module: ModuleType, kind: str, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """Live events reach the client as they come, and are recorded in their own cuts."""
    url = f"{server.url}/raw/sse?events=5&delay_ms=20"
    capture.on()
    say(module, kind, server.url, "a")
    stream(module, kind, url)
    recorded = capture.read()
    with forking(recorded, tmp_path / "f", change("resample")) as store:
        say(module, kind, server.url, "a")
        chunks = stream(module, kind, url)
    live = read_store(store).in_order()[1].response
    assert live is not None
    assert live.chunks() == tuple(chunks)
    assert len(chunks) == 5
    assert live.chunk_offsets_us[-1] - live.chunk_offsets_us[0] >= 60_000


@KINDS
def test_streaming_request_bodies_fork_too(
    kind: str, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """A body that the client gives in pieces is matched, edited and sent whole."""
    capture.on()
    say(httpx2, kind, server.url, "a")
    _upload(kind, server.url)
    recorded = capture.read()
    server.requests.clear()
    with forking(recorded, tmp_path / "f", change("request", edits=(("n", 2),))):
        say(httpx2, kind, server.url, "a")
        assert _upload(kind, server.url) == b'{"n":2}'
    (sent,) = server.requests
    assert sent.body == b'{"n":2}'
    assert (sent.header("transfer-encoding"), sent.header("content-length")) == (None, "7")


def _upload(kind: str, url: str) -> bytes:
    pieces = (b'{"n"', b":1}")
    if kind == "sync":
        with httpx2.Client() as client:
            return client.post(f"{url}/raw/echo", content=iter(pieces)).content

    async def give() -> Any:
        for piece in pieces:
            yield piece

    async def call() -> bytes:
        async with httpx2.AsyncClient() as client:
            return (await client.post(f"{url}/raw/echo", content=give())).content

    return asyncio.run(call())


def test_a_drift_before_the_step_is_an_error_of_the_clients(
    capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """The message says that it is a fork and what differs, and nothing was sent."""
    capture.on()
    for text in "ab":
        say(httpx2, "sync", server.url, text)
    recorded = capture.read()
    server.requests.clear()
    with (
        forking(recorded, tmp_path / "f", change("resample")) as store,
        pytest.raises(httpx2.ConnectError, match=r"tracefork fork: step 0: .*recorded a, got A"),
    ):
        say(httpx2, "sync", server.url, "A")
    assert server.requests == []
    assert phases(read_store(store)) == [("prefix", False, None)]


@pytest.mark.parametrize("missing", ["tape", "intervention"])
def test_a_fork_without_its_files_sends_nothing(missing: str, server: ModelServer, tmp_path: Path) -> None:
    """Where tape or intervention cannot be read, every request fails and none goes over the network."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "tape")
    chosen = Settings(
        mode="fork",
        tape=tmp_path / ("gone" if missing == "tape" else "tape"),
        intervention=tmp_path / "gone",
        store=tmp_path / "store",
        seal=False,
    )
    with launch.playing(chosen), pytest.raises(httpx2.ConnectError, match="gone"):
        say(httpx2, "sync", server.url, "a")
    assert server.requests == []


def ask_anthropic(url: str, text: str) -> str:
    """What a model of Anthropic's answers, asked by its SDK."""
    client = anthropic.Anthropic(base_url=url, api_key="k")
    asked: Any = {"role": "user", "content": text}
    return client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=[asked]).id


def ask_openai(url: str, text: str) -> str:
    """What a model of OpenAI's answers, asked by its SDK."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="k")
    asked: Any = {"role": "user", "content": text}
    return client.chat.completions.create(model="gpt-4o-mini", messages=[asked]).id


@pytest.mark.parametrize("ask", [ask_anthropic, ask_openai])
def test_no_client_waits_for_an_attempt_that_is_on_the_tape(
    ask: Callable[[str, str], str], capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """Each fork would wait as long as the provider had told the recorded run to, and blame makes many."""
    capture.on()
    answers = [ask(server.url, text) for text in "ab"]
    first, last = capture.read().in_order()
    refused = [
        replace(
            first,
            span_id=f"{at:016x}",
            started_ns=first.started_ns - 90 + 10 * at,
            ended_ns=first.started_ns - 85 + 10 * at,
            response=Response(status=status, headers=(("retry-after", "50"),), body=b"{}", chunk_sizes=(2,)),
        )
        for at, status in enumerate((529, 503))
    ]
    recorded = Recorded([*refused, first, last], [], [], [])
    began = time.monotonic()
    with forking(recorded, tmp_path / "f", Intervention(kind="noop", step=3, label="noop")) as store:
        assert [ask(server.url, text) for text in "ab"] == answers
    assert time.monotonic() - began < 30
    found = read_store(store).in_order()
    assert [one.response.status for one in found if one.response] == [529, 503, 200, 200]
    assert all(one.replayed for one in found)
