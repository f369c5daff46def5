"""Ctrl-C ends a query, whatever it is at."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wal_samples import write_conversation

from tracefork_otel.store import sealing

QUERIES = (
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT count(*) FROM range(10000000000000) AS a(n) WHERE n % 7 = 3",
)


@pytest.mark.parametrize("query", QUERIES)
def test_ctrl_c_ends_a_query(tmp_path: Path, query: str) -> None:
    """Within a second or so, with status 130, and not a word."""
    write_conversation(tmp_path, 1)
    assert sealing.seal_dead(tmp_path) == []
    command = (sys.executable, "-m", "tracefork_backend.cli", "sql", query, "--store", str(tmp_path))
    asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(3)
        assert asked.poll() is None
        asked.send_signal(signal.SIGINT)
        out, _ = asked.communicate(timeout=20)
    finally:
        asked.kill()
    assert (asked.returncode, out) == (130, b"")
