"""A service that the run's own processes offer is not the tape's business."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tracefork_backend as tf
from forked import Desk, at_desk
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.replaying import replay

SERVICE = """
import http.server, sys, time
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
time.sleep(0.3)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Service).serve_forever()
"""
CHILD = """
import socket, subprocess, time, urllib.request
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
child = subprocess.Popen([sys.executable, "service.py", str(port)], env={})
for _ in range(200):
    try:
        httpx2.get(f"http://localhost:{port}/health").raise_for_status()
        break
    except httpx2.ConnectError:
        time.sleep(0.05)
else:
    raise SystemExit("the service does not start")
urllib.request.urlopen(f"http://127.0.0.1:{port}/again")
print(say("hi"))
httpx2.get(f"http://localhost:{port}/bye").raise_for_status()
child.kill()
"""
WITHIN = """
import http.server, threading
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_address[1]}"
assert httpx2.get(url).status_code == 204
print(say("hi"))
"""
BEGINS = """
import http.server, threading
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service, bind_and_activate=False)
server.server_bind()
url = f"http://127.0.0.1:{server.server_address[1]}"
def listen(event="connection.connect_tcp.started", told=None):
    if event == "connection.connect_tcp.started":
        server.server_activate()
        threading.Thread(target=server.serve_forever, daemon=True).start()
try:
    assert httpx2.Client().request("GET", url, extensions={"trace": listen}).status_code == 204
except httpx2.ConnectError:
    listen()
assert httpx2.get(url).status_code == 204
print(say("hi"))
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with a service that listens after a while."""
    (tmp_path / "service.py").write_text(SERVICE)
    with at_desk(tmp_path, monkeypatch) as one:
        yield one


@pytest.mark.slow
def test_a_service_that_the_agent_starts(desk: Desk) -> None:
    """Talk with it is no step, refused attempts included; replay and fork talk to another one."""
    run = desk.recorded(CHILD)
    assert [one.request.method for one in run.exchanges] == ["POST"]
    assert run.complete, run.incomplete_reasons
    result = replay(run)
    assert result.passed, result.receipt
    assert "EDITED" in fork(run, at=0, edit=tf.text("EDITED"), tail="offline").stdout


@pytest.mark.slow
def test_a_service_in_the_agents_own_process(desk: Desk) -> None:
    """A web interface that the agent serves and asks itself."""
    run = desk.recorded(WITHIN)
    assert run.steps == 1
    assert replay(run).passed


@pytest.mark.slow
def test_a_service_that_begins_to_listen_as_it_is_asked(desk: Desk) -> None:
    """It was looked for in vain a moment before, and answers: no step either."""
    run = desk.recorded(BEGINS)
    assert [one.request.method for one in run.exchanges] == ["POST"]
    assert run.complete, run.incomplete_reasons
    assert replay(run).passed


@pytest.mark.slow
def test_a_place_where_nobody_listens(desk: Desk) -> None:
    """A refused attempt is a step, and is played; one that the recording had not fails the replay."""
    refused = "try: httpx2.get('http://127.0.0.1:9/health')\nexcept httpx2.ConnectError: pass\nsay('hi')"
    run = desk.recorded(refused)
    assert run.steps == 2
    assert replay(run).passed
    desk.write(refused.replace(":9/", ":11/"))
    result = replay(run)
    assert not result.passed
    assert any("127.0.0.1:11/health was not served" in line for line in result.receipt)


@pytest.mark.slow
def test_a_service_of_somebody_else(desk: Desk) -> None:
    """It is not asked in a replay, which its recorded answers are for."""
    run = desk.recorded("import json\nhttpx2.get(os.environ['AGENT_URL'] + '/raw/204')\nsay('hi')")
    assert run.steps == 2
    desk.server.requests.clear()
    assert replay(run).passed
    assert not desk.server.requests
