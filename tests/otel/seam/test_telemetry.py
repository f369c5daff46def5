"""What tracing vendors send by threads of their own: no step, and in a replay it stays here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Capture
from otel.seam.clients import CLIENTS, Client
from otel.seam.staged import replaying
from recorded import read_store
from tracefork_backend.simulate import ModelServer


def sent_by(module: str, function: str = "send") -> Callable[[Callable[[], Any]], Any]:
    """A function of that module that does what it is given."""
    made: dict[str, Any] = {"__name__": module}
    exec(f"def {function}(act):\n    return act()\n", made)
    return made[function]


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
        assert (heard.status, heard.body) == (200, b"{}")
        assert told("status/500").status == 200
        assert client.ask("GET", f"{server.url}/raw/bytes/3").status == 200
    assert len(server.requests) == came
    (note,) = read_store(store).notes
    told_of = note.attributes
    assert (note.kind, told_of["client"], told_of["sent"]) == ("telemetry", "langsmith", False)
