"""What goes by clients that are not captured, noted with name and count; nothing captured, said at exit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.command import environment, here
from tracefork_backend.agents.recording import record
from tracefork_backend.store import open_store

LINE = (
    "from tracefork_otel import TraceforkInstrumentor\nTraceforkInstrumentor().instrument(http_spans=False)\n"
)
OURS = 'import httpx2\nhttpx2.get(f"{URL}/empty")\n'
CLIENTS = {
    "urllib": 'import urllib.request\ndef ask(): urllib.request.urlopen(f"{URL}/empty").read()\n',
    "http": (
        "import http.client\ndef ask():\n    c = http.client.HTTPConnection(HOST)\n"
        '    c.request("GET", "/empty")\n'
    ),
    "aiohttp": (
        "import aiohttp, asyncio\n"
        "async def get():\n"
        "    async with aiohttp.ClientSession() as session:\n"
        '        try: await session.ws_connect(f"{URL}/empty")\n'
        "        except aiohttp.WSServerHandshakeError: pass\n"
        "def ask(): asyncio.run(get())\n"
    ),
    "tornado": (  # what speaks HTTP on asyncio
        "import asyncio\n"
        "there = {'__name__': 'tornado.simple_httpclient', 'asyncio': asyncio}\n"
        "get = 'async def get(*place): (await asyncio.open_connection(*place))[1].close()'\n"
        "exec(compile(get, 'site-packages/tornado.py', 'exec'), there)\n"
        "def ask(): asyncio.run(there['get'](*HOST.split(':')))\n"
    ),
    "grpc": "import grpc\ndef ask(): grpc.insecure_channel(HOST)\n",
}
"""The agent's call, by the client's name."""


def agent(tmp_path: Path, raw: str, *parts: str) -> Path:
    """A script of these parts."""
    path = tmp_path / "agent.py"
    host = raw.partition("://")[2].partition("/")[0]
    path.write_text(f"URL, HOST = {raw!r}, {host!r}\n" + "".join(parts))
    return path


def run(path: Path) -> str:
    """What the script said on standard error, run by itself."""
    done = subprocess.run(
        [sys.executable, path], cwd=path.parent, env=environment(), capture_output=True, text=True, check=True
    )
    return done.stderr


OTHERS = """
import httpx2
def patch():
    before = httpx2.Client._send_single_request
    def theirs(self, request):
        return before(self, request)
    httpx2.Client._send_single_request = theirs
    def undo():
        httpx2.Client._send_single_request = before
    return undo
"""
GLOBAL = """
before = httpx2.Client._send_single_request
def theirs(self, request):
    return before(self, request)
httpx2.Client._send_single_request = theirs
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "lost"),
    [
        (("undo = patch()\n", LINE, OURS, "undo()\n", OURS), True),
        ((LINE, "undo = patch()\n", OURS, "undo()\n", OURS), False),
        ((LINE, "undo = patch()\n", OURS, OURS), False),
        (("undo = patch()\n", LINE, OURS, OURS), False),
        ((LINE, GLOBAL, OURS, OURS), False),
        ((GLOBAL, LINE, OURS, "httpx2.Client._send_single_request = before\n", OURS), True),
        (("undo = patch()\n", LINE, "undo()\n", OURS, LINE, OURS), True),
        (("undo = patch()\n", "again = patch()\n", LINE, "again()\n", OURS, LINE, OURS), True),
    ],
    ids=[
        "taken out",
        "taken back",
        "above ours",
        "below ours",
        "above, global",
        "taken out, global",
        "taken out, the line again",
        "the last of two taken out, the line again",
    ],
)
def test_a_hook_that_another_library_took_out_is_named(
    tmp_path: Path, raw: str, parts: tuple[str, ...], lost: bool
) -> None:
    """Two tools on one client: incomplete is the run in which undoing the other ended the recording."""
    run(agent(tmp_path, raw, OTHERS, *parts))
    with open_store(tmp_path / ".tracefork") as store:
        last = store.run("last")
        assert len(last.exchanges) == (1 if lost else 2)
        said = last.incomplete_reasons
    assert [reason.partition(" was")[0] for reason in said] == ["what records httpx2.Client"] * lost, said


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_the_one_line_notes_it_with_name_and_count(tmp_path: Path, raw: str, client: str) -> None:
    """Three times by one client to any host are one note that counts; the captured call is in no note."""
    said = run(agent(tmp_path, raw, LINE, OURS, CLIENTS[client], "for _ in range(3): ask()\n"))
    assert said == ""
    with open_store(tmp_path / ".tracefork") as store:
        last = store.run("last")
        assert last.complete
        (line,) = last.unseen
    assert line.startswith(f"{client} connected to 127.0.0.1:")
    assert ", 3 times at " in line
    assert "agent.py:" in line
    assert f"not recorded: {client}" in here("show", "last", cwd=tmp_path).out
    assert "maybe incomplete" in here("ls", cwd=tmp_path).out


@pytest.mark.slow
@pytest.mark.parametrize("client", ["urllib", "grpc", None])
def test_nothing_captured_is_said_at_exit(tmp_path: Path, raw: str, client: str | None) -> None:
    """By the line alone, with the client that was called, if one was; by `run` likewise."""
    parts = () if client is None else (CLIENTS[client], "ask()\n")
    said = run(agent(tmp_path, raw, LINE, *parts))
    assert "tracefork captured nothing" in said
    assert (f"{client} connected to 127.0.0.1:" in said) is (client is not None)
    path = agent(tmp_path, raw, *parts)
    recorded = record(tmp_path / "store", (sys.executable, str(path)))
    assert recorded.exit_status == 3
    assert (f"{client} connected" in recorded.problems[0]) is (client is not None)


@pytest.mark.slow
def test_nothing_is_said_of_what_is_no_clients(tmp_path: Path, raw: str) -> None:
    """Captured clients, sync and async, exporters and sockets of the agent's own are in no note."""
    other = """
import asyncio, httpx, socket
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
async def several():
    async with httpx.AsyncClient() as one, httpx2.AsyncClient() as two:
        named = URL.replace("127.0.0.1", "localhost")
        await asyncio.gather(one.get(f"{URL}/empty"), two.get(f"{named}/empty"))
asyncio.run(several())
address, port = HOST.split(":")
socket.create_connection((address, int(port))).close()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{URL}/echo")))
provider.get_tracer("a").start_span("b").end()
"""
    assert run(agent(tmp_path, raw, LINE, OURS, other)) == ""
    with open_store(tmp_path / ".tracefork") as store:
        assert not store.run("last").unseen


@pytest.mark.slow
def test_what_another_thread_looks_up_names_no_connection(tmp_path: Path, raw: str) -> None:
    """Between a name that one thread looks up and its own connection another connects; its address tells."""
    other = """
import socket, sys, threading
real = socket.getaddrinfo
def known(host, *args, **kwargs):
    if host == "api.openai.com":
        raise socket.gaierror(host)
    return real("127.0.0.1" if host == "tools.example" else host, *args, **kwargs)
socket.getaddrinfo = known
def look_up(name):
    thread = threading.Thread(target=sys.audit, args=("socket.getaddrinfo", name, 443, 0, 0, 0))
    thread.start()
    thread.join()
"""
    first, then = ('look_up("api.openai.com")\nask()\n', 'look_up("tools.example")\nask()\n')
    run(agent(tmp_path, raw, LINE, OURS, CLIENTS["tornado"], other, first, then))
    with open_store(tmp_path / ".tracefork") as store:
        hosts = [line.split()[3].partition(":")[0] for line in store.run("last").unseen]
    assert hosts == ["127.0.0.1", "tools.example"]
