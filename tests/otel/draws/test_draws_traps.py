"""Draws where they are easily missed, mixed up or taken from somebody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drawn import FIXED, HERE, run

from tracefork_otel.store.records import Note
from tracefork_otel.store.wal_reading import read_wal


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["", "np.random.seed(7)"])
def test_numpys_state_is_real_after_the_fork_point(tmp_path: Path, seed: str) -> None:
    """The global state goes on by chance after the fork point, unless the agent seeded it itself."""
    pytest.importorskip("numpy")
    (tmp_path / "workload.py").write_text(
        "import os, time\nimport numpy as np\n\n\n"
        f"def main():\n    {seed or 'pass'}\n    a = np.random.rand()\n"
        "    if os.path.exists('forks'):\n        os.environ['LIVE'] = '1'\n    time.time()\n"
        "    return repr([a, np.random.rand()])\n\n\ndef check_real():\n    return True\n"
    )
    recorded = json.loads(run(tmp_path, "record", "tape.json")[0])
    (tmp_path / "forks").touch()
    forked = json.loads(run(tmp_path, "serve", "tape.json")[0])
    assert forked[0] == recorded[0]
    assert (forked[1] == recorded[1]) == bool(seed)


PREBOUND = """
import datetime, time, uuid
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

CLOCKS = {"a": time.time}


class Held:
    def __init__(self):
        self.read, self.now = time.time, datetime.datetime.now


class Slotted:
    __slots__ = ("read",)

    def __init__(self):
        self.read = time.time_ns


@dataclass(frozen=True)
class Frozen:
    read: Any


class Model(BaseModel):
    at: float = Field(default_factory=time.time)
    id: uuid.UUID = Field(default_factory=uuid.uuid4)


HELD, SLOTTED, FROZEN = Held(), Slotted(), Frozen(time.monotonic)


def main():
    return repr([HELD.read(), HELD.now(), SLOTTED.read(), Model().id])


def check_real():
    return abs(HELD.read() - time.time()) < 100
"""


@pytest.mark.slow
def test_what_objects_hold_is_bound_anew_or_named(tmp_path: Path) -> None:
    """Attributes of the agent's objects are ours; a dict, a frozen object, a model's field are named."""
    (tmp_path / "workload.py").write_text(PREBOUND)
    recorded = run(tmp_path, "record", "tape.json", "late")
    served = run(tmp_path, "serve", "tape.json", "late")
    assert (served[0], served[2]) == (recorded[0], 4)
    assert sorted(site for _, _, site, _, _ in recorded[1]) == [
        "workload.CLOCKS",
        "workload.Frozen.read",
        "workload.Model.at",
    ]
    assert {kind for kind, *_ in recorded[1]} == {"prebound"}


TWIN = "from uuid import uuid4\n\n\ndef made():\n    return uuid4()\n"

TRAPS = """
import os, random, sys, tempfile, time

sys.path.append("site-packages")
import twin, twinlib


def rejected():
    return [random.choice("abcde") for _ in range(50)], [random.randrange(129) for _ in range(50)]


def main():
    outside = twinlib.made()  # first, so that the twin would get its verdict
    with tempfile.NamedTemporaryFile(dir=".", prefix="left-", delete=False) as file:
        print(file.name, outside, file=sys.stderr)
    random.seed(42)
    assert random.random() == 0.6394267984578837
    return repr([twin.made(), rejected(), os.getrandom(3), time.clock_gettime(time.CLOCK_REALTIME),
                 time.process_time(), time.thread_time_ns()])


def check_real():
    return True
"""


def test_traps_of_scope_and_of_rejection(tmp_path: Path) -> None:
    """Equal code in a library is its own, temporary names stay new, and rejected bits shift nothing."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "twinlib.py").write_text(TWIN)
    (tmp_path / "twin.py").write_text(TWIN)
    (tmp_path / "workload.py").write_text(TRAPS)
    recorded = run(tmp_path, "record", "tape.json")
    control = run(tmp_path, "record", "other.json")
    served = run(tmp_path, "serve", "tape.json")
    assert served[0] == recorded[0] != control[0]
    assert served[1] == []
    drawn = json.loads((tmp_path / "tape.json").read_text())
    assert {draw["site"].partition(":")[0] for draw in drawn} == {"twin", "workload"}
    assert len(list(tmp_path.glob("left-*"))) == 3
    # Bits that are rejected are drawn too, as often as chance wills.
    assert sum(draw["source"] == "getrandbits" for draw in drawn) > 100


IDS = """
import sys

sys.path.append("site-packages")
import idlib
from idlib import uuid7


def main():
    found = []
    for _ in range(3):
        idlib.made()  # moves the state that all ids of version 7 share
        found.append(uuid7())
    return repr(found)


def check_real():
    return True
"""


@pytest.mark.slow
@pytest.mark.parametrize(("version", "module"), [("3.14", "uuid"), (HERE, "uuid_utils.compat")])
def test_whole_ids_are_served(tmp_path: Path, version: str, module: str) -> None:
    """Ids of version 7 come back whole, whatever a library's own ids made of the state they share."""
    if module != "uuid":
        pytest.importorskip(module)
    library = tmp_path / "site-packages" / "idlib.py"
    library.parent.mkdir()
    library.write_text(f"from {module} import uuid7\n\n\ndef made():\n    return uuid7()\n")
    (tmp_path / "workload.py").write_text(IDS.replace("from idlib", f"from {module}"))
    recorded = run(tmp_path, "record", "tape.json", version=version)
    served = run(tmp_path, "serve", "tape.json", version=version)
    assert served == (recorded[0], [], 3)


WORKERS = """
import anyio, uuid
from uuid import uuid4

from pydantic import BaseModel, Field


class Item(BaseModel):
    id: uuid.UUID = Field(default_factory=uuid4)


async def one(found, n):
    await anyio.sleep(0.01 * (n % 2))
    found[n] = await anyio.to_thread.run_sync(lambda: (uuid4(), Item())), uuid4()


async def tasks():
    found = {}
    async with anyio.create_task_group() as group:
        for n in range(6):
            group.start_soon(one, found, n)
    return sorted(found.items())


def main():
    return repr(anyio.run(tasks))


def check_real():
    return True
"""


@pytest.mark.slow
def test_worker_threads_and_models_are_served(tmp_path: Path) -> None:
    """Worker threads that no pool of the standard library runs, and a model's factory, read their values."""
    (tmp_path / "workload.py").write_text(WORKERS)
    recorded = run(tmp_path, "record", "tape.json")
    assert run(tmp_path, "serve", "tape.json") == (recorded[0], [], 18)


LOOP = """
import asyncio, random
from uuid import uuid4

import uvloop


async def one(n):
    await asyncio.sleep(random.random() / 50)
    return n, uuid4(), await asyncio.to_thread(uuid4)


async def tasks():
    return await asyncio.gather(*(one(n) for n in range(8)))


def main():
    return repr(uvloop.run(tasks()))


def check_real():
    return True
"""


def test_tasks_of_uvloop_have_lanes(tmp_path: Path) -> None:
    """Tasks of a loop that is not the standard library's read their own values too."""
    pytest.importorskip("uvloop")
    (tmp_path / "workload.py").write_text(LOOP)
    recorded = run(tmp_path, "record", "tape.json")
    assert run(tmp_path, "serve", "tape.json") == (recorded[0], [], 24)


FORKS = """
import os, sys
from uuid import uuid4

from tracefork_otel import TraceforkInstrumentor

for _ in range(2):
    TraceforkInstrumentor().instrument(draws=True, store="store", http_spans=False)
    TraceforkInstrumentor().uninstrument()
TraceforkInstrumentor().instrument(draws=True, store="store", http_spans=False)
for _ in range(2):
    if os.fork() == 0:
        uuid4()
        os._exit(0)
    os.wait()
"""


def test_children_are_counted_once_however_often_recording_began(tmp_path: Path) -> None:
    """A hook on fork cannot be taken back: instrumented three times, children still count from one."""
    (tmp_path / "agent.py").write_text(FORKS)
    done = subprocess.run(
        [sys.executable, "agent.py"],
        cwd=tmp_path,
        env={**os.environ, **FIXED},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    roots = [
        str(record.attributes["root"])
        for path in (tmp_path / "store" / "wal").iterdir()
        for record in read_wal(path).records
        if isinstance(record, Note) and record.kind == "draws" and record.attributes["values"]
    ]
    assert sorted(root.rpartition("/")[2] for root in roots) == ["fork#0", "fork#1"]
