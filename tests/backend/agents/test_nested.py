"""A `run` inside of another one says which of its flags do not hold, and refuses rules that would not."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tracefork_backend.agents.recording import record
from tracefork_backend.cli import main

from tracefork_otel.seam.children import BOOT

RUN = [sys.executable, "-c", "open('ran', 'w')"]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a command that is recorded into `outer`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([BOOT, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TRACEFORK_MODE", "record")
    monkeypatch.setenv("TRACEFORK_STORE", str(tmp_path / "outer"))
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")


def test_rules_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is not started, as its secrets would be kept; one line says what to do."""
    words = ["tracefork-otel", "run", "--redact", "rules.toml", "--store", "B", "--", *RUN]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "--redact" in line
    assert "outer" in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({}, None),
        ({"provider": True, "skip_hosts": ["x.test"]}, "--provider, --skip-host"),
        ({"proxy": True, "draws": True, "store": "B"}, "--proxy, --draws, --store"),
    ],
)
def test_other_flags_are_named(given: dict[str, Any], ignored: str | None, tmp_path: Path) -> None:
    """The command runs as a part of the outer run; only what differs from that is named."""
    (problem,) = record(**{"store": tmp_path / "outer", "argv": RUN, **given}).problems
    assert problem.partition("; ignored: ")[2] == (ignored or "")
    assert (tmp_path / "ran").exists()
    assert not (tmp_path / "B").exists()


def test_draws_that_are_recorded_anyway_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outer run has them, too."""
    monkeypatch.setenv("TRACEFORK_DRAWS", "1")
    assert "ignored" not in record("outer", RUN, draws=True).problems[0]
