"""The booking example, recorded where it fails, as several suites of commands go on from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from e2e.command import BARE, EXAMPLES, tracefork

BOOKING = EXAMPLES / "booking_agent.py"
GRADED = ("--success-re", "BOOKED", "--failure-re", "ERROR|sorry")
RIGHT = {"tool_input": {"flight": "NH176", "date": "2026-11-03"}}
"""What its step 2 should have said."""


def record_failure(folder: Path, **files: Any) -> Path:
    """Record a booking that fails into the folder's store, with these JSON files beside it, and return it."""
    done = tracefork("run", "--", sys.executable, BOOKING, "--city", "Osaka", cwd=folder, **BARE)
    assert done.status == 0, done.err
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder
