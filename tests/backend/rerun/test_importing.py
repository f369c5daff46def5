"""An import brings runs of its own, and takes part in none that was recorded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from stored import Recorder, answered, asked
from tracefork_backend.rerun import importing
from tracefork_backend.rerun.importing import import_tape
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.state import take_in
from tracefork_backend.store import open_store
from tracefork_backend.store.states import tidy

from tracefork_otel import Tape
from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.state.kept import Entry, Kept, objects_of, text_of, tree_of
from tracefork_otel.store.records import ExchangeStarted, Record
from tracefork_otel.store.wal import Wal, wal_files
from tracefork_otel.tape.marks import marked
from tracefork_otel.tape.start import HowStarted

RUN, LAUNCH, FREE = "ab" * 16, "cd" * 16, "ef" * 16
START = HowStarted(command=("python", "agent.py"), cwd="/srv")


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    """The tape of a run in `here`, which a command of trace LAUNCH made."""
    recorder = Recorder(tmp_path / "here", launch_id=LAUNCH)
    recorder.root(LAUNCH, attributes=marked(LAUNCH, START.attributes()))
    recorder.exchange(RUN, asked("a"), answered("b"))
    recorder.wal.close()
    with open_store(tmp_path / "here") as store:
        return reconstruct(store, store.run(RUN), command=True)


@pytest.mark.slow
def test_a_marked_tape_is_marked_where_it_is_imported(tape: Tape, tmp_path: Path) -> None:
    """Once it is in a store, too, it is a run that this user recorded; one that was changed is not."""
    assert tape.mark
    for name, one in (("same", tape), ("other", replace(tape, start=replace(START, cwd="/tmp")))):
        one.dump(tmp_path / "t")
        assert import_tape(tmp_path / name, tmp_path / "t").from_here == (name == "same")
        with open_store(tmp_path / name) as store:
            made = reconstruct(store, store.run(RUN), command=True)
        assert (made.start.command, made.start.cwd) == (START.command, one.start.cwd)
        assert bool(made.mark) == (name == "same")


@pytest.mark.slow
@pytest.mark.parametrize("id", [RUN, LAUNCH])
@pytest.mark.parametrize("place", ["the tape's run", "the trace of a call"])
def test_nothing_is_imported_into_what_was_recorded_here(
    tape: Tape, tmp_path: Path, id: str, place: str
) -> None:
    """Neither as a run, nor as a command's, nor call by call."""
    calls = tuple(replace(one, span_id="9" * 16) for one in tape.exchanges)
    if place == "the tape's run":
        forged = replace(tape, run_id=id, exchanges=tuple(replace(one, trace_id=FREE) for one in calls))
    else:
        forged = replace(tape, run_id=FREE, exchanges=tuple(replace(one, trace_id=id) for one in calls))
    forged.dump(tmp_path / "t")
    with pytest.raises(UsageError, match="was recorded here: nothing was imported"):
        import_tape(tmp_path / "here", tmp_path / "t")
    with open_store(tmp_path / "here") as store:
        assert [run.run_id for run in store.runs()] == [RUN]
        again = reconstruct(store, store.run(RUN), command=True)
        assert again == tape


@pytest.mark.slow
def test_nobody_takes_away_the_state_of_a_run_that_is_being_imported(
    tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else ends in the store meanwhile."""
    said = b"remembered"
    tree = tree_of([Entry(path="memory", kind="file", sha256=sha256(said).hexdigest())])
    files = {sha256(one).hexdigest(): one for one in (said, tree)}
    kept = Kept(path="/a/memory", real="/a/memory", kind="file", tree=list(files)[1], bytes=len(said))
    replace(tape, start=replace(START, state=text_of([kept])), files=files).dump(tmp_path / "t")

    def meanwhile(files: Mapping[str, bytes], objects: Path) -> None:
        take_in(files, objects)
        tidy(objects.parent, there=True)

    monkeypatch.setattr(importing, "take_in", meanwhile)
    import_tape(tmp_path / "other", tmp_path / "t")
    assert {file.name for file in objects_of(tmp_path / "other").iterdir()} == {*files, ".lock"}


@pytest.mark.slow
def test_an_import_that_cannot_be_written_leaves_nothing(
    tape: Tape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full in its middle no part of the run stays; once there is room it is imported."""
    tape.dump(tmp_path / "t")
    append = Wal.append

    def full(self: Wal, record: Record) -> None:
        append(self, record)
        if isinstance(record, ExchangeStarted):
            raise StoreError(f"{self.path}: a record could not be written: No space left on device")

    monkeypatch.setattr(Wal, "append", full)
    with pytest.raises(StoreError, match="No space"):
        import_tape(tmp_path / "there", tmp_path / "t")
    assert not wal_files(tmp_path / "there")
    monkeypatch.undo()
    assert import_tape(tmp_path / "there", tmp_path / "t").added == tape.steps
