"""An agent whose store has no room left is not harmed, and the loss is shown to whoever looks."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.command import environment, here
from tracefork_backend.simulate import ModelServer
from tracefork_backend.store import open_store

CALLS, SIZE = 60, 40_000
LIMIT = 1_500_000
"""Of about 60 × (40 kB there and 40 kB back), a part."""

AGENT = f"""
import hashlib, random, sys
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument()
import httpx2
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("agent").start_as_current_span("fill"), httpx2.Client() as client:
    for number in range({CALLS}):
        body = random.Random(number).randbytes({SIZE})
        assert client.post(sys.argv[1], content=body).content == body
        print(hashlib.sha256(body).hexdigest())
print("done")
"""


def run_agent(store: Path, *, file_limit: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """The agent has run to its end, each of its files limited in size, and said what it sent."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

    with ModelServer() as server:
        return subprocess.run(
            [sys.executable, "-c", AGENT, f"{server.url}/raw/echo"],
            env=environment(TRACEFORK_STORE=str(store)),
            preexec_fn=limit,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def check_loss_is_shown(store: Path, done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """The agent came to its end, `ls` and `doctor` tell of the loss, and what was accepted is whole."""
    assert done.returncode == 0, done.stderr
    *sent, last = done.stdout.split()
    assert (last, len(sent)) == ("done", CALLS)
    # Said once for each kind of record, not once for each record.
    assert 0 < done.stderr.count("tracefork could not record") <= 4, done.stderr
    assert "The application goes on" in done.stderr
    listed = here("ls", "--store", store, cwd=folder)
    assert listed.status == 0, listed.err
    assert "fill" in listed.out
    assert re.search(r"^\d+ records? lost: ", listed.err, re.MULTILINE)
    doctor = here("doctor", "--store", store, cwd=folder)
    assert doctor.status == 1
    assert "lost: " in doctor.out
    with open_store(store) as opened:
        assert opened.losses() > 0
        run = opened.run("last")
        assert not run.complete
        whole = [exchange for exchange in run.exchanges if exchange.outcome == "complete"]
        bodies = [hashlib.sha256(exchange.request.body).hexdigest() for exchange in whole]
        assert [exchange.damage for exchange in whole if exchange.damage] == []
        assert all(
            exchange.response and exchange.response.body == exchange.request.body for exchange in whole
        )
        assert 10 < len(bodies) < CALLS
        assert bodies == sent[: len(bodies)]
        unanswered = [exchange for exchange in run.exchanges if exchange.outcome != "complete"]
        assert {exchange.outcome for exchange in unanswered} <= {"in_flight"}


@pytest.mark.slow
def test_an_agent_whose_files_cannot_grow(tmp_path: Path) -> None:
    """With a limit on the size of files the agent ends well, and the loss is shown."""
    store = tmp_path / "store"
    check_loss_is_shown(store, run_agent(store, file_limit=LIMIT), tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={LIMIT},mode=0700", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root and a kernel that lets it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_an_agent_whose_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    """On a full disk the agent ends well, the loss is shown, and all is readable without room to seal."""
    store = small_disk / "store"
    check_loss_is_shown(store, run_agent(store), tmp_path)


@pytest.mark.slow
def test_an_agent_whose_disk_was_full_before(small_disk: Path, tmp_path: Path) -> None:
    """Where not even a WAL can be begun the agent ends well, and `ls` finds an empty store."""
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    assert os.write(filler, bytes(2 * LIMIT)) < 2 * LIMIT
    os.close(filler)
    done = run_agent(small_disk / "store")
    assert done.returncode == 0
    assert done.stdout.split()[-1] == "done"
    assert "tracefork could not record" in done.stderr
    assert here("ls", "--store", small_disk / "store", cwd=tmp_path).status == 0
