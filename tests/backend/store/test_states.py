"""Files that were kept for runs stay as long as it is not known who needs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import Recorder
from tracefork_backend.store import doctor, open_store
from tracefork_backend.store.removing import planned, remove
from tracefork_backend.store.states import tidy

from tracefork_otel.state.keeping import add
from tracefork_otel.state.kept import Entry, Kept, objects_of, text_of, tree_of

RUNS = ("11" * 16, "22" * 16)


def kept(store: Path, said: bytes) -> Kept:
    """A file that holds this is kept in the store."""
    content = add(objects_of(store), [said])
    tree = add(objects_of(store), [tree_of([Entry(path="memory", kind="file", sha256=content)])])
    return Kept(path="/a/memory", real="/a/memory", kind="file", tree=tree, bytes=len(said))


def recorded(store: Path, *states: str | None) -> None:
    """A run began with each of these."""
    recorder = Recorder(store)
    for run, state in zip(RUNS, states, strict=True):
        recorder.root(run, attributes={} if state is None else {"tracefork.state": state})
    recorder.wal.close()
    open_store(store).close()


def files(store: Path) -> set[str]:
    """The digests of what is kept."""
    return {file.name for file in objects_of(store).iterdir()} - {".lock"}


@pytest.mark.slow
def test_nothing_is_left_over_while_what_names_it_is_gone(tmp_path: Path) -> None:
    """A tree that can be restored has the files that it names."""
    first, second = kept(tmp_path, b"one"), kept(tmp_path, b"two")
    recorded(tmp_path, text_of([first]), text_of([second]))
    tree = objects_of(tmp_path) / first.tree
    content = tree.read_bytes()
    tree.unlink()
    there = files(tmp_path)
    assert ["restore it" in one.why for one in doctor(tmp_path).files] == [True]
    with open_store(tmp_path) as store:
        remove(store, planned(store, [RUNS[1]]))
    assert files(tmp_path) == there
    tree.write_bytes(content)
    tidy(tmp_path, there=True)
    assert len(files(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("told", ["{", "{}"])
def test_nothing_is_left_over_while_a_run_does_not_say_what_it_needs(tmp_path: Path, told: str) -> None:
    """`doctor` names the run, and with it the files go."""
    kept(tmp_path, b"one")
    recorded(tmp_path, told, None)
    there = files(tmp_path)
    (problem,) = doctor(tmp_path).files
    assert f"run {RUNS[0]}" in problem.why
    tidy(tmp_path, there=True)
    assert files(tmp_path) == there
    with open_store(tmp_path) as store:
        remove(store, planned(store, [RUNS[0]]))
    assert files(tmp_path) == set()
