"""A log that was copied, and an earlier copy of a store put back over it: each exchange is there once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from stored import Recorder, answered, asked, record, trace
from tracefork_backend.store import doctor, open_store
from tracefork_backend.store.repairing import repair

from tracefork_otel.store import sealing
from tracefork_otel.store.records import ExchangeEnded
from tracefork_otel.store.wal import wal_files

RUN = "ab" * 16


def read(store: Path) -> list[tuple[str, str]]:
    """Span and outcome of each exchange of the run, as SQL has them; as the run itself has them too."""
    with open_store(store) as opened:
        rows = opened.rows("SELECT span_id, outcome FROM exchanges ORDER BY step")
        told = [(row["span_id"], row["outcome"]) for row in rows]
        assert [(one.span_id, one.outcome) for one in opened.exchanges(RUN)] == told
        assert sum(run.steps for run in opened.runs()) == len(told)
    return told


def said(store: Path) -> str:
    """What the doctor says."""
    return "\n".join(doctor(store).lines())


def log_of(store: Path, steps: int = 2) -> tuple[Path, list[tuple[str, str]]]:
    """The log of a process that was killed, and its exchanges."""
    recorder = Recorder(store)
    spans = [recorder.exchange(RUN, asked("hi", str(step)), answered("ho")) for step in range(steps)]
    recorder.close()
    return recorder.wal.path, [(span_id, "complete") for span_id in spans]


@pytest.mark.parametrize("sealed", [False, True], ids=["beside the log", "after the log was sealed"])
def test_a_copy_under_another_name_counts_nothing_twice(tmp_path: Path, sealed: bool) -> None:
    """It is named until a repair finds that nothing is in it alone; then it goes, as a sealed log does."""
    log, told = log_of(tmp_path)
    data = log.read_bytes()
    if sealed:
        sealing.seal_dead(tmp_path)
    copies = [log.with_name(name) for name in ("1-00aa11bb-0.wal", f"copy-{log.name}")]
    for copy in copies:
        copy.write_bytes(data)
    assert read(tmp_path) == told
    for copy in copies:
        assert copy.name in said(tmp_path)
        assert copy.exists()
    assert all(one.done for one in repair(tmp_path))
    assert read(tmp_path) == told
    assert doctor(tmp_path).healthy
    assert not wal_files(tmp_path)


def test_a_copy_is_all_that_is_left(tmp_path: Path) -> None:
    """A repair takes in what it holds, under the name of the process that wrote it."""
    log, told = log_of(tmp_path)
    log.rename(log.with_name("7-aaaaaaaa-0.wal"))
    with open_store(tmp_path) as opened:
        assert "7-aaaaaaaa-0.wal" in "\n".join(opened.problems)
    assert all(one.done for one in repair(tmp_path))
    assert read(tmp_path) == told
    assert doctor(tmp_path).healthy


def test_a_copy_of_a_log_that_is_being_written_stays(tmp_path: Path) -> None:
    """What it has that the log lacks can be told once the process has ended."""
    recorder = Recorder(tmp_path)
    span_id = recorder.exchange(RUN)
    shutil.copy(recorder.wal.path, recorder.wal.path.with_name("7-aaaaaaaa-0.wal"))
    assert read(tmp_path) == [(span_id, "complete")]
    (stays,) = repair(tmp_path)
    assert not stays.done
    recorder.close()
    assert all(one.done for one in repair(tmp_path))
    assert read(tmp_path) == [(span_id, "complete")]


@pytest.mark.parametrize("name", ["{}.bak.wal", "old {}", "{}~.wal"])
def test_what_has_no_name_of_a_log_is_named(tmp_path: Path, name: str) -> None:
    """Nobody looks into it, so nobody may pass over it without a word."""
    log, _ = log_of(tmp_path)
    log.rename(log.with_name(name.format(log.stem)))
    assert f"{name.format(log.stem)}: this is a log" in said(tmp_path)


def test_an_earlier_copy_of_the_whole_store_is_put_back_over_it(tmp_path: Path) -> None:
    """What had ended since is read after a repair, and nothing is twice, open and ended."""
    store, backup = tmp_path / "store", tmp_path / "backup"
    record(store, steps=1, trace_id=trace())
    recorder = Recorder(store)
    first = recorder.exchange(RUN)
    second = recorder.ask(RUN, asked("more"))
    shutil.copytree(store, backup)
    recorder.wal.append(ExchangeEnded(span_id=second, ended_ns=recorder.tick(), outcome="complete"))
    third = recorder.exchange(RUN)
    recorder.close()
    sealing.seal_dead(store)
    shutil.copytree(backup, store, dirs_exist_ok=True)
    open_store(store).close()
    for path in store.glob("segments/*"):
        os.utime(path, (1, 1))
    repair(store)
    told = [(first, "complete"), (second, "complete"), (third, "complete")]
    with open_store(store) as opened:
        assert [(one.span_id, one.outcome) for one in opened.exchanges(RUN)] == told
    assert doctor(store).healthy


def test_a_log_that_grew_after_a_copy_of_it_was_sealed_is_not_taken_for_that(tmp_path: Path) -> None:
    """The manifest of the copy names the log, and what came later is in the log alone."""
    store, backup = tmp_path / "store", tmp_path / "backup"
    recorder = Recorder(store)
    first = recorder.exchange(RUN)
    shutil.copytree(store, backup)
    second = recorder.exchange(RUN)
    recorder.close()
    sealing.seal_dead(backup)
    shutil.copytree(backup, store, dirs_exist_ok=True)
    open_store(store).close()
    assert recorder.wal.path.name in said(store)
    assert all(one.done for one in repair(store))
    assert read(store) == [(first, "complete"), (second, "complete")]
    assert doctor(store).healthy
