"""What goes round the seam is noted: live connections in a replay, model calls by clients not captured."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Capture
from recorded import launched, read_store, run_python

from tracefork_otel import Tape
from tracefork_otel._audit import is_model_host


@pytest.fixture
def listening() -> Iterator[int]:
    """A port on loopback that accepts connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_accept, args=(listener,), daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)  # `close` alone does not wake the accepting thread
    listener.close()
    thread.join(5)


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_live_connections_in_a_replay(listening: int, tmp_path: Path) -> None:
    """Each host and port that a replay connects to is one note with its caller; allowed hosts, telemetry and
    datagram sockets are none.
    """
    tape = tmp_path / "run.tape"
    Tape(run_id="0" * 32, exchanges=()).dump(tape)
    script = tmp_path / "agent.py"
    script.write_text(f"""
import asyncio, os, socket, urllib.request
from concurrent.futures import ThreadPoolExecutor

def helper():
    for _ in range(2):
        socket.create_connection(("127.0.0.1", {listening})).close()

def fetch():
    try: urllib.request.urlopen("http://localhost:{listening}/")
    except OSError: pass

async def asynchronous():
    reader, writer = await asyncio.open_connection("127.0.0.1", {listening})
    writer.close()

helper()
fetch()
asyncio.run(asynchronous())
for port in (4317, 9):
    try: socket.create_connection(("127.0.0.1", port))
    except OSError: pass
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 7))
""")
    env = launched(TRACEFORK_MODE="replay", TRACEFORK_TAPE=str(tape))
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    run_python([str(script)], store=tmp_path / "store", **env)
    leaks = {
        f"{note.attributes['host']}:{note.attributes['port']}": note.attributes
        for note in read_store(tmp_path / "store").notes
        if note.kind == "leak"
    }
    assert len(leaks) <= 2
    assert f"127.0.0.1:{listening}" in leaks
    assert "agent.py:7 in helper" in str(leaks[f"127.0.0.1:{listening}"]["caller"])
    run_python([str(script)], store=tmp_path / "allowed", TRACEFORK_ALLOW_HOSTS="localhost", **env)
    assert not read_store(tmp_path / "allowed").notes


def test_other_clients_of_a_model_make_a_recording_incomplete(tmp_path: Path) -> None:
    """Under `run`, a model provider's name looked up by another client is one note that says where."""
    code = """
import socket
for _ in range(2):
    for host in ("api.openai.com", "example.com", "127.0.0.1"):
        try: socket.getaddrinfo(host, 443, flags=socket.AI_NUMERICHOST)
        except OSError: pass
"""
    run_python(code, store=tmp_path, **launched())
    (note,) = read_store(tmp_path).notes
    assert note.kind == "incomplete"
    assert note.attributes["host"] == "api.openai.com"
    assert "not recorded" in str(note.attributes["why"])


def test_our_own_clients_of_a_model_are_complete(tmp_path: Path) -> None:
    """The same name looked up for a captured call, sync or async, is no gap."""
    code = """
import asyncio, socket
real = socket.getaddrinfo
def numeric(host, port, *args, **kwargs):
    return real(host, port, flags=socket.AI_NUMERICHOST)
socket.getaddrinfo = numeric
import httpx2
try: httpx2.get("http://api.openai.com/v1")
except httpx2.ConnectError: pass
async def main():
    async with httpx2.AsyncClient() as client:
        try: await client.get("http://api.anthropic.com/v1")
        except httpx2.ConnectError: pass
asyncio.run(main())
"""
    run_python(code, store=tmp_path, **launched())
    recorded = read_store(tmp_path)
    assert len(recorded.exchanges) == 2
    assert not recorded.notes


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("api.anthropic.com", True),
        ("API.OpenAI.com.", True),
        ("mine.openai.azure.com", True),
        ("bedrock-runtime.eu-west-1.amazonaws.com", True),
        ("europe-west4-aiplatform.googleapis.com", True),
        ("s3.eu-west-1.amazonaws.com", False),
        ("notapi.openai.com", False),
        ("api.openai.com.evil.test", False),
    ],
)
def test_model_hosts(host: str, known: bool) -> None:
    """Providers are told by whole names, or by the ends that only they have."""
    assert is_model_host(host) is known


def test_the_hook_is_silent_when_nothing_is_recorded(capture: Capture, listening: int) -> None:
    """In a process that records as a library, connections are nobody's business."""
    capture.on()
    socket.create_connection(("127.0.0.1", listening)).close()
    assert not capture.read().notes
