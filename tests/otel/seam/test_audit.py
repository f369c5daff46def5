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
from tracefork_otel.wire.registry import is_model_host


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


@pytest.mark.slow
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


REAL_CLIENTS = {
    "aiohttp": """
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        try: await session.ws_connect("https://api.openai.com/v1/realtime")
        except aiohttp.ClientError: pass
asyncio.run(main())
""",
    "urllib": """
import urllib.request
try: urllib.request.urlopen("https://api.openai.com/v1/models")
except OSError: pass
""",
    "curl": """
import subprocess
words = ["curl", "-s", "-H", "x: https://elsewhere.test", "https://api.openai.com/v1"]
subprocess.run(words, env={"PATH": DEAD})
""",
    "sh": """
import os
os.environ["PATH"] = DEAD
os.system("exec 2>&-; curl -s 'https://api.openai.com/v1/models' | wc -l")
""",
    "claude": """
import subprocess
subprocess.run(["claude", "-p", "hello"], env={"PATH": DEAD})
""",
}
"""One call of OpenAI by each client; no name is resolved, and no program is there under DEAD but `true`."""


@pytest.mark.parametrize("mode", ["record", pytest.param("replay", marks=pytest.mark.slow)])
@pytest.mark.parametrize("client", REAL_CLIENTS)
def test_each_client_is_named(client: str, mode: str, tmp_path: Path) -> None:
    """A websocket of aiohttp, urllib, curl, a shell's and a model's own program are named, with the place."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("curl", "claude", "wc"):
        (programs / name).symlink_to("/bin/true")
    script = tmp_path / "agent.py"
    script.write_text(
        "import socket\n"
        "real = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, *a, **k: real(host, 443, flags=socket.AI_NUMERICHOST)\n"
        f"DEAD = {str(programs)!r}\n" + REAL_CLIENTS[client]
    )
    env = launched(TRACEFORK_MODE=mode)
    if mode == "replay":
        Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "run.tape")
        env["TRACEFORK_TAPE"] = str(tmp_path / "run.tape")
    run_python([str(script)], store=tmp_path / "store", **env)
    notes = read_store(tmp_path / "store").notes
    host = {"claude": "claude"}.get(client, "api.openai.com")
    named = {"sh": "curl"}.get(client, client)
    (note,) = [note for note in notes if note.attributes["host"] == host]
    assert note.kind == ("incomplete" if mode == "record" else "leak")
    said = str(note.attributes["why" if mode == "record" else "caller"])
    assert named in said
    if client != "aiohttp":  # it looks names up in a thread that knows nothing of its caller
        assert "agent.py:" in said
    assert len(notes) <= 2


STARTS = {
    "execve": "os.execve(PROGRAM, ['claude', '-p', 'hello'], dict(os.environ))",
    "execvpe": "os.execvpe('claude', ['claude'], {'PATH': os.path.dirname(PROGRAM)})",
    "execle": "os.execle(PROGRAM, 'claude', {})",
    "execv": "os.execv(PROGRAM, ['claude'])",
    "spawnve": "os.spawnve(os.P_WAIT, PROGRAM, ['claude'], {})",
    "posix_spawn": "os.waitpid(os.posix_spawn(PROGRAM, ['claude'], {}), 0)",
    "second": """
try: subprocess.Popen(['claude'], executable='/nonexistent')
except OSError: pass
subprocess.Popen(['claude'], executable=PROGRAM).wait()
subprocess.Popen(['claude'], executable=PROGRAM).wait()""",
}


@pytest.mark.parametrize(
    ("way", "mode"), [*((way, "record") for way in STARTS), ("execve", "replay"), ("second", "replay")]
)
def test_a_program_is_noted_once_however_it_is_started(way: str, mode: str, tmp_path: Path) -> None:
    """Also where it takes the place of this process, or a start of it failed before."""
    program = tmp_path / "claude"
    program.symlink_to("/bin/true")
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "run.tape")
    code = f"import os, subprocess\nPROGRAM = {str(program)!r}\n{STARTS[way]}"
    env = launched(TRACEFORK_MODE=mode, TRACEFORK_TAPE=str(tmp_path / "run.tape"))
    run_python(code, store=tmp_path / "store", **env)
    (note,) = read_store(tmp_path / "store").notes
    assert (note.kind, note.attributes["host"]) == ("incomplete" if mode == "record" else "leak", "claude")


def test_each_program_of_a_line_is_noted(tmp_path: Path) -> None:
    """Also behind a Python, and beside another that asks a model."""
    line = "python -c 'https://api.openai.com'; claude -p x; curl https://api.openai.com/v1"
    code = f"""
import subprocess
subprocess.run(["/bin/sh", "-c", {line!r}], env={{"PATH": "/nowhere"}}, stderr=subprocess.DEVNULL)
"""
    run_python(code, store=tmp_path, **launched())
    assert [note.attributes["client"] for note in read_store(tmp_path).notes] == ["claude", "curl"]


def test_programs_of_other_kinds_are_nobody(tmp_path: Path) -> None:
    """Programs that call no model are no gap: curl of another host, a word, a file's name, git, Python."""
    code = """
import subprocess, sys
for words in (["curl", "https://example.test"], ["echo", "claude", "gemini"], ["cat", "api.openai.com.txt"],
              ["git", "clone", "https://github.test/x"], [sys.executable, "-c", "'https://api.openai.com'"]):
    try: subprocess.Popen(words, env={"PATH": "/nowhere"}).wait()
    except OSError: pass
"""
    run_python(code, store=tmp_path, **launched())
    assert not read_store(tmp_path).notes


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
