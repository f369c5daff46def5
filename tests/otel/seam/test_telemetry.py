"""What tracing vendors send by threads of their own: no step, and in a replay it stays here."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Capture
from otel.seam.clients import CLIENTS, Client
from otel.seam.staged import replaying
from recorded import read_store
from tracefork_backend.simulate import ModelServer

from tracefork_otel.seam.asked import asked
from tracefork_otel.seam.routing import routed
from tracefork_otel.session import current
from tracefork_otel.session.telemetry import sender_above


def sent_by(module: str, function: str = "send") -> Callable[[Callable[[], Any]], Any]:
    """A function of that module that does what it is given."""
    made: dict[str, Any] = {"__name__": module}
    exec(f"def {function}(act):\n    return act()\n", made)
    return made[function]


@pytest.mark.parametrize(
    ("module", "function", "is_sender"),
    [
        ("posthog.request", "batch_post", True),
        ("weave.trace_server_bindings.remote_http_trace_server", "obj_read", False),
        ("mlflow.telemetry.track", "send", False),
        ("opik.message_processing.queue_consumer", "send", True),
        ("langsmith.client", "pull_prompt", False),
    ],
)
def test_what_is_asked_for_is_no_telemetry(module: str, function: str, is_sender: bool) -> None:
    """Modules that wrap an agent's functions, or ask for prompts, are no senders."""
    found = sent_by(module, function)(lambda: sender_above(sys._getframe()))
    assert (found is not None) is is_sender


def test_what_tells_by_a_function_that_asks_too_tells() -> None:
    """PostHog's batches go out by the function that asks for its flags."""
    post = sent_by("posthog.request", "post")
    asked = post(lambda: sender_above(sys._getframe()))
    told = sent_by("posthog.consumer")(lambda: post(lambda: sender_above(sys._getframe())))
    assert asked is not None
    assert told is not None
    assert (asked.asks, told.asks) == (True, False)


def test_a_vendors_login_asks_and_its_prompts_are_the_agents() -> None:
    """Braintrust logs in from a thread of its own, at a moment of its own."""
    for function, asks in (
        ("login_to_state", True),
        ("_compute_logger_metadata", True),
        ("load_prompt", None),
    ):
        found = sent_by("braintrust.logger", function)(lambda: sender_above(sys._getframe()))
        assert (found.asks if found else None) is asks


def test_what_a_vendor_makes_for_the_agent_is_the_agents_own() -> None:
    """Braintrust makes an experiment, by whatever asks for its id first; it logs in for itself."""
    made: dict[str, Any] = {"__name__": "braintrust.logger"}
    source = "def init():\n    def compute_metadata(act):\n        return act()\n    return compute_metadata"
    exec(source, made)
    make = made["init"]()
    flush = sent_by("braintrust.logger", "flush")
    flush.__code__ = flush.__code__.replace(co_qualname="_HTTPBackgroundLogger.flush")
    login = sent_by("braintrust.logger", "login_to_state")
    assert make(lambda: sender_above(sys._getframe())) is None
    assert flush(lambda: make(lambda: sender_above(sys._getframe()))) is None
    for called in (
        make(lambda: login(lambda: sender_above(sys._getframe()))),
        flush(lambda: make(lambda: login(lambda: sender_above(sys._getframe())))),
    ):
        assert called is not None
        assert called.asks
    told = flush(lambda: sender_above(sys._getframe()))
    assert told is not None
    assert not told.asks


@pytest.mark.parametrize("by", ["agents.tracing.processors", "agent"])
def test_a_model_host_that_is_told_makes_no_recording_incomplete(capture: Capture, by: str) -> None:
    """The traces of openai-agents go to where its models are."""
    capture.on()
    sent_by(by)(lambda: sys.audit("socket.getaddrinfo", "api.openai.com", 443, 0, 0, 0))
    assert bool(capture.read().notes) is (by == "agent")


@pytest.mark.parametrize(
    ("method", "url", "way"),
    [
        ("POST", "https://os-api.agno.com/telemetry/runs", "kept"),
        ("POST", "https://api.openai.com/v1/traces/ingest", "kept"),
        ("POST", "https://eu.i.posthog.com/batch/", "kept"),
        ("POST", "https://eu.i.posthog.com/flags/?v=4", "aside"),
        ("GET", "https://huggingface.co/api/models/x", "aside"),
        ("GET", "https://raw.githubusercontent.com/openlit/openlit/main/assets/pricing.json", "aside"),
    ],
)
def test_known_places_that_are_told_hear_nothing_of_a_replay(
    method: str, url: str, way: str, capture: Capture, tmp_path: Path
) -> None:
    """What they are asked goes out as in the recording: a process goes on with it."""
    capture.on()
    assert current.session is not None
    assert routed(current.session, asked(method, url, ()), bytes)[0] == "aside"
    with replaying(capture.read(), tmp_path / "r"):
        assert current.session is not None
        assert routed(current.session, asked(method, url, ()), bytes)[0] == way


@CLIENTS
def test_a_vendors_sender_is_no_step_and_sends_nothing_in_a_replay(
    client: Client, capture: Capture, server: ModelServer, tmp_path: Path
) -> None:
    """It goes out while the agent is recorded; in a replay it hears a plain success, and the note says so."""
    send = sent_by("langsmith._internal._background_thread")

    def told(path: str) -> Any:
        return send(lambda: client.ask("POST", f"{server.url}/raw/{path}", b"a prompt"))

    capture.on()
    assert told("echo").body == b"a prompt"
    client.ask("GET", f"{server.url}/raw/bytes/3")
    recorded = capture.read()
    assert recorded.only().request.url.endswith("/bytes/3")
    came = len(server.requests)
    assert came == 2
    with replaying(recorded, tmp_path / "r") as store:
        heard = told("echo")
        assert (heard.status, heard.body) == (200, b'{"id": "0", "digest": "0"}')
        assert told("status/500").status == 200
        assert client.ask("GET", f"{server.url}/raw/bytes/3").status == 200
    assert len(server.requests) == came
    (note,) = read_store(store).notes
    told_of = note.attributes
    assert (note.kind, told_of["client"], told_of["sent"]) == ("telemetry", "langsmith", False)


@pytest.mark.parametrize(
    ("module", "connects"), [("statsd.client.udp", False), ("datadog.dogstatsd.base", True)]
)
def test_datagrams_of_a_sender_stay_here_in_a_replay(
    module: str, connects: bool, capture: Capture, tmp_path: Path
) -> None:
    """Those of the agent's own code go where they went."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(0.2)

        def send() -> None:
            if connects:
                sender.connect(sink.getsockname())
            else:
                sender.sendto(b"calls:1|c", sink.getsockname())

        with replaying(capture.read(), tmp_path / "r") as store:
            with pytest.raises(ConnectionRefusedError):
                sent_by(module)(send)
            send()
            sender.sendto(b"mine", sink.getsockname())
        came = {sink.recv(100) for _ in range(1 if connects else 2)}
        assert came == ({b"mine"} if connects else {b"mine", b"calls:1|c"})
    (note,) = read_store(store).notes
    assert (note.kind, note.attributes["sent"]) == ("telemetry", False)
