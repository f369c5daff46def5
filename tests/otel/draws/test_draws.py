"""Clocks, ids and randomness in processes of their own, on each Python that this machine has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn import HERE, run

VERSIONS = ("3.11", "3.12", "3.13", "3.14")

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


@pytest.mark.parametrize(
    "version",
    [pytest.param(one, marks=() if one == HERE else pytest.mark.slow) for one in VERSIONS],
)
def test_every_source_and_lane_is_served(tmp_path: Path, version: str) -> None:
    """Clocks, ids, randomness, threads, jobs and tasks read the recorded values, each in its own lane."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
    recorded = run(tmp_path, "record", "tape.json", version=version)
    control = run(tmp_path, "record", "other.json", version=version)
    served = run(tmp_path, "serve", "tape.json", version=version)
    assert (recorded[1], served[1]) == ([], [])
    assert served[0] == recorded[0] != control[0]
    assert served[2] == len(json.loads((tmp_path / "tape.json").read_text()))


def test_names_bound_before_are_bound_anew(tmp_path: Path) -> None:
    """Where the agent's modules came first, their globals, defaults, class attributes, factories are ours."""
    (tmp_path / "workload.py").write_text(WORKLOAD)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_values_above_the_cap_are_not_kept(tmp_path: Path) -> None:
    """A polling loop keeps its first 20,000 values; that there were more is noted once."""
    (tmp_path / "workload.py").write_text(
        "import time\n\n\ndef main():\n    for _ in range(20_010):\n        time.time()\n\n\n"
        "def check_real():\n    return True\n"
    )
    recorded = run(tmp_path, "record", "tape.json")
    assert recorded[1] == [["capped", "time", "workload:main", 1, "workload.py:6"]]
    assert len(json.loads((tmp_path / "tape.json").read_text())) == 20_000
