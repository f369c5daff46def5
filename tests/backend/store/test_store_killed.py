"""What removes and merges, killed at each of its steps: all or nothing, and nothing else is touched."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored import Recorder, answered, asked, trace
from tracefork_backend.store import doctor, facts, open_store, removing
from tracefork_backend.store.compacting import pack
from tracefork_backend.store.repairing import repair

from tracefork_otel.store import manifest, sealing, segment

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload([__name__])
"""What is killed is a fork of a process that has imported everything."""


def ended(store: Path, run_id: str, step: int, what: str) -> None:
    """This process does it in the store, and is killed before that step, if it takes so many."""
    left = 10**6

    def ending(original: Callable[..., Any]) -> Callable[..., Any]:
        def one_step(*given: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return original(*given, **named)

        return one_step

    for holder, names in (
        (manifest, ("write_whole", "sync_directory", "_remove", "_refresh_views")),
        (os, ("unlink", "replace", "rename", "fsync")),
        (segment, ("_write_file",)),
        (facts, ("write",)),
    ):
        for name in names:
            setattr(holder, name, ending(getattr(holder, name)))
    with open_store(store) as opened:
        plan = removing.planned(opened, [run_id])
        left = step
        if what == "rm":
            removing.remove(opened, plan)
        elif what == "compact":
            pack(store)
        else:
            repair(store)


def one_run(store: Path) -> str:
    """A run of one step, in a segment of its own."""
    recorder, run_id = Recorder(store), trace()
    recorder.root(run_id)
    recorder.exchange(run_id, asked("shared " * 40, "yes", f"word-{run_id}"), answered(f"word-{run_id}"))
    recorder.close()
    sealing.seal_dead(store)
    return run_id


def on_disk(store: Path, text: str) -> bool:
    """Whether a segment's file says the text."""
    import pyarrow.parquet as pq

    return any(text in str(pq.read_table(path).to_pydict()) for path in store.rglob("*.parquet"))


def killed(folder: Path, what: str, step: int) -> bool:
    """Whether it was killed at that step; else it had come to its end before."""
    base, store = folder / "whole", folder / str(step)
    if not base.exists():
        one_run(base)
        one_run(base)
        with open_store(base) as opened:
            if what == "rm":
                opened.compact()
    shutil.copytree(base, store)
    with open_store(store) as opened:
        goes, stays = (run.run_id for run in opened.runs())
        before = {run_id: opened.exchanges(run_id) for run_id in (goes, stays)}
    process = FORKING.Process(target=ended, args=(store, goes, step, what))
    process.start()
    process.join()
    assert process.exitcode in (0, -9)
    with open_store(store) as opened:
        assert opened.problems == ()
        assert opened.exchanges(stays) == before[stays]
        gone = not opened.has_run(goes)
        assert gone <= (what == "rm")
        assert gone or opened.exchanges(goes) == before[goes]
    assert pack(store) == []
    assert on_disk(store, f"word-{goes}") != gone
    (entry,) = manifest.load(store).segments
    left = {path.name for path in (store / "segments").iterdir() if not path.name.endswith(".tmp")}
    assert left <= {entry.file(store, kind).name for kind in manifest.KINDS}
    assert repair(store) == []
    report = doctor(store)
    assert report.healthy, report.lines()
    return process.exitcode != 0


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rm", "compact"])
@pytest.mark.parametrize("step", [9])
def test_kill_9_at_some_step(tmp_path: Path, what: str, step: int) -> None:
    """The run is whole or gone, others are whole, and the next `compact` clears what was left."""
    assert killed(tmp_path, what, step)


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("what", ["rm", "compact"])
def test_kill_9_at_each_step(tmp_path: Path, what: str) -> None:
    """Wherever it strikes, the same holds."""
    steps = 0
    while killed(tmp_path, what, steps):
        steps += 1
    assert steps > 20
