"""A store in a bucket, on a real S3 server on loopback."""

from __future__ import annotations

import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.booking import BOOKING, GRADED
from e2e.command import BARE, Typed, environment, tracefork
from stored import record
from tracefork_backend.store import open_store
from tracefork_backend.store.mirror import seal

from tracefork_otel import StoreError
from tracefork_otel.store.bucket import Bucket, push_dead

moto: Any = pytest.importorskip("moto.server")
pytest.importorskip("obstore")
pytestmark = pytest.mark.slow

URL = "s3://bucket/store"
ONE_LINE = """
import os, signal, sys, runpy
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument()
ending = sys.argv[1]
sys.argv = [sys.argv[2], "--city", "Osaka"]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "obstore" not in sys.modules
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
KINDS = "select kind, count(*) as runs, sum(steps) as steps from runs group by all order by all"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment in which a bucket of this test's own is found, which is also this process's."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    # All servers of a process have the same buckets.
    reset = urllib.request.Request(f"{found['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    import botocore.session

    client: Any = botocore.session.get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=found["AWS_ENDPOINT_URL"]
    )
    client.create_bucket(Bucket="bucket")
    yield found
    server.stop()


def _typed(folder: Path, *words: str | Path, **extra: str) -> Typed:
    return tracefork(*words, cwd=folder, **BARE, **extra)


def test_what_agents_of_two_machines_recorded_is_one_store(tmp_path: Path, aws: dict[str, str]) -> None:
    """One of them is killed: the next on its machine pushes what it left."""
    import subprocess

    for ending, status in (("killed", -9), ("by itself", 0)):
        done = subprocess.run(
            [sys.executable, "-c", ONE_LINE, ending, str(BOOKING)],
            env={**environment(), **aws, **BARE, "TRACEFORK_STORE": URL},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == status, done.stderr
    other = {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
    two = _typed(tmp_path, "sql", "--store", URL, "--json", KINDS, **other)
    assert [(row["kind"], row["runs"], row["steps"]) for row in two.rows] == [("record", 2, 10)], two.err
    ran = _typed(tmp_path, "run", "--store", URL, "--", sys.executable, BOOKING, "--city", "Osaka", **other)
    assert ran.status == 0, ran.err
    assert "PASS" in (played := _typed(tmp_path, "replay", "last", "--store", URL)).out, played.err
    change = '{"flight": "NH176", "date": "2026-11-03"}'
    edited = ("--tool-input", change, *GRADED, "--store", URL)
    forked = _typed(tmp_path, "fork", "last~1@2", *edited)
    assert "outcome: success" in forked.out, forked.out + forked.err
    before = _typed(tmp_path, "sql", "--store", URL, "--json", KINDS, **other)
    assert [(row["kind"], row["runs"]) for row in before.rows] == [("fork", 1), ("record", 3), ("replay", 1)]
    sealed = _typed(tmp_path, "compact", "--store", URL)
    assert sealed.status == 0, sealed.err
    for cache in ("cache", "elsewhere", "a third"):
        found = _typed(tmp_path, "sql", "--store", URL, "--json", KINDS, XDG_CACHE_HOME=str(tmp_path / cache))
        assert found.rows == before.rows, found.err
    assert not Bucket(URL).parts()
    assert "5 of 5 exchanges whole" in _typed(tmp_path, "show", "last~2", "--store", URL).out


def test_each_exchange_is_there_once_though_two_seal_while_eight_write(
    tmp_path: Path, aws: dict[str, str]
) -> None:
    """A WAL that is pushed again, as by a pusher that was killed before it removed it, is stored once."""
    ended = threading.Event()
    failed: list[BaseException] = []

    def guarded(work: Any) -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    def write(number: int) -> None:
        for at in range(5):
            folder = tmp_path / f"{number}-{at}"
            record(folder, steps=2)
            push_dead(folder, Bucket(URL), keep=True)
            if at % 2:
                push_dead(folder, Bucket(URL))

    def sealing() -> None:
        while not ended.is_set():
            seal(URL)

    writers = [threading.Thread(target=guarded, args=(lambda n=n: write(n),)) for n in range(8)]
    sealers = [threading.Thread(target=guarded, args=(sealing,)) for _ in range(2)]
    for thread in (*writers, *sealers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in sealers:
        thread.join()
    for number in range(8):
        push_dead(tmp_path / f"{number}-0", Bucket(URL))  # what is sealed already comes once more
    assert not failed, failed
    for _ in range(2):
        with open_store(URL) as store:
            asked = store.sql("select count(*), count(distinct run_id) from exchanges")
            ((all_of_them, runs),) = asked.fetchall()
        assert (all_of_them, runs) == (80, 40)
        seal(URL)
    assert not Bucket(URL).parts()


def test_a_bucket_that_overwrites_is_refused(
    tmp_path: Path, aws: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is stored, which stays where it was."""
    record(tmp_path / "spool", steps=1)
    monkeypatch.setattr(Bucket, "put_new", lambda *given: True)
    with pytest.raises(StoreError, match="takes no conditional writes"):
        push_dead(tmp_path / "spool", Bucket(URL))
    assert list((tmp_path / "spool" / "wal").iterdir())


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path, aws: dict[str, str]) -> None:
    """No such bucket, a verb that does not work on one yet, a manifest of somebody else's."""
    _typed(tmp_path, "ls", "--store", "s3://nowhere/x").refused("s3://nowhere/x", "bucket")
    _typed(tmp_path, "blame", "last", "--store", URL).refused("blame", URL)
    Bucket(URL).put_new("MANIFEST.json", b"[]")
    _typed(tmp_path, "ls", "--store", URL).refused("MANIFEST.json", "not a manifest")
