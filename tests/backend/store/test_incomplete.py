"""Whether a run is whole: the view, the run itself and its tape say the same, whoever noted a loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import Recorder
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store

RUN, OTHER, LAUNCH = "ab" * 16, "cd" * 16, "ef" * 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["incomplete", "lost"])
@pytest.mark.parametrize(
    ("where", "lacking"),
    [
        (RUN, {RUN}),
        (LAUNCH, {RUN, OTHER}),
        (None, {RUN, OTHER}),
        ("12" * 16, set[str]()),
    ],
    ids=["run", "command", "process", "elsewhere"],
)
@pytest.mark.parametrize("beside", [False, True], ids=["its process", "another process"])
def test_all_say_the_same(
    tmp_path: Path, kind: str, where: str | None, lacking: set[str], beside: bool
) -> None:
    """A loss of a run, of a command, or of a process, noted by one that exchanged something, or nothing."""
    recorder = Recorder(tmp_path, launch_id=LAUNCH)
    recorder.exchange(RUN)
    recorder.exchange(OTHER)
    noting = Recorder(tmp_path, launch_id=LAUNCH) if beside else recorder
    noting.note(kind, where, why="a client is not captured", count=1)
    recorder.close()
    if beside:
        noting.close()
        lacking = set() if where is None else lacking
    for _ in range(2):
        with open_store(tmp_path) as store:
            rows = store.rows("SELECT run_id, complete FROM runs")
            assert {row["run_id"] for row in rows if not row["complete"]} == lacking
            assert {run.run_id for run in store.runs() if not run.complete} == lacking
            tapes = [reconstruct(store, run) for run in store.runs()]
            assert {tape.run_id for tape in tapes if tape.notes} == lacking
            store.compact()
