"""Agents that others call, as the docs have them: a task of Celery's, a handler of Lambda's runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from docs.test_docs import ROOT, blocks
from e2e.command import environment, here
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import open_store

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model that repeats what it is asked."""
    with ModelServer(lambda call: Reply(text=f"heard {call.last}")) as running:
        yield running


def write(folder: Path, marker: str) -> None:
    """Have the block of the page that has this in it as `agent.py`."""
    (block,) = [text for _, text in blocks(ROOT / "docs" / "frameworks.md") if marker in text]
    (folder / "agent.py").write_text(block)


def keys(server: ModelServer) -> dict[str, str]:
    """What the agent finds its model by."""
    return {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "none"}


def held(folder: Path, server: ModelServer, wanted: list[str], name: str, entry: str) -> None:
    """Each call is a run of its own, which is called again in a replay and a fork, with no worker."""
    with open_store(folder / ".tracefork") as store:
        rows = store.sql("select name, entrypoint, steps, complete from runs").fetchall()
        runs = [store.run(one) for (one,) in store.sql("select run_id from runs").fetchall()]
        said = {run.exchanges[0].response.body for run in runs if run.exchanges[0].response}
    assert rows == [(name, entry, 1, True)] * len(wanted)
    assert all(any(one.encode() in body for body in said) for one in wanted)
    asked = len(server.requests)
    again = here("replay", "last", cwd=folder, **keys(server))
    assert "PASS    bit-exact" in again.out, again.out + again.err
    forked = here("fork", "last@0", "--text", "another answer", cwd=folder, **keys(server))
    assert "another answer" in forked.out, forked.out + forked.err
    assert len(server.requests) == asked


@pytest.mark.parametrize(("pool", "run"), [("solo", True), ("solo", False), ("prefork", False)])
def test_a_task_of_celery(pool: str, run: bool, server: ModelServer, tmp_path: Path) -> None:
    """By a worker of either pool, with a queue of files; also a worker that `run` records."""
    pytest.importorskip("celery")
    write(tmp_path, "from celery import")
    recording = ["-m", "tracefork_backend.cli", "run", "--", sys.executable] if run else []
    (tmp_path / "data_in").mkdir()
    (tmp_path / "data_out").symlink_to("data_in")
    env = environment(**keys(server), CELERY_BROKER_URL="filesystem://")
    words = ("-A", "agent", "worker", "--pool", pool, "--concurrency", "2", "--loglevel", "INFO")
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, *recording, "-m", "celery", *words],
            cwd=tmp_path,
            env=env,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        code = "from agent import answer; answer.delay('one'); answer.delay(question='two')"
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, timeout=60, capture_output=True
        )
        deadline = time.monotonic() + 60
        while log.read_text().count("succeeded in") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        if run:  # as by Ctrl-C
            os.killpg(worker.pid, signal.SIGINT)
        else:
            worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    assert "heard one" in log.read_text(), log.read_text()
    held(tmp_path, server, ["heard one", "heard two"], "task agent.answer", "task:agent:answer")


@contextmanager
def runtime_api(events: list[Any], answers: list[Any]) -> Iterator[str]:
    """Where Lambda's runtime finds these events and puts its answers; the last event never comes."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not events:
                over.wait(60)
                return
            body = json.dumps(events.pop(0)).encode()
            self.send_response(200)
            self.send_header("Lambda-Runtime-Aws-Request-Id", "asked")
            self.send_header("Lambda-Runtime-Deadline-Ms", str(round(time.time() * 1000) + 60_000))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:f")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        thread = threading.Thread(target=api.serve_forever)
        thread.start()
        yield f"127.0.0.1:{api.server_port}"
        over.set()
        api.shutdown()
        thread.join()


def test_a_handler_of_lambda(server: ModelServer, tmp_path: Path) -> None:
    """By Amazon's own runtime, which has the events and the answers as AWS would."""
    pytest.importorskip("awslambdaric")
    write(tmp_path, "def handler(event, context)")
    answers: list[Any] = []
    about = ("FUNCTION_NAME", "FUNCTION_VERSION", "LOG_GROUP_NAME", "LOG_STREAM_NAME")
    told = {f"AWS_LAMBDA_{name}": "f" for name in about} | {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}
    with runtime_api([{"question": "one"}, {"question": "two"}], answers) as api:
        env = environment(**keys(server), **told, AWS_LAMBDA_RUNTIME_API=api, LAMBDA_TASK_ROOT=str(tmp_path))
        runtime = subprocess.Popen(
            [sys.executable, "-m", "awslambdaric", "agent.handler"], cwd=tmp_path, env=env
        )
        deadline = time.monotonic() + 60
        while len(answers) < 2 and time.monotonic() < deadline and runtime.poll() is None:
            time.sleep(0.1)
        os.kill(runtime.pid, signal.SIGKILL)  # as AWS ends a machine that it no longer needs
        runtime.wait(30)
    assert answers == [{"statusCode": 200, "body": f"heard {one}"} for one in ("one", "two")]
    held(tmp_path, server, ["heard one", "heard two"], "invoke_agent answer", "agent:answer")
