"""Which folder is the store: fixed when recording begins, and looked for upwards where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Capture
from tracefork_backend import cli

from tracefork_otel.session.opening import close_session, open_session
from tracefork_otel.settings import Settings, found_store


def test_an_agent_that_changes_its_folder_leaves_its_store_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capture: Capture
) -> None:
    """A relative store is that of the folder in which recording began."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    session = open_session("test", Settings(store=Path("kept"), seal=False))
    assert session is not None
    monkeypatch.chdir(tmp_path / "work")
    session.note("lost", {})
    close_session()
    assert (tmp_path / "kept" / "wal").is_dir()
    assert not list((tmp_path / "work").iterdir())


def test_a_store_above_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest folder upwards that holds one is taken, but for what everybody may write to."""
    below = tmp_path / "project" / "src" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("TRACEFORK_STORE", raising=False)
    assert found_store() == Path(".tracefork")
    store = tmp_path / "project" / ".tracefork"
    (store / "wal").mkdir(parents=True)
    assert Settings.from_env().store == store
    assert cli._run(["ls"]) == 0
    assert f"no runs in {store}" in capsys.readouterr().err
    (below / ".tracefork").mkdir()
    assert found_store() == Path(".tracefork")
    (below / ".tracefork").rmdir()
    (tmp_path / "project").chmod(0o777)
    assert found_store() == Path(".tracefork")
    assert Settings.from_env({"TRACEFORK_STORE": "named"}).store == Path("named")
