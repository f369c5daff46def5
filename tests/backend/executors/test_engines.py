"""Executors by their names: real Ray on two nodes, real Dask on two workers, and what names nothing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tracefork_backend as tf
from forked import Desk, at_desk
from tracefork_backend import cli
from tracefork_backend.executors.engines import opened

from tracefork_otel import UsageError

TWO = "print(*[say(word) for word in 'abc'])"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


def two_threads() -> ThreadPoolExecutor:
    """An executor of the user's."""
    return ThreadPoolExecutor(2)


def no_executor() -> int:
    """Something else."""
    return 7


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slurm", "use process, ray, dask://HOST:PORT or PKG.MOD:FACTORY"),
        ("no.such:make", "No module named 'no'"),
        ("os:nothing", "has no attribute 'nothing'"),
        (f"{__name__}:no_executor", "gives int, which is no concurrent.futures.Executor"),
    ],
)
def test_a_name_of_no_executor_is_refused(name: str, said: str) -> None:
    """With the names that there are."""
    with pytest.raises(UsageError) as told, opened(name):
        pass
    assert str(told.value).startswith(f"--executor {name}: ")
    assert said in str(told.value)


def test_an_executor_of_the_users_is_made_and_closed() -> None:
    """By its factory."""
    with opened(f"{__name__}:two_threads") as engine:
        assert engine.executor.submit(len, "ab").result() == 2
    with pytest.raises(RuntimeError):
        engine.executor.submit(print)


@pytest.mark.slow
def test_the_command_line_takes_an_executor(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    """A matrix, blame and its resumption by processes; the journal is the same, whoever makes the forks."""
    desk.recorded(TWO)
    where = ("--store", str(desk.store_path))
    by = ("--executor", "process", "--success-re", "C")
    assert cli._run(["fork", "last@0", "--text", "x", "--times", "3", *by, *where]) == 0
    assert "3 of 3 forks" in capfd.readouterr().out
    with tf.open_store(desk.store_path) as store:
        (run,) = [one.run_id for one in store.runs() if one.kind == "record"]
    cli._run(["blame", run, "--max-trials", "3", *by, *where])
    assert cli._run(["blame", "resume", "last", "--max-trials", "6", "--jobs", "1", *where]) == 0
    assert "6 forks" in capfd.readouterr().out


def has(module: str) -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec(module) is not None


@contextmanager
def dask(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, each of one thread: its address, and they."""
    file = folder / "scheduler.json"
    base = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*base, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    workers: list[subprocess.Popen[bytes]] = []
    try:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
        alone = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder / "dask")]
        workers += [
            subprocess.Popen([*worker, *alone], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        distributed: Any = importlib.import_module("distributed")
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address.removeprefix("tcp://")
        yield address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(not has("distributed"), reason="Dask is not installed")
def test_dask_makes_forks_and_a_worker_that_dies_loses_its_own(desk: Desk, tmp_path: Path) -> None:
    """Two workers; one is killed while it has a job, and the other goes on."""
    run = desk.recorded("print(*[say(word) for word in 'ab'])\n")
    with dask(tmp_path) as (address, workers), opened(f"dask://{address}") as engine:
        assert engine.width == 2
        made = tf.fork(run, at=0, edit=tf.text("x"), times=6, jobs=2, executor=engine.executor)
        assert [one.problem for one in made] == [None] * 6
        assert {one.stdout for one in made} == {"x B\n"}
        workers[0].send_signal(signal.SIGKILL)
        again = tf.fork(run, at=0, edit=tf.text("x"), times=6, jobs=2, executor=engine.executor)
    assert sum(one.problem is None for one in again) >= 5
    assert all("its worker was lost" in str(one.problem) for one in again if one.problem is not None)
    kept = tf.open_store(desk.store_path).rows("SELECT count(*) AS n FROM runs WHERE kind = 'fork'")
    assert kept[0]["n"] >= 11


@pytest.mark.slow
@pytest.mark.skipif(not has("ray"), reason="Ray is not installed")
def test_ray_makes_forks_on_two_nodes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of two nodes, each of one processor; a worker that dies loses its own job."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # It takes the loopback address of a cluster for this machine's name to others.
    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda address=None: "127.0.0.1")
    ray: Any = importlib.import_module("ray")
    utility: Any = importlib.import_module("ray.cluster_utils")
    run = desk.recorded(TWO)
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
    head = {**node, "include_dashboard": False}
    cluster = utility.Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(**node)
        ray.init(address=cluster.address, log_to_driver=False)
        with opened("ray") as engine:
            assert engine.width == 2
            made = tf.fork(run, at=0, edit=tf.text("x"), times=6, jobs=2, executor=engine.executor)
        assert [one.problem for one in made] == [None] * 6
        assert {one.stdout for one in made} == {"x B C\n"}
        assert tf.ray_executor(num_cpus=0.5).submit(os.getpid).result(60) != os.getpid()
        lost = tf.ray_executor().submit(os._exit, 3)
        with pytest.raises(Exception, match="died"):
            lost.result(60)
    finally:
        ray.shutdown()
        cluster.shutdown()
