"""What is written into a store is its owner's alone, and stays in the store, whatever stands in its place."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stored import record
from tracefork_backend.blaming.journal import Journal
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.workspace import Workspace, adopt_left
from tracefork_backend.store import compact, doctor, drop_before, open_store
from tracefork_backend.store.repairing import repair
from wal_samples import write_conversation

from tracefork_otel.errors import StoreError
from tracefork_otel.store import manifest, sealing
from tracefork_otel.store.wal import wal_files


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """The umask is this one in the block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


HEADER = {"t": "header", "run_id": "r-1", "settings": {}}
"""The least that a journal begins with."""


def use(store: Path) -> None:
    """Everything that writes into a store or deletes in it has been tried."""
    record(store)
    for step in (
        lambda: sealing.seal_dead(store),
        lambda: open_store(store).rows("FROM runs"),
        lambda: record(store),
        lambda: sealing.seal_dead(store),
        lambda: open_store(store).rows("FROM messages"),
        lambda: compact(store),
        lambda: repair(store),
        lambda: adopt_left(store),
        lambda: drop_before(store, datetime.now(UTC) - timedelta(days=1)),
        lambda: Journal(store, "e-1", HEADER),
    ):
        with contextlib.suppress(StoreError, OSError):
            step()


@pytest.mark.slow
@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_all_of_a_store_is_its_owners_alone(tmp_path: Path, mask: int) -> None:
    """Folders have mode 0700 and files 0600 whatever the umask, from the store's down to a trial's."""
    store = tmp_path / "new" / "store"
    with umask(mask):
        use(store)
        opened = open_store(store)
        tape = reconstruct(opened, opened.run("last"))
        tape.dump(tmp_path / "run.tape.jsonl")
        workspace = Workspace(store, tape)
        workspace.trial()
    found = [tmp_path / "run.tape.jsonl", store.parent, store, *store.rglob("*")]
    wrong = [path for path in found if path.stat().st_mode & 0o777 != (0o700 if path.is_dir() else 0o600)]
    workspace.close()
    assert wrong == []
    names = {path.name for path in store.iterdir()}
    assert names >= {"wal", "segments", "blame", ".lock", "views.sql", "MANIFEST.json"}


def snapshot(folder: Path) -> dict[str, bytes]:
    """What stands in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wal", "segments", "blame", "kept", ".fork-link"])
def test_no_folder_of_a_store_leads_out_of_it(tmp_path: Path, name: str) -> None:
    """A store out of a repository may have links for folders: nothing is changed behind them."""
    other, store = tmp_path / "other", tmp_path / "store"
    record(other)
    sealing.seal_dead(other)
    record(other)
    Journal(other, "e-2", HEADER)
    shutil.copytree(other, store)
    # One that retires the other's segments, as after a merge that was long ago.
    for entry in manifest.load(store).segments:
        manifest.commit(store, remove=[entry.id])
    place, behind = store / name, other if name.startswith(".") else other / name
    shutil.rmtree(place, ignore_errors=True)
    behind.mkdir(exist_ok=True)
    left = behind / ".left.tmp"
    left.write_bytes(b"somebody's")
    os.utime(left, (0, 0))
    os.utime(behind, (0, 0))
    place.symlink_to(behind)
    before = snapshot(other)
    with contextlib.suppress(StoreError, OSError):
        use(store)
    assert snapshot(other) == before


@pytest.mark.parametrize("kind", ["link", "loop", "folder", "pipe"])
def test_what_stands_in_the_place_of_a_log_is_named(tmp_path: Path, kind: str) -> None:
    """A link is not followed and a pipe not waited for: what they may hide is said, and `last` refused."""
    store = tmp_path / "store"
    run_id = record(store)
    assert sealing.seal_dead(store) == []
    write_conversation(store, 1)
    (log,) = wal_files(store)
    log.rename(tmp_path / "log")
    if kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to(tmp_path / "log" if kind == "link" else log)
    with open_store(store) as opened:
        assert [run.run_id for run in opened.runs()] == [run_id]
        (why,) = opened.met
        assert str(log) in why
        with pytest.raises(StoreError, match=re.escape(log.name)):
            opened.run("last")
    assert not doctor(store).healthy
