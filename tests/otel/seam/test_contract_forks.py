"""What holds of every client in a fork: what goes over the wire, what it sees, and what is recorded of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Capture
from e2e.command import here
from otel.seam.clients import CLIENTS, Client, Seen
from otel.seam.servers import echoing
from otel.seam.staged import change, forking, phases
from recorded import REPOSITORY, Recorded, read_store
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

from tracefork_otel.exchange import Response

CHANGED = Response(status=200, headers=(("content-type", "text/plain"),), body=b"changed")
PART = replace(CHANGED, headers=(("transfer-encoding", "chunked"),))
JSON = {"content-type": "application/json"}


def said(text: str, **more: Any) -> dict[str, Any]:
    """The JSON of a request."""
    return {"say": text, "n": [1], **more}


def say(client: Client, url: str, text: str, *, streamed: bool = False) -> Seen:
    """What is seen of the response to a JSON request."""
    body = json.dumps(said(text)).encode()
    sent = iter((body[:5], body[5:])) if streamed else body
    return client.ask("POST", f"{url}/raw/echo", sent, headers=JSON)


def recording(client: Client, capture: Capture, server: ModelServer, texts: str) -> Recorded:
    """A run that says these, one after the other."""
    capture.on()
    for text in texts:
        say(client, server.url, text)
    server.requests.clear()
    return capture.read()


@CLIENTS
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_an_edited_request_goes_out_edited(
    client: Client, streamed: bool, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """Wire and record have the edited body with its length; prefix and tail go as the agent sent them."""
    recorded = recording(client, capture, server, "abc")
    edits = (("say", "something longer"), ("more", True))
    with forking(recorded, tmp_path / "f", change("request", edits=edits)) as store:
        answers = [say(client, server.url, text, streamed=streamed) for text in "abc"]
    sent = [json.loads(one.body) for one in server.requests]
    assert sent == [said("something longer", more=True), said("c")]
    first = server.requests[0]
    assert (first.header("transfer-encoding"), first.header("content-length")) == (None, str(len(first.body)))
    assert answers[1].body == first.body
    found = read_store(store)
    assert phases(found) == [
        ("prefix", True, None),
        ("intervention", False, "request it"),
        ("tail", False, None),
    ]
    written = found.in_order()[1].request
    assert written.body == first.body
    assert ("content-length", str(len(written.body))) in [(k.lower(), v) for k, v in written.headers]
    assert [one.served_span_id is not None for one in found.in_order()] == [True, False, False]


@CLIENTS
def test_another_response_is_served_and_the_rest_is_live(
    client: Client, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """The client reads the changed response; nothing of it reached the network, and what follows does."""
    recorded = recording(client, capture, server, "abc")
    with forking(recorded, tmp_path / "f", change("response", response=CHANGED)) as store:
        answers = [say(client, server.url, text) for text in "abz"]
    assert (answers[1].status, answers[1].headers, answers[1].body) == (200, CHANGED.headers, b"changed")
    assert [json.loads(one.body)["say"] for one in server.requests] == ["z"]
    found = read_store(store)
    assert phases(found) == [
        ("prefix", True, None),
        ("intervention", True, "response it"),
        ("tail", False, None),
    ]
    assert found.in_order()[1].served_span_id is None
    assert not any(note.kind == "leak" for note in found.notes)


@CLIENTS
def test_faults_are_the_clients_own_errors(
    client: Client, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """A timeout is the client's own; a disconnect gives the part that came, and then breaks as there."""
    recorded = recording(client, capture, server, "ab")
    with forking(recorded, tmp_path / "t", change("fault", error="timeout")) as store:
        say(client, server.url, "a")
        assert say(client, server.url, "b").error == client.late
    found = read_store(store).in_order()[1]
    assert (found.outcome, found.replayed, found.intervention) == ("no_response", True, "fault it")
    assert "Timeout" in str(found.error_type)
    for name, part in (("part", PART), ("nothing", None)):
        broken = change("fault", error="disconnect", response=part)
        with forking(recorded, tmp_path / name, broken) as store:
            say(client, server.url, "a")
            assert say(client, server.url, "b").error == (client.cut if part else client.silent)
        found = read_store(store).in_order()[1]
        assert found.outcome == ("cut" if part else "no_response")
        assert (found.response and found.response.body) == (part and part.body)


@CLIENTS
def test_a_live_tail_streams(client: Client, capture: Capture, server: ModelServer, tmp_path: Path) -> None:
    """Live events reach the client as they come, and are recorded in their own cuts."""
    url = f"{server.url}/raw/sse?events=5&delay_ms=40"
    capture.on()
    say(client, server.url, "a")
    client.ask("GET", url, cuts=True)
    with forking(capture.read(), tmp_path / "f", change("resample")) as store:
        say(client, server.url, "a")
        seen = client.ask("GET", url, cuts=True)
    live = read_store(store).in_order()[1].response
    assert live is not None
    assert live.chunks() == seen.pieces
    assert len(seen.pieces) >= 5
    assert live.chunk_offsets_us[-1] - live.chunk_offsets_us[0] >= 100_000


@CLIENTS
def test_a_drift_before_the_step_is_an_error_of_the_clients(
    client: Client, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """The message says that it is a fork and what differs, and nothing was sent."""
    recorded = recording(client, capture, server, "ab")
    with forking(recorded, tmp_path / "f", change("resample")) as store:
        seen = say(client, server.url, "A")
    assert seen.error == client.refused
    assert "tracefork fork: step 0: " in seen.message
    assert "recorded a, got A" in seen.message
    assert server.requests == []
    assert phases(read_store(store)) == [("prefix", False, None)]


@CLIENTS
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_has_moved_is_asked_where_it_is(
    client: Client, streamed: bool, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """What goes live reaches the new address, below its path, by its name; the record has the old one."""
    recorded = recording(client, capture, server, "abc")
    url = f"{server.url}/raw/echo"
    with echoing() as there:
        moved = ((server.url, f"http://localhost:{there.port}/below"),)
        changed = change("request", edits=(("say", "edited"),))
        with forking(recorded, tmp_path / "f", changed, moved=moved) as store:
            answers = [say(client, server.url, text, streamed=streamed) for text in "abc"]
            assert client.ask("GET", f"{url}?a=b%20c").status == 200
    assert server.requests == []
    assert [json.loads(one.body)["say"] for one in answers] == ["a", "edited", "c"]
    assert [one[:2] for one in there.asked] == [
        ("POST", "/below/raw/echo"),
        ("POST", "/below/raw/echo"),
        ("GET", "/below/raw/echo?a=b%20c"),
    ]
    assert {head["host"] for *_, head in there.asked} == {f"localhost:{there.port}"}
    assert [one.request.url for one in read_store(store).in_order()] == [url] * 3 + [f"{url}?a=b%20c"]


AGENT = """
import datetime, importlib.util, json, os, uuid
from otel.seam.clients import ALL

KEY = "Bearer sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"
HEAD = {"authorization": KEY, "content-type": "application/json"}
said = []
for client in ALL:
    if client.name == "botocore" and not importlib.util.find_spec("botocore"):
        continue
    said.append({"role": "user", "content": f"{client.name} {uuid.uuid4()} {datetime.datetime.now()}"})
    body = json.dumps({"model": "gpt-4o", "messages": said}).encode()
    seen = client.ask("POST", os.environ["MODEL_URL"] + "/chat/completions", body, headers=HEAD)
    answer = json.loads(seen.body)["choices"][0]["message"]["content"] if seen.status else seen.error
    said.append({"role": "assistant", "content": answer})
print([one["content"] for one in said[1::2]])
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_agent_that_has_them_all(tmp_path: Path) -> None:
    """By the commands, with draws: recorded whole, replayed to its output, forked by each kind of change."""
    (tmp_path / "agent.py").write_text(AGENT)
    with ModelServer(lambda call: Reply(text=f"{call.model}: {len(call.messages)}")) as server:
        env = {"MODEL_URL": server.openai_url, "PYTHONPATH": str(REPOSITORY / "tests")}
        ran = here("run", "--draws", "--", sys.executable, "agent.py", cwd=tmp_path, **env)
        count = len(server.requests)
        assert (ran.status, count >= 7) == (0, True), ran.err
        with open_store(tmp_path / ".tracefork") as store:
            run = store.run("last")
        replay = here("replay", "last", cwd=tmp_path, **env)
        assert len(server.requests) == count
        other = here("fork", f"{run.run_id}@1", "--model", "gpt-4o-mini", cwd=tmp_path, **env)
        asked = [request.body for request in server.requests[count:]]
        late = here("fork", f"{run.run_id}@4", "--fault", "timeout", cwd=tmp_path, **env)
        steps = (0, 4, count - 1)
        texts = [here("fork", f"{run.run_id}@{n}", "--text", "other", cwd=tmp_path, **env) for n in steps]
    assert "PASS    bit-exact" in replay.out, replay.out
    assert f"held in {count - 1} of {count - 1} requests" in other.out
    assert all(b"gpt-4o-mini" in body for body in asked)
    assert "'aiohttp.client_exceptions.SocketTimeoutError', 'gpt-4o: 11'" in late.out, late.out
    for step, fork in zip(steps, texts, strict=True):
        assert f"{step} served, 1 edited" in fork.out, fork.out
        assert "'other'" in fork.out
    with open_store(tmp_path / ".tracefork") as store:
        run = store.run(run.run_id)
        assert run.complete, run.incomplete_reasons
        assert not run.unseen
        rows = store.sql("select provider, model, operation from exchanges where run_id = ?", [run.run_id])
        assert rows.fetchall() == [("openai", "gpt-4o", "chat")] * count
        assert not any("abcdefghij" in repr(exchange) for exchange in run.exchanges)
