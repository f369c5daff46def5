"""Run ids as they are printed: with as many digits as tell the runs of the store apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.command import here
from stored import Recorder
from tracefork_backend.spelling import run_name
from tracefork_backend.store import Store, open_store

from tracefork_otel.tape.tape import Tape

CLOSE = ["0199c5a0d2c1" + "4" * 20, "0199c5a0d2c1" + "5" * 20, "0199c5a0d3" + "0" * 22]
"""Ids of one minute, as Logfire makes them."""


def recorded(store: Path, *run_ids: str) -> Path:
    """A store with these runs of one step."""
    recorder = Recorder(store)
    for run_id in run_ids:
        recorder.exchange(run_id)
    recorder.close()
    return store


@pytest.mark.slow
def test_each_name_that_is_printed_names_one_run(tmp_path: Path) -> None:
    """`ls`, `show`, the error for a name that is two runs, and `rm` print names that each name one run."""
    store = recorded(tmp_path / "store", *CLOSE)
    listed = here("ls", "--store", store, cwd=tmp_path).out
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("0199")]
    assert sorted(names) == sorted(run_id[:13] for run_id in CLOSE)
    for name in names:
        assert f"show {name}@0" in here("show", name, "--store", store, cwd=tmp_path).out
    twice = here("show", CLOSE[0][:10], "--store", store, cwd=tmp_path)
    assert all(run_id[:13] in twice.err for run_id in CLOSE[:2])
    assert CLOSE[2][:13] in here("rm", "--before", "2999-01-01", "--store", store, cwd=tmp_path).out


@pytest.mark.parametrize(
    ("run_ids", "digits"),
    [
        ([], 8),
        (["a" * 32], 8),
        (["a" * 32, "b" * 32], 8),
        (["a" * 31 + "b", "a" * 32], 32),
        (["ab" * 16, "ab" * 4 + "c" * 24], 9),
    ],
)
def test_no_more_digits_than_needed(tmp_path: Path, run_ids: list[str], digits: int) -> None:
    """Eight where these do; all where only the last digit differs."""
    with open_store(recorded(tmp_path / "store", *run_ids)) as store:
        store.tell_apart()
    assert run_name("f" * 32) == "f" * digits


@pytest.mark.slow
def test_each_store_has_its_own_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that are open take turns; what a store has said is not asked again until the store has more."""
    close, far = recorded(tmp_path / "close", *CLOSE), recorded(tmp_path / "far", CLOSE[0])
    with open_store(close) as one, open_store(far) as other:
        for _ in range(2):
            assert (one.run(CLOSE[0]).run_id, run_name(CLOSE[0])) == (CLOSE[0], CLOSE[0][:13])
            assert (other.run(CLOSE[0]).run_id, run_name(CLOSE[0])) == (CLOSE[0], CLOSE[0][:8])
        asked: list[str] = []
        ask = Store.ask
        monkeypatch.setattr(
            Store, "ask", lambda self, name, **kw: asked.append(name) or ask(self, name, **kw)
        )
        other.run(CLOSE[0])
        assert "run_ids" not in asked
        recorded(far, CLOSE[1])
        other.run(CLOSE[0])
        assert run_name(CLOSE[0]) == CLOSE[0][:13]


@pytest.mark.slow
def test_the_file_of_an_export_is_named_by_its_run_alone(tmp_path: Path) -> None:
    """Whatever else is in the store; a file of another run's is not written over, its own is."""
    recorded(tmp_path / "one", CLOSE[0])
    recorded(tmp_path / "both", *CLOSE)
    for store, run_id in ("one", CLOSE[0]), ("both", CLOSE[0]), ("both", CLOSE[1]), ("both", CLOSE[1]):
        exported = here("tape", "export", run_id, "--store", tmp_path / store, cwd=tmp_path)
        assert exported.status == 0, exported.err
    files = sorted(tmp_path.glob("*.tape.jsonl"))
    assert [Tape.load(file).run_id for file in files] == [CLOSE[0], CLOSE[1]]
    assert [file.name for file in files] == [f"{name}.tape.jsonl" for name in (CLOSE[0][:8], CLOSE[1])]
