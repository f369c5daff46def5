"""`run --draws`, typed: an agent whose prompts hold clocks, ids and random values, replayed and forked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.command import environment, here, tracefork

# Each test records and replays several processes: .ci/run has them, `make test` has not.
pytestmark = pytest.mark.slow

HERE = "{}.{}".format(*sys.version_info)
AGENT = """
import asyncio, contextlib, os, random, secrets, time, uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from threading import Thread
from time import time as early
from uuid import uuid4

from anthropic import Anthropic, AsyncAnthropic

ASK = {"model": "claude-haiku-4-5", "max_tokens": 64}
TOKEN = secrets.token_hex(4)


@dataclass
class Item:
    id: object = field(default_factory=uuid4)
    at: float = field(default_factory=time.time)


def ask(client, *parts):
    messages = [{"role": "user", "content": " ".join(map(str, parts))}]
    with client.messages.stream(**ASK, messages=messages) as stream:
        return stream.get_final_message().content[0].text


def prompts(client):
    for step in range(2):
        ask(client, step, TOKEN, datetime.now(), datetime.now(timezone.utc), datetime.utcnow(), date.today(),
            datetime.today(), uuid4(), uuid.uuid1(), time.time(), early(), time.time_ns(), time.monotonic(),
            time.perf_counter_ns(), time.strftime("%H:%M:%S"), time.localtime().tm_sec, time.ctime(),
            random.random(), random.choice("abcdefgh"), random.sample(range(1000), 5), random.gauss(0, 1),
            random.Random().random(), random.SystemRandom().random(), secrets.token_hex(8),
            os.urandom(4).hex(), set("abcdefgh"), Item(), [uuid4() for _ in range(3)])
    random.seed(42)
    assert random.random() == 0.6394267984578837


def pool(client):
    with ThreadPoolExecutor(4) as jobs:
        list(jobs.map(lambda n: ask(client, n, uuid4(), time.time()), range(5)))
        bare = [jobs.submit(uuid4) for _ in range(3)]
        ask(client, *(one.result() for one in bare))
    threads = [Thread(target=ask, args=(client, "thread")) for _ in range(2)]
    made = []
    threads.append(Thread(target=lambda: made.append(uuid4())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask(client, made)


async def work(client, number):
    await asyncio.sleep(random.random() / 50)
    messages = [{"role": "user", "content": f"{number} {uuid4()} {await asyncio.to_thread(uuid4)}"}]
    async with client.messages.stream(**ASK, messages=messages) as stream:
        await stream.get_final_message()


async def tasks():
    async with AsyncAnthropic() as client, asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(work(client, number))


with contextlib.ExitStack() as stack:
    from tracefork_backend.simulate import spawn

    os.environ["ANTHROPIC_BASE_URL"] = stack.enter_context(spawn("research", file=__file__))
    os.environ["ANTHROPIC_API_KEY"] = "not needed"
    prompts(Anthropic())
    pool(Anthropic())
    asyncio.run(tasks())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the agent and a store that holds one recording of it with its draws."""
    folder = tmp_path_factory.mktemp("draws")
    (folder / "agent.py").write_text(AGENT)
    done = tracefork("run", "--draws", "--", sys.executable, "agent.py", cwd=folder)
    assert done.status == 0, done.err
    return folder


def test_replay_is_exact_in_real_time(folder: Path) -> None:
    """Threads, jobs, tasks and plain code draw what they drew, in spans of the true time."""
    done = tracefork("replay", "last", cwd=folder)
    assert done.status == 0, done.out + done.err
    assert "PASS    bit-exact" in done.out
    drawn = next(line for line in done.out.splitlines() if line.startswith("draws "))
    assert drawn.endswith(" served"), drawn
    rows = here(
        "sql",
        "SELECT r.kind, epoch_us(r.started_at) AS started, "
        "min(TRY_CAST(d.value AS DOUBLE)) FILTER (d.source = 'time') AS time, "
        "count(*) AS n, max(position) AS last, count(DISTINCT d.site) AS sites FROM draws d "
        "JOIN runs r USING (run_id) GROUP BY ALL ORDER BY started LIMIT 2",
        "--json",
        cwd=folder,
    ).rows
    record, replay = rows
    assert (record["kind"], replay["kind"]) == ("record", "replay")
    assert record["time"] == replay["time"]
    assert record["n"] == replay["n"] == record["last"] + 1 > 80
    assert record["sites"] > 5
    assert replay["started"] > record["started"]


def test_tape_file_replays_and_is_checked(folder: Path, tmp_path: Path) -> None:
    """A tape file brings its draws along, and one changed draw is found when it is read."""
    tape = tmp_path / "run.jsonl"
    assert here("tape", "export", "last", "-o", tape, cwd=folder).status == 0
    assert tracefork("verify", tape, cwd=folder).status == 0
    data = tape.read_bytes()
    tape.write_bytes(data.replace(b'"time_ns","agent:prompts"', b'"time_ns","agent:promptz"'))
    spoilt = tracefork("verify", tape, cwd=folder)
    assert (spoilt.status, "a draw was changed" in spoilt.out + spoilt.err) == (2, True), spoilt


@pytest.mark.slow
def test_without_draws_the_same_agent_drifts(folder: Path, tmp_path: Path) -> None:
    """The control: recorded without --draws, the agent's first prompt differs."""
    (tmp_path / "agent.py").write_text(AGENT)
    assert tracefork("run", "--", sys.executable, "agent.py", cwd=tmp_path).status == 0
    done = tracefork("replay", "last", cwd=tmp_path)
    assert (done.status, "at step 0" in done.out, "draws" in done.out) == (1, True, False)


def test_fork_is_real_after_its_step(folder: Path) -> None:
    """Before the forked step the recorded values are served; after it the clock is the true one."""
    done = tracefork("fork", "last@0", "--text", "changed", "--tail", "live", cwd=folder)
    assert done.status == 0, done.out + done.err
    rows = here(
        "sql",
        "SELECT r.kind, list(TRY_CAST(d.value AS BIGINT) ORDER BY position) AS drawn FROM draws d "
        "JOIN runs r USING (run_id) WHERE source = 'time_ns' AND r.kind IN ('record', 'fork') "
        "GROUP BY ALL ORDER BY r.kind",
        "--json",
        cwd=folder,
    ).rows
    fork, record = (row["drawn"] for row in rows)
    assert fork[0] == record[0]
    assert fork[1] > record[-1]


def test_what_does_not_fit_is_said(folder: Path, tmp_path: Path) -> None:
    """A draw put in before others of its function shifts them: the drift comes with the place of the draw."""
    tape = tmp_path / "run.jsonl"
    assert here("tape", "export", "last", "-o", tape, cwd=folder).status == 0
    changed = AGENT.replace("    for step in range(2):\n", "    early()\n    for step in range(2):\n")
    (tmp_path / "agent.py").write_text(changed)
    done = tracefork("replay", tape, "--trust", cwd=tmp_path)
    assert done.status == 1
    drawn = next(line for line in done.out.splitlines() if line.startswith("draws "))
    assert "partial" in drawn
    assert "time.time at agent.py:29 served on another line" in drawn
    drift = next(line for line in done.out.splitlines() if line.startswith("drift "))
    assert "(clock)" in drift
    assert "time.time at agent.py" in drift
    assert "a draw was added before it" in drift


FAMILY = """
import multiprocessing, os, subprocess, sys, time, uuid

from anthropic import Anthropic

ASK = {"model": "claude-haiku-4-5", "max_tokens": 9}


def ask(client, text):
    client.messages.create(**ASK, messages=[{"role": "user", "content": text}])


def child(queue):
    queue.put(f"{uuid.uuid4()} {time.time()}")


if __name__ == "__main__":
    from tracefork_backend.simulate import spawn

    os.environ["ANTHROPIC_API_KEY"] = "not needed"
    with spawn("research", file=__file__) as url:
        client = Anthropic(base_url=url)
        for _ in range(2):
            command = [sys.executable, "-c", "import uuid; print(uuid.uuid4())"]
            ask(client, subprocess.run(command, capture_output=True, text=True).stdout)
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        ask(client, queue.get())
        process.join()
        ask(client, str(uuid.uuid4()))
"""


def test_children_draw_their_own(tmp_path: Path) -> None:
    """Equal subprocesses and a forked child, none of which calls a model, read their own values again."""
    (tmp_path / "family.py").write_text(FAMILY)
    recorded = tracefork("run", "--draws", "--", sys.executable, "family.py", cwd=tmp_path)
    assert recorded.status == 0, recorded.err
    done = tracefork("replay", "last", cwd=tmp_path)
    assert "PASS    bit-exact" in done.out, done.out + done.err
    assert "draws   5 served" in done.out


CALLS = """
import asyncio, os, random, uuid
from datetime import datetime

from anthropic import Anthropic, AsyncAnthropic

from tracefork_otel import TraceforkInstrumentor, agent

TraceforkInstrumentor().instrument(draws=True)
ASK = {"model": "claude-haiku-4-5", "max_tokens": 9}
STARTED = uuid.uuid4()


@agent
def plan(number):
    for _ in range(2):
        text = f"{number} {datetime.now()} {uuid.uuid4()} {STARTED} {random.random()}"
        Anthropic().messages.create(**ASK, messages=[{"role": "user", "content": text}])
    return str(datetime.now())


@agent
async def ask(number):
    async with AsyncAnthropic() as client:
        text = f"{number} {datetime.now()} {uuid.uuid4()} {STARTED}"
        await client.messages.create(**ASK, messages=[{"role": "user", "content": text}])


if __name__ == "__main__":
    from tracefork_backend.simulate import spawn

    with spawn("research", file=__file__) as url:
        os.environ["ANTHROPIC_BASE_URL"] = url
        print(url)
        for number in range(2):
            plan(number)
            asyncio.run(ask(number))
"""


def test_each_call_of_a_process_replays_alone(tmp_path: Path) -> None:
    """With `instrument(draws=True)` one call among several reads its own values, not those of the first."""
    (tmp_path / "calls.py").write_text(CALLS)
    started = subprocess.run(
        [sys.executable, "calls.py"],
        cwd=tmp_path,
        env=environment(ANTHROPIC_API_KEY="x"),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    url = started.stdout.strip()
    for run in ("last", "last~1"):
        done = tracefork("replay", run, cwd=tmp_path, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="x")
        assert "PASS    bit-exact" in done.out, done.out + done.err
        assert "partial" not in done.out


TOOLS = """
import asyncio, time
from uuid import uuid4
from anthropic import Anthropic, AsyncAnthropic
import tracefork_otel


def stamp():
    return f"{time.time()} {uuid4()}"


@tracefork_otel.tool
def lookup(ticket):
    return {"ticket": stamp(), "n": ticket}


@tracefork_otel.tool
async def later(n):
    await asyncio.sleep(0.01)
    return [stamp(), await asyncio.to_thread(stamp)]

ASK = {"model": "claude-haiku-4-5", "max_tokens": 64}


async def one(client, n):
    text = f"{stamp()} {await later(n)} {stamp()}"
    await client.messages.create(**ASK, messages=[{"role": "user", "content": text}])


async def main(url):
    async with AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        await asyncio.gather(*(one(client, n) for n in range(3)))


if __name__ == "__main__":
    from tracefork_backend.simulate import spawn

    with spawn("research", file=__file__) as url:
        client = Anthropic(base_url=url, api_key="k", max_retries=0)
        for n in range(2):
            text = f"{stamp()} {lookup(n)} {stamp()}"
            client.messages.create(**ASK, messages=[{"role": "user", "content": text}])
        asyncio.run(main(url))
"""


@pytest.mark.parametrize(
    ("tools", "said"), [("recorded", "20 served, 16 of tools that did not run"), ("live", "36 served")]
)
def test_a_tool_draws_for_itself(tmp_path: Path, tools: str, said: str) -> None:
    """Whether or not a tool runs in the replay, what the agent draws around it is what it drew."""
    (tmp_path / "agent.py").write_text(TOOLS)
    recorded = tracefork("run", "--draws", "--", sys.executable, "agent.py", cwd=tmp_path)
    assert recorded.status == 0, recorded.err
    done = tracefork("replay", "last", "--tools", tools, cwd=tmp_path)
    assert "PASS    bit-exact" in done.out, done.out + done.err
    assert f"draws   {said}\n" in done.out


POOLED = """
import multiprocessing, time
from concurrent.futures import ProcessPoolExecutor
from uuid import uuid4

from anthropic import Anthropic


def work(number):
    return uuid4()


if __name__ == "__main__":
    from tracefork_backend.simulate import spawn

    with spawn("research", file=__file__) as url:
        client = Anthropic(base_url=url, api_key="k", max_retries=0)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            content = f"{pool.submit(time.time).result()} {[*pool.map(work, range(3))]}"
        messages = [{"role": "user", "content": content}]
        client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=messages)
"""


def test_what_a_pool_of_processes_draws_is_named(tmp_path: Path) -> None:
    """A clock handed to a pool of processes, and what its jobs draw, are partial, and a drift quotes them."""
    (tmp_path / "agent.py").write_text(POOLED)
    recorded = tracefork("run", "--draws", "--", sys.executable, "agent.py", cwd=tmp_path)
    assert recorded.status == 0, recorded.err
    assert "draws: partial (time.time in agent:<module> drawn in a pool of processes" in recorded.err
    shown = here("show", "last", cwd=tmp_path).out
    assert "draws  3 recorded, partial (" in shown
    assert "uuid4 in agent:work" in shown
    done = tracefork("replay", "last", cwd=tmp_path)
    assert done.status == 1
    assert "time.time in agent:<module> is drawn in a pool of processes" in done.out
    assert "draw it where the job is handed over" in done.out


UNTRIED = """
from anthropic import Anthropic
from datetime import datetime
from tracefork_otel import TraceforkInstrumentor
from tracefork_otel.draws import ctypes_dict
from uuid import uuid4

ctypes_dict.TRIED = ((3, 0), (3, 1))
TraceforkInstrumentor().instrument(draws=True)

if __name__ == "__main__":
    from tracefork_backend.simulate import spawn

    with spawn("research", file=__file__) as url:
        client = Anthropic(base_url=url, api_key="k", max_retries=0)
        for step in range(2):
            text = f"{step} {uuid4()} {datetime.now() if step else ''}"
            messages = [{"role": "user", "content": text}]
            client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=messages)
"""


def test_an_interpreter_that_was_not_tried_keeps_its_types(tmp_path: Path) -> None:
    """Where `datetime` is better left alone, run, show and receipt say so, and all else is kept."""
    (tmp_path / "agent.py").write_text(UNTRIED)
    said = f"partial (datetime.now, datetime.utcnow, date.today not covered: not tried on Python {HERE})"
    recorded = tracefork("run", "--", sys.executable, "agent.py", cwd=tmp_path)
    assert recorded.status == 0, recorded.err
    assert f"draws: {said}" in recorded.err
    assert f"draws  2 recorded, {said}" in here("show", "last", cwd=tmp_path).out
    done = tracefork("replay", "last", cwd=tmp_path)
    assert done.status == 1
    assert f"note    the recording is incomplete: draws: {said}" in done.out
    assert "1 of 2 exchanges served" in done.out
    assert "datetime.now at agent.py:17 was not on the tape" in done.out
    assert "FAIL    clock at step 1" in done.out


@pytest.mark.slow
def test_a_killed_agent_has_all_draws_of_its_requests(tmp_path: Path) -> None:
    """A kill -9 loses no value that reached a request: the replay is exact up to the same end."""
    killed = AGENT.replace("    pool(Anthropic())", "    os.kill(os.getpid(), 9)")
    (tmp_path / "agent.py").write_text(killed)
    assert tracefork("run", "--draws", "--", sys.executable, "agent.py", cwd=tmp_path).status != 0
    done = tracefork("replay", "last", cwd=tmp_path)
    assert "PASS    bit-exact" in done.out, done.out + done.err
