"""Clocks, ids and randomness in processes of their own, on each Python that this machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import REPOSITORY

from tracefork_otel.records import Note
from tracefork_otel.wal import read_wal

VERSIONS = ("3.11", "3.12", "3.13", "3.14")

HARNESS = """
import json, os, sys

mode, path = sys.argv[1:3]
late = "late" in sys.argv
if late:
    import workload

from tracefork_otel._draws.deck import Deck
from tracefork_otel._draws.sources import Sources
from tracefork_otel.records import Draw

deck = Deck("agent", include=("site_like",) if "include" in sys.argv else ())
if mode == "serve":
    draws = [Draw(**one) for one in json.load(open(path))]
    deck.serve(lambda: draws, lambda: "LIVE" in os.environ)
sources = Sources(deck)
sources.install()
if late:
    sources.rebind()
import workload

print(workload.main())
sources.restore()
print(workload.check_real(), file=sys.stderr)
taken = deck.taken() or {"values": [], "streams": [], "notes": []}
if mode == "record":
    found = [
        dict(process="agent#0", lane=lane, source=source, site=site, line=line, value=value)
        for number, served, value in taken["values"]
        for lane, source, site, line in [taken["streams"][number]]
    ]
    json.dump(found, open(path, "w"))
print("NOTES", json.dumps(taken["notes"]), sum(served for _, served, _ in taken["values"]))
"""

WORKLOAD = """
import asyncio, datetime as dates, functools, logging, os, pickle, random, secrets, threading, time, uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from time import monotonic, time as early
from uuid import uuid4

TRUE = time.time
now = datetime.now
soon = functools.partial(random.randint, 1, 10**9)


class Clock:
    read = time.time
    stamp = datetime.now


@dataclass
class Item:
    id: object = field(default_factory=uuid4)
    at: float = field(default_factory=time.time)


class Day(datetime):
    pass


def plain(clock=time.time):
    assert type(datetime.now()) is datetime and type(Day.now()) is Day and type(Day.today()) is Day
    assert pickle.loads(pickle.dumps(datetime.now())) and pickle.loads(pickle.dumps(time.time)) is time.time
    logging.Formatter().formatTime(logging.LogRecord("a", 1, "b", 1, "c", (), None))
    return [
        datetime.now(), datetime.now(timezone.utc), datetime.now(tz=timezone.utc), dates.datetime.now(),
        now(),
        Day.now(), datetime.today(), date.today(), time.time(), early(), time.time_ns(), monotonic(),
        time.perf_counter_ns(), time.ctime(), time.localtime(), time.strftime("%H%M%S"), clock(),
        Clock().read(),
        Clock.stamp(), Item(), uuid4(), uuid.uuid1(), secrets.token_hex(4), os.urandom(3), random.random(),
        random.choice("abcdefgh"), random.randbytes(5), random.gauss(0, 1), random.sample(range(1000), 4),
        soon(),
        random.Random().random(), random.SystemRandom().random(), [uuid4() for _ in range(3)],
        uuid.uuid7() if hasattr(uuid, "uuid7") else None,
        time.ctime(0), time.strftime("%Y", time.gmtime(0)),
    ]


def threads():
    found = {}

    def work(n):
        found[n] = [uuid4() for _ in range(n)]

    running = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    with ThreadPoolExecutor(3) as pool:
        jobs = list(pool.map(lambda n: (n, uuid4(), time.time()), range(9)))
        bare = [pool.submit(uuid4).result() for _ in range(2)]
    return sorted(found.items()), jobs, bare


async def task(n):
    await asyncio.sleep(random.random() / 100)
    return n, uuid4(), await asyncio.to_thread(uuid4)


async def tasks():
    return await asyncio.gather(*(task(n) for n in range(5)))


def main():
    return repr((plain(), threads(), asyncio.run(tasks())))


def check_real():
    return abs(TRUE() - time.time()) < 3600
"""


FIXED = {"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"}
HERE = "{}.{}".format(*sys.version_info)


def python(version: str) -> str:
    """The interpreter of that version; the test is skipped where there is none."""
    if version == HERE:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = [
        os.environ.get(f"TRACEFORK_PYTHON_{version.replace('.', '_')}"),
        shutil.which(f"python{version}"),
        *(str(one) for one in sorted(pyenv.glob(f"{version}.*/bin/python"))),
    ]
    for one in filter(None, found):  # a shim of pyenv's may stand for none
        if subprocess.run([one, "-c", "0"], capture_output=True, check=False).returncode == 0:
            return one
    pytest.skip(f"no Python {version} here")


def run(
    folder: Path, *arguments: str, version: str = "{}.{}".format(*sys.version_info)
) -> tuple[str, list[list[str]], int]:
    """What the workload printed, what was noted, and how many values were served."""
    (folder / "harness.py").write_text(HARNESS)
    if not (folder / "workload.py").exists():
        (folder / "workload.py").write_text(WORKLOAD)
    done = subprocess.run(
        [python(version), "harness.py", *arguments],
        cwd=folder,
        env={**os.environ, **FIXED},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "True"
    shown, _, last = done.stdout.strip().rpartition("\nNOTES ")
    notes, _, served = last.rpartition(" ")
    return shown, json.loads(notes), int(served)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_source_and_lane_is_served(tmp_path: Path, version: str) -> None:
    """Clocks, ids, randomness, threads, jobs and tasks read the recorded values, each in its own lane."""
    recorded = run(tmp_path, "record", "tape.json", version=version)
    control = run(tmp_path, "record", "other.json", version=version)
    served = run(tmp_path, "serve", "tape.json", version=version)
    assert (recorded[1], served[1]) == ([], [])
    assert served[0] == recorded[0] != control[0]
    assert served[2] == len(json.loads((tmp_path / "tape.json").read_text()))


def test_names_bound_before_are_bound_anew(tmp_path: Path) -> None:
    """Where the agent's modules came first, their globals, defaults, class attributes, factories are ours."""
    recorded = run(tmp_path, "record", "tape.json", "late")
    served = run(tmp_path, "serve", "tape.json", "late")
    assert served[0] == recorded[0]
    assert served[1] == []


def test_what_is_missing_left_or_moved_is_noted(tmp_path: Path) -> None:
    """A longer loop goes on with real values, a shifted line is seen, and both are noted with their place."""
    loop = (
        "import time\n\n\ndef main():\n    return repr([time.time() for _ in range({})])\n\n\n"
        "def check_real():\n    return True\n"
    )
    (tmp_path / "workload.py").write_text(loop.format(3))
    recorded = run(tmp_path, "record", "tape.json")
    (tmp_path / "workload.py").write_text(loop.format(4).replace("main():\n", "main():\n    time.time()\n"))
    served = run(tmp_path, "serve", "tape.json")
    assert served[2] == 3
    assert sorted(served[1]) == [
        ["exhausted", "time", "workload:main", 2, "workload.py:6"],
        ["moved", "time", "workload:main", 1, "workload.py:6"],
    ]
    assert served[0].split(", ")[0].strip("[]") == recorded[0].split(", ")[1]


def test_a_librarys_own_draws_stay_real(tmp_path: Path) -> None:
    """What a library in site-packages reads is not recorded, unless it is included by name."""
    library = tmp_path / "site-packages" / "site_like.py"
    library.parent.mkdir()
    library.write_text("import uuid\n\n\ndef made():\n    return uuid.uuid4()\n")
    (tmp_path / "workload.py").write_text(
        "import sys\nsys.path.append('site-packages')\nimport site_like\n\n\n"
        "def main():\n    return str(site_like.made())\n\n\ndef check_real():\n    return True\n"
    )
    outside = run(tmp_path, "record", "outside.json")
    assert json.loads((tmp_path / "outside.json").read_text()) == []
    assert run(tmp_path, "serve", "outside.json")[0] != outside[0]
    inside = run(tmp_path, "record", "inside.json", "include")
    assert run(tmp_path, "serve", "inside.json", "include")[0] == inside[0]


def test_numpys_generators_are_served(tmp_path: Path) -> None:
    """The global state of numpy, seeded at its import, and new generators give the recorded values."""
    pytest.importorskip("numpy")
    (tmp_path / "workload.py").write_text(
        "import numpy as np\n\n\n"
        "def main():\n    return repr([np.random.rand(), np.random.default_rng().random()])\n\n\n"
        "def check_real():\n    return True\n"
    )
    recorded = run(tmp_path, "record", "tape.json")
    assert run(tmp_path, "record", "other.json")[0] != recorded[0]
    assert run(tmp_path, "serve", "tape.json") == (recorded[0], [], 2)


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


def test_values_above_the_cap_are_not_kept(tmp_path: Path) -> None:
    """A polling loop keeps its first 20,000 values; that there were more is noted once."""
    (tmp_path / "workload.py").write_text(
        "import time\n\n\ndef main():\n    for _ in range(20_010):\n        time.time()\n\n\n"
        "def check_real():\n    return True\n"
    )
    recorded = run(tmp_path, "record", "tape.json")
    assert recorded[1] == [["capped", "time", "workload:main", 1, "workload.py:6"]]
    assert len(json.loads((tmp_path / "tape.json").read_text())) == 20_000
