"""Commands in a store that somebody else made: nothing outside changes, nothing runs, none hangs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, snapshot, store_at
from tracefork_backend import cli
from tracefork_backend.network.addresses import bind
from tracefork_backend.network.receiver import Receiver

READING = (
    ["ls"],
    ["ls", "--json"],
    ["show", "last"],
    ["show", "last@0"],
    ["sql", "select count(*) from exchanges"],
    ["sql", "select * from spans"],
    ["sql", "select * from messages"],
    ["sql", "select * from blame_experiments"],
    ["diff", "last", "last~1"],
    ["blame", "show", "last"],
    ["blame", "verify", "last"],
    ["tape", "export", "last", "-o", "made.tape.jsonl"],
    ["doctor"],
)
STARTING = (["replay", "last"], ["fork", "last@0", "--noop"], ["blame", "resume", "last"])
CHANGING = (["doctor", "--repair"], ["ls"])
QUICK = (
    *("link to wal", "link to nothing, .lock", "pipe, exchanges", "retired leads out"),
    *("attributes are no JSON", "parts are huge", "pipe as a fork's owner"),
)
STATUSES = (0, cli.USAGE - 1, cli.USAGE, cli.USAGE + 1)


class Hung(BaseException):
    """A command did not end."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Commands that would have been started; none is, and what does not end is interrupted."""
    asked: list[Any] = []

    def refuse(words: Any, *_: object, **__: object) -> Any:
        asked.append(words)
        raise FileNotFoundError(2, "nothing is run in this test", str(words))

    def hung(*_: object) -> None:
        raise Hung

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = signal.signal(signal.SIGALRM, hung)
    yield asked
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def spoiled(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A store of that kind in a folder of its own, and a folder outside of it."""
    (folder / "here").mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "data.spans.parquet").write_text("precious")
    store = store_at(folder / "here" / ".tracefork")
    HOSTILE[name](store, folder / "outside")
    monkeypatch.chdir(folder / "here")
    return store, folder / "outside"


def typed(words: list[str]) -> int:
    """The status of a command, which ends within its time and without a traceback."""
    signal.alarm(30)
    try:
        return cli._run(words)
    finally:
        signal.alarm(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_hostile_store_is_read_and_repaired(
    name: str, tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked most, and a repair."""
    _, outside = spoiled(tmp_path, name, monkeypatch)
    before = snapshot(outside)
    for words in (["ls"], ["show", "last@0"], *CHANGING):
        assert typed(words) in STATUSES, words
        assert snapshot(outside) == before, words
    assert not started


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", HOSTILE)
def test_commands_in_a_hostile_store(
    name: str, tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the commands in turn, a receiver that writes into the store, and a repair.

    Each kind of spoiling meets each command, by one file or another.
    """
    store, outside = spoiled(tmp_path, name, monkeypatch)
    before, turn = snapshot(outside), list(HOSTILE).index(name) % 3
    for words in READING[turn::3]:
        assert typed(words) in STATUSES, words
        assert snapshot(outside) == before, words
    assert not started
    for words in STARTING[turn::3]:
        assert typed(words) in STATUSES, words
        assert snapshot(outside) == before, words
    with Receiver(bind(), store=store):
        pass
    for words in CHANGING:
        assert typed(words) in STATUSES, words
    assert snapshot(outside) == before
