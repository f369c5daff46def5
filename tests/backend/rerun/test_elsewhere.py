"""Forks by an executor: jobs of bytes, whose runs are in the store as if they had been made here."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from forked import Desk, at_desk
from tracefork_backend.executors.engines import opened
from tracefork_backend.grading.regex import regex
from tracefork_backend.matrices.matrix import matrix
from tracefork_backend.rerun.edits import resample, text
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.job import Outcome
from tracefork_backend.rerun.work import differences
from tracefork_backend.store import open_store

from tracefork_otel import AgentFailed, UsageError
from tracefork_otel.tape.start import HowStarted

FOUR = "print(*[say(word) for word in 'abcd'])"
CALLED = """
    from tracefork_otel import agent

    @agent
    def ask(words="abc"):
        return [say(word) for word in words]
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model answers in capitals."""
    with at_desk(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[Executor]:
    """Workers that are threads of this process: what they are given and give is the same bytes."""
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Answering(Executor):
    """An executor whose worker gives what it is told to."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.jobs: list[bytes] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return what the answer is, or raises."""
        self.jobs.append(args[0])
        future: Future[Any] = Future()
        try:
            future.set_result(self.answer(args[0]))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.slow
def test_a_fork_by_an_executor_is_the_one_that_is_made_here(desk: Desk, threads: Executor) -> None:
    """Command, output, exchanges, spans, cost and store are the same, only the ids are others."""
    run = desk.recorded(FOUR)
    here, there = fork(run, at=1, edit=text("other")), fork(run, at=1, edit=text("other"), executor=threads)
    assert there.problem is None, there.problem
    assert (there.stdout, there.steps, there.calls_live) == ("A other C D\n", 4, 2)
    free = {"run_id": "", "seconds": 0.0, "store": None, "cost_usd": None}
    assert replace(there, **free) == replace(here, **free)
    assert there.cost_usd == pytest.approx(here.cost_usd)
    kept = open_store(desk.store_path).run(there.run_id)
    assert (kept.kind, kept.parent_run_id, kept.status) == ("fork", run.run_id, "ok")
    assert [one.replayed for one in kept.exchanges] == [True, True, False, False]
    again = fork(kept, at=2, edit=text("deeper"), executor=threads)
    assert again.stdout == "A other deeper D\n"


@pytest.mark.slow
def test_a_function_is_forked_by_workers_that_import_it_once(desk: Desk, threads: Executor) -> None:
    """Several at a time; a matrix of them is graded by what came back."""
    run = desk.called(CALLED, "ask()")
    made = fork(run, at=0, edit=text("x"), times=4, jobs=2, executor=threads, timeout=60)
    assert [one.problem for one in made] == [None] * 4
    assert {str(one.result) for one in made} == {'["x", "B", "C"]'}
    grid = matrix([(run, 0)], [text("x"), text("y")], times=2, executor=threads, oracle=regex("C"))
    assert [[one.outcome for one in cell.forks] for cell in grid.cells] == [[True, True], [True, True]]


@pytest.mark.slow
def test_trials_that_share_answers_share_them_there_too(desk: Desk, threads: Executor) -> None:
    """What an earlier trial was answered goes to the later one with its job."""
    run = desk.called(CALLED, "ask()")
    with Forker(run, executor=threads) as forker:
        asked = Planned(change=text("x").bind(forker.tape, 0), replicate="one")
        first, second, third = forker.forks([asked, asked, replace(asked, replicate="other")])
    assert [one.problem for one in (first, second, third)] == [None] * 3
    assert [(one.calls_live, one.calls_memo) for one in (first, second, third)] == [(2, 0), (0, 2), (2, 0)]


@pytest.mark.slow
def test_a_lost_worker_has_spent_its_share(desk: Desk) -> None:
    """Its fork says so, and is a call without a price: nobody knows what it took."""
    run = desk.recorded(FOUR)

    def lose(job: bytes) -> bytes:
        raise ConnectionError("the node went away\nfor good")

    lost = fork(run, at=1, edit=resample(), executor=Answering(lose))
    assert lost.problem is not None
    assert lost.problem.kind == "not_started"
    assert "its worker was lost: ConnectionError: the node went away" in lost.problem.text
    assert (lost.unpriced, lost.calls_live, lost.outcome) == (1, 0, None)
    grid = matrix(
        [(run, 1)], [resample()], times=9, executor=Answering(lose), oracle=regex("D"), budget_usd=0.001
    )
    # Each books all that was set aside for it, so the budget ends the search.
    assert 0 < len(grid.forks) < 9


@pytest.mark.slow
@pytest.mark.parametrize("came", [b"", b"no zip", Outcome(refused="it has no agent").to_bytes()])
def test_what_comes_back_wrong_is_told(desk: Desk, came: bytes) -> None:
    """Bytes that are no result lose the fork; a refusal ends the search in the worker's words."""
    run = desk.recorded(FOUR)
    executor = Answering(lambda job: came)
    if came.startswith(b"PK"):
        with pytest.raises(UsageError, match="a worker refused the job: it has no agent"):
            fork(run, at=1, edit=text("x"), times=3, executor=executor)
        assert len(executor.jobs) == 1
    else:
        made = fork(run, at=1, edit=text("x"), executor=executor)
        assert made.problem is not None
        assert "what came back of its job cannot be read" in made.problem.text


def test_a_function_of_this_process_is_nobody_elses(desk: Desk, threads: Executor) -> None:
    """It cannot be sent, and its code is not."""
    run = desk.recorded(FOUR)
    with pytest.raises(UsageError, match="name one of a module that they have too"):
        fork(run, at=1, edit=text("x"), agent=lambda: None, executor=threads)


@pytest.mark.slow
def test_an_executor_that_is_closed_is_said(desk: Desk) -> None:
    """By its own words."""
    run = desk.recorded(FOUR)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(AgentFailed, match="the executor takes no more jobs: RuntimeError: cannot schedule"):
        fork(run, at=1, edit=text("x"), executor=executor)


@pytest.mark.slow
def test_an_interrupt_does_not_wait_for_workers(desk: Desk) -> None:
    """The job that nobody has begun is taken back, and nothing is said to be kept."""
    run = desk.recorded(FOUR)
    given, future = threading.Event(), Future[Any]()

    class Never(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            given.set()
            return future

    def interrupt() -> None:
        assert given.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as told:
        fork(run, at=1, edit=text("x"), times=2, jobs=2, executor=Never())
    assert future.cancelled()
    assert all("is lost: a worker had it" in note for note in told.value.__notes__)


@pytest.mark.slow
def test_processes_as_workers_and_one_that_is_killed(desk: Desk) -> None:
    """`--executor process`: what a killed worker had is lost, and the pool says that it takes no more."""
    run = desk.recorded(FOUR)
    with opened("process") as engine:
        made = fork(run, at=1, edit=text("x"), times=4, jobs=2, executor=engine.executor)
        assert [one.stdout for one in made] == ["A x C D\n"] * 4
        worker = next(iter(multiprocessing.active_children()))
        worker.kill()
        worker.join()
        with pytest.raises(AgentFailed, match="takes no more jobs"):
            fork(run, at=1, edit=text("x"), times=9, executor=engine.executor)


def test_a_worker_that_differs_is_named_by_what_differs(tmp_path: Path) -> None:
    """Python by its minor version, packages by name, the commit where both are known."""
    python = sys.version.split()[0]
    near = {"python": f"{python.rpartition('.')[0]}.99"}
    assert differences(HowStarted(entrypoint="a:b", versions=near), None, tmp_path) == []
    far = HowStarted(entrypoint="a:b", versions={"python": "3.4.1", "no.such": "1", "httpx2": "0.0.1"})
    httpx2 = metadata.version("httpx2")
    assert differences(far, None, tmp_path) == [
        f"httpx2 0.0.1 was recorded, here is {httpx2}",
        "no.such 1 was recorded, here is none",
        f"Python 3.4.1 was recorded, here is {python}",
    ]
    # Of a command with an interpreter of its own nothing is known here.
    other = HowStarted(command=("/bin/sh", "x"), versions={"python": "3.4.1"})
    assert differences(other, None, tmp_path) == []
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(
        ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True
    )
    (named,) = differences(HowStarted(entrypoint="a:b", git_commit="f" * 40), None, tmp_path)
    assert named.startswith(f"commit {'f' * 12} was recorded, {tmp_path} is at ")


@pytest.mark.slow
def test_a_worker_that_differs_refuses_unless_it_is_told_otherwise(desk: Desk, threads: Executor) -> None:
    """Before anything is paid."""
    subprocess.run(["git", "init", "-q", str(desk.folder)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    commit = ["git", "-C", str(desk.folder), *identity, "commit", "-q", "--allow-empty", "-m"]
    subprocess.run([*commit, "one"], check=True)
    run = desk.recorded(FOUR)
    subprocess.run([*commit, "two"], check=True)
    with pytest.raises(UsageError, match=r"commit \w{12} was recorded, .* is at \w{12}; make it the same"):
        fork(run, at=1, edit=resample(), executor=threads)
    assert desk.asked() == []
    made = fork(run, at=1, edit=text("x"), executor=threads, allow_drift=True)
    assert made.stdout == "A x C D\n"
