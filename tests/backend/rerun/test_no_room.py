"""A disk that is full is said as that, and nothing half written is left on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tracefork_backend.rerun.workspace import Workspace

from tracefork_otel.errors import TapeError
from tracefork_otel.tape.tape import Tape

LIMITED = """
import resource, sys
from pathlib import Path
from tracefork_backend.agents.reach import unwritable
store = Path(sys.argv[1])
print(unwritable(store))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(unwritable(store))
"""


def test_a_folder_whose_tape_cannot_be_written_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that has no room for its tape leaves the store as it was."""

    def full(tape: Tape, path: Path) -> None:
        path.write_bytes(b"{")
        raise TapeError(f"cannot write the tape {path}: No space left on device")

    monkeypatch.setattr(Tape, "dump", full)
    with pytest.raises(TapeError, match="No space left"):
        Workspace(tmp_path, Tape(run_id="ab" * 16, exchanges=()))
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_takes_a_file_but_no_bytes_cannot_be_recorded_into(tmp_path: Path) -> None:
    """That nothing was recorded is said to be for want of room, not for want of a hook in the agent."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    can, cannot = done.stdout.splitlines()
    assert can == "None"
    assert cannot.startswith(f"nothing captured: {tmp_path} cannot be written (")
