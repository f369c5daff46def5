"""Forks of an agent with draws, from a warm process: each reads what was recorded up to its step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, at_desk
from tracefork_backend.rerun.edits import noop
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.store import Run

BODY = """
import random, time
from datetime import datetime
from uuid import uuid4

import tracefork_otel

PARENT = os.getpid()
TOKEN = uuid4()
MINE = random.Random()
SET = set("abcdefgh")


def clock():
    return f"{datetime.now()} {time.time_ns()} {uuid4()} {random.random()} {MINE.random()}"


@tracefork_otel.agent
def plan(calls):
    said = [str(TOKEN), *map(str, SET)]
    for _ in range(calls):
        said.append(clock())
        say(" ".join(said[-2:]) + "".join(SET))
    return [said, os.getpid() != PARENT]
"""

DRAWN = "SELECT source, count(*) AS n FROM draws WHERE run_id = $run_id GROUP BY source ORDER BY source"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model shouts."""
    with at_desk(tmp_path, monkeypatch) as desk:
        yield desk


def called(desk: Desk) -> tuple[Run, list[str]]:
    """The run of one call of `plan` with its draws, and what it said."""
    desk.write(BODY)
    start = (
        "import json; from tracefork_otel import TraceforkInstrumentor as T; "
        "T().instrument(http_spans=False, draws=True); import agent; print(json.dumps(agent.plan(3)[0]))"
    )
    env = {**os.environ, "TRACEFORK_STORE": str(desk.store_path), "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", start], env=env, check=True, capture_output=True)
    return desk.run(), json.loads(done.stdout)


@pytest.mark.slow
def test_warm_forks_read_what_was_recorded_and_then_the_world(desk: Desk) -> None:
    """Import and prefix are as recorded in each fork, what follows is new in each; all of it is kept."""
    run, recorded = called(desk)
    with Forker(run) as forker:
        made = forker.forks([Planned(change=noop().bind(forker.tape, 1))] * 3)
    assert [fork.problem for fork in made] == [None] * 3
    said: list[list[str]] = [recorded]
    for fork in made:
        assert not fork.notes, fork.notes
        heard, is_warm = json.loads(str(fork.result))
        assert is_warm
        assert heard[:-1] == recorded[:-1]
        said.append(heard)
        rows = run.store.rows(DRAWN, {"run_id": fork.run_id})
        assert rows == run.store.rows(DRAWN, {"run_id": run.run_id})
    # Less the agent's own generator, which goes on from its recorded seed.
    assert len({heard[-1].rpartition(" ")[0] for heard in said}) == 4
