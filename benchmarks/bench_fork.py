"""Forks: how many a second, started anew, from a warm process and in place, beside replays of the same steps; bytes kept; jobs."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Figure, report
from tracefork_backend.agents.in_place import playing
from tracefork_backend.agents.pool import WarmPool
from tracefork_backend.agents.recording import record
from tracefork_backend.rerun.edits import noop, text
from tracefork_backend.rerun.forker import Forker, Planned
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate import ModelServer, Reply
from tracefork_backend.store import Run, compact, open_store
from workload import text as prose

from tracefork_otel.settings import Settings

AGENT = '''
import os
import anthropic
import tracefork_otel

@tracefork_otel.agent
def talk(turns, words=()):
    """A conversation of so many turns; it ends early when the model says END."""
    client = anthropic.Anthropic(api_key="k", base_url=os.environ["BENCH_URL"], max_retries=0)
    messages = []
    for turn in range(turns):
        messages.append({"role": "user", "content": words[turn] if words else f"turn {turn}"})
        answer = client.messages.create(model="claude-sonnet-4-5", max_tokens=64, messages=messages)
        said = answer.content[0].text
        messages.append({"role": "assistant", "content": said})
        if said.startswith("END"):
            break
    return said
'''
SCRIPT = "import sys\nimport bench_agent\nbench_agent.talk.__wrapped__(int(sys.argv[1]))\n"
RECORD = """
import json, sys
from tracefork_otel import TraceforkInstrumentor
TraceforkInstrumentor().instrument(http_spans=False)
import bench_agent
bench_agent.talk(**json.load(sys.stdin))
"""
LATENCY_S = 0.02
JOBS, FORKS = 16, 40
KEPT = 50


class World:
    """A folder with the agent in it, a model server, and stores of recorded conversations."""

    def __init__(self, folder: Path, server: ModelServer) -> None:
        self.folder = folder
        self.server = server
        self.latency = 0.0
        server.behaviour = self.answer
        (folder / "bench_agent.py").write_text(AGENT)
        (folder / "bench_script.py").write_text(SCRIPT)
        os.environ["BENCH_URL"] = server.url
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        os.chdir(folder)
        self.talk = importlib.import_module("bench_agent").talk

    async def answer(self, call) -> Reply:
        if self.latency:
            await asyncio.sleep(self.latency)
        if len(call.messages) > 6 and "fork" in call.messages[5][1]:
            return Reply(text=f"END {prose(random.Random(call.messages[5][1]), 370)}")
        return Reply(text=prose(random.Random(len(call.messages)), 370))

    def run(self, turns: int, words: tuple[str, ...] = ()) -> Run:
        store = self.folder / f"store-{turns}-{len(words)}"
        subprocess.run(
            [sys.executable, "-c", RECORD],
            input=json.dumps({"turns": turns, "words": words}),
            env={**os.environ, "TRACEFORK_STORE": str(store)},
            text=True,
            check=True,
        )
        return open_store(store).run("last")


def rate(count: int, call: Callable[[], object]) -> float:
    """The median of three, in calls a second; `call` makes so many."""
    rates: list[float] = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        rates.append(count / (time.perf_counter() - started))
    return statistics.median(rates)


def work() -> float:
    """Seconds of all cores so far, by this process and those that it waited for: others' load is not in them."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def forks(forker: Forker, at: int, count: int) -> None:
    made = forker.forks([Planned(change=noop().bind(forker.tape, at, tail="recorded"))] * count)
    assert all(one.problem is None and one.calls_live == 0 for one in made), made[0].problem


def bare_replays(world: World, run: Run, steps: int, count: int) -> None:
    """The same calls answered from the tape in this process, with nothing around them."""
    folder = Path(tempfile.mkdtemp(dir=world.folder))
    reconstruct(run.store, run).dump(folder / "tape")
    for at in range(count):
        settings = Settings(mode="replay", tape=folder / "tape", store=folder / f"{at}", seal=False)
        with playing(settings, "ab" * 16, "ab" * 8):
            world.talk(steps)


def speeds(world: World, steps: int, targets: tuple[float, float, float]) -> list[Figure]:
    run = world.run(steps)
    at = steps // 2
    fresh, warm, place = targets
    with Forker(run, warm=False, jobs=2) as forker:
        anew = rate(4, lambda: forks(forker, at, 4))
    before = work()
    with Forker(run, jobs=2) as forker:
        warmed = rate(20, lambda: forks(forker, at, 20))
    between = work()
    with Forker(run, agent=world.talk) as forker:
        placed = rate(20, lambda: forks(forker, at, 20))
    warm_s, place_s = (between - before) / 60, (work() - between) / 60
    bare = rate(20, lambda: bare_replays(world, run, steps, 20))
    started = rate(2, lambda: [replay(run) for _ in range(2)])
    what = f"{steps}-call anthropic agent"
    return [
        Figure(f"forks of a {what}, started anew, 2 at once", anew, "/s", fresh, at_least=True, note=f"replays started anew, one at a time: {started:.2f}/s"),
        Figure(f"forks of a {what}, warm, 2 at once", warmed, "/s", warm, at_least=True, note=f"{warm_s * 1e3:.0f} ms of work each, the start in it"),
        Figure(f"forks of a {what}, in place", placed, "/s", place, at_least=True, note=f"{place_s * 1e3:.0f} ms of work each; the same calls replayed bare: {bare:.1f}/s"),
    ]  # fmt: skip


def of_a_command(world: World) -> list[Figure]:
    """The same calls made by a script: started anew, and from a warm process once the first has run."""
    store = world.folder / "store-command"
    record(store, [sys.executable, "bench_script.py", "4"])
    run = open_store(store).run("last")
    with Forker(run, warm=False, jobs=2) as forker:
        anew = rate(4, lambda: forks(forker, 2, 4))
    with Forker(run, jobs=2) as forker:
        started = time.perf_counter()
        forks(forker, 2, 40)
        whole = 40 / (time.perf_counter() - started)
        warm = rate(20, lambda: forks(forker, 2, 20))
    return [
        Figure("forks of a 4-call anthropic command, warm, 2 at once", warm, "/s", 10, at_least=True, note=f"{whole:.1f}/s with the first, fresh one among 40"),
        Figure("the same over those started anew", warm / anew, "×", 10, at_least=True, note=f"{anew:.2f}/s"),
    ]  # fmt: skip


def start_up(world: World) -> Figure:
    run = world.run(2)
    with Forker(run) as forker:
        bare = rate(1, lambda: subprocess.run([sys.executable, "-c", "import bench_agent"], check=True))
        times: list[float] = []
        for _ in range(5):
            began = time.monotonic()
            pool = WarmPool(
                "bench_agent:talk", env=os.environ, cwd=world.folder, tape=forker._stage.workspace.tape
            )
            times.append(time.monotonic() - began)
            pool.close()
    seconds = statistics.median(times)
    return Figure(
        "start of a warm process over importing its agent alone", seconds * bare, "×", 1.5,
        note=f"{seconds:.2f} s",
    )  # fmt: skip


def at_once(world: World) -> Figure:
    """What 20 ms of latency in each call of the tail add to many forks at once."""
    run = world.run(10)
    took: dict[float, float] = {}
    calls = 0
    for latency in (0.0, LATENCY_S):
        world.latency = latency
        times: list[float] = []
        for _ in range(3):
            with Forker(run, jobs=JOBS) as forker:
                forker.fork(0, text("first"))  # the pool is there
                started = time.perf_counter()
                made = forker.forks([Planned(change=text("other").bind(forker.tape, 0))] * FORKS)
                times.append(time.perf_counter() - started)
            assert all(one.problem is None for one in made)
            calls = sum(one.calls_live for one in made)
        took[latency] = statistics.median(times)
    world.latency = 0.0
    summed = calls * LATENCY_S
    return Figure(
        f"{FORKS} forks, {JOBS} at once: what {LATENCY_S * 1e3:.0f} ms a live call add, over their sum",
        max(0.0, took[LATENCY_S] - took[0.0]) / summed,
        "",
        1 / 8,
        note=f"{calls} calls, {summed:.1f} s of latency; {took[0.0]:.2f} s without, {took[LATENCY_S]:.2f} s with",
    )


def kept(world: World) -> Figure:
    """Bytes of the compacted store per fork: 20 recorded steps, forks that end after 4."""
    rng = random.Random(5)
    run = world.run(20, tuple(prose(rng, 1100) for _ in range(20)))
    store = run.store.path
    compact(store)
    before = size(store)
    with Forker(run, agent=world.talk, jobs=2) as forker:
        made = forker.forks(
            [Planned(change=text(f"fork {n}: {prose(rng, 60)}").bind(forker.tape, 2)) for n in range(KEPT)]
        )
    assert all(one.problem is None and one.steps == 4 for one in made), made[0]
    open_store(store).close()
    compact(store)
    per = (size(store) - before) / KEPT
    return Figure(
        "store bytes per 4-exchange fork of a 20-step run",
        per / 1024,
        "KiB",
        2.5,
        note=f"{KEPT} forks, compacted",
    )


def size(store: Path) -> int:
    with open_store(store) as opened:
        return sum(entry.file(store, kind).stat().st_size for entry in opened.entries for kind in ("spans", "exchanges", "chunks", "facts"))  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ModelServer() as server:
        world = World(Path(name), server)
        figures = [
            *speeds(world, 4, (0.7, 15, 31)),
            *speeds(world, 10, (0.7, 12, 20)),
            *speeds(world, 50, (0.5, 5, 5)),
            *of_a_command(world),
            start_up(world),
            at_once(world),
            kept(world),
        ]
        report("fork", figures)
        os.chdir("/")


if __name__ == "__main__":
    main()
