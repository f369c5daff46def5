"""Experiments with real forks of real runs, against a scripted model on loopback: no network, no key.

Each part is meant for a process of its own: agents run in place there, beside nothing of the caller's.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import tracefork_otel
from tracefork_otel import TraceforkInstrumentor

from ..blaming import changes
from ..blaming.experiment import blame
from ..blaming.result import BlameResult
from ..grading.regex import regex
from ..simulate import ModelServer
from ..store import Run, open_store
from .agents import Careless, Coin, ask, look_up
from .report import Row

Part: TypeAlias = Literal["flaky", "faults", "wall"]
OnStep: TypeAlias = Callable[[int, int], None]
"""Told how many experiments are done, of how many."""

_GRADED = regex(success="WON", failure="LOST")

# Chances that a flaky agent loses whatever happens, and steps of its runs, both from the gate.
_LOSES = (0.4, 0.8)
_FLAKY_STEPS = {True: (5,), False: (4, 5, 6)}
_FLAKY_RUNS = {True: 1, False: 10}

# Faults of what the first step has too.
_HARMS_THE_FIRST = ("wrong_system_prompt", "poisoned_argument")
# Steps of the agents whose every step is harmed in turn.
_FAULT_STEPS = {True: (3,), False: tuple(range(2, 9))}

# The wall-time gate: ten steps, four trials of each, a model that takes 20 ms. 16 at once, as trials wait.
_WALL_STEPS, _WALL_TRIALS, _WALL_LATENCY_S, _WALL_JOBS = 10, 4, 0.02, 16
_WALL_REPEATS = {True: 1, False: 5}


@contextmanager
def _recorded(agent: Callable[..., str], server: ModelServer, steps: int) -> Iterator[Run]:
    """Yield the run of the agent with so many steps, in a store of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tracefork-validate-") as folder:
        path = Path(folder) / "store"
        TraceforkInstrumentor().instrument(store=path, http_spans=False)
        try:
            tracefork_otel.agent(agent)(server.url, steps)
        finally:
            TraceforkInstrumentor().uninstrument()
        server.requests.clear()
        with open_store(path) as store:
            yield store.run("last")


def _experiment(run: Run, change: changes.Change, agent: Callable[..., str]) -> BlameResult:
    return blame(run, oracle=_GRADED, change=change, mode="intervene", agent=agent)


def flaky(*, quick: bool, on_step: OnStep) -> list[Row]:
    """Return how often an innocent is certified where re-runs are lost by chance and no change matters."""
    model = Coin()
    cases = [(loses, steps) for loses in _LOSES for steps in _FLAKY_STEPS[quick]]
    runs = _FLAKY_RUNS[quick]
    rows: list[Row] = []
    with ModelServer(model) as server:
        for loses, steps in cases:
            blamed = forks = 0
            for number in range(runs):
                on_step(len(rows) * runs + number, len(cases) * runs)
                model.loses, model.rng = 0.0, random.Random(f"{loses} {steps} {number}")
                with _recorded(ask, server, steps) as run:
                    model.loses = loses
                    found = _experiment(run, changes.ablate("bad"), ask)
                blamed += bool(found.findings.certified)
                forks += len(found.trials)
            metrics = {"false_blame": blamed / runs, "forks": forks / runs}
            rows.append(Row(suite="real", cell=f"flaky {loses}, n={steps}", runs=runs, metrics=metrics))
    return rows


def faults(*, quick: bool, on_step: OnStep) -> list[Row]:
    """Return how often the harmed step is named first, each step of each agent in turn; and of a noop."""
    cases = [
        (f"fault {name}", "top", changes.fault(name), steps, planted)
        for name in changes.FAULT_CLASSES
        for steps in _FAULT_STEPS[quick]
        # No tool has answered before step 1.
        for planted in range(0 if name in _HARMS_THE_FIRST else 1, steps - 1)
    ]
    cases += [("noop", "certified", changes.noop(), steps, 0) for steps in _FAULT_STEPS[quick]]
    counts: dict[tuple[str, str], list[bool]] = {}
    forks: Counter[str] = Counter()
    model = Careless()
    with ModelServer(model) as server:
        for number, (cell, metric, change, steps, planted) in enumerate(cases):
            on_step(number, len(cases))
            model.steps, model.planted = steps, planted
            with _recorded(look_up, server, steps) as run:
                found = _experiment(run, change, look_up)
            hit = found.top == planted if metric == "top" else bool(found.findings.certified)
            counts.setdefault((cell, metric), []).append(hit)
            forks[cell] += len(found.trials)
    rows: list[Row] = []
    for (cell, metric), hits in counts.items():
        metrics = {metric: sum(hits) / len(hits), "forks": forks[cell] / len(hits)}
        rows.append(Row(suite="real", cell=cell, runs=len(hits), metrics=metrics))
    return rows


def wall(*, quick: bool, on_step: OnStep) -> list[Row]:
    """Return the seconds from the first trial's start to the results in the store, the best of some.

    And seconds of work on all cores, the start of the warm agent and the model included.
    """
    model = Careless()
    model.steps, model.latency_s = _WALL_STEPS, _WALL_LATENCY_S
    times: list[float] = []
    work: list[float] = []
    trials = 0
    with ModelServer(model) as server:
        for number in range(_WALL_REPEATS[quick]):
            on_step(number, _WALL_REPEATS[quick])
            with _recorded(look_up, server, _WALL_STEPS) as run:
                before = _cpu_s()
                result = blame(
                    run,
                    oracle=_GRADED,
                    change=changes.fault("poisoned_argument"),
                    mode="fixed",
                    k=_WALL_TRIALS,
                    jobs=_WALL_JOBS,
                    agent=f"{look_up.__module__}:{look_up.__name__}",
                )
                ended = time.time_ns()
            if problem := result.problem:
                raise RuntimeError(f"a trial of the wall-time experiment is no outcome: {problem}")
            work.append(_cpu_s() - before)
            times.append((ended - min(one.started_ns for one in result.trials)) / 1e9)
            trials = len(result.trials)
    cell = f"n={_WALL_STEPS}, {_WALL_TRIALS} trials a step, a model that takes {_WALL_LATENCY_S * 1000:g} ms"
    return [
        Row(suite="real", cell=cell, runs=trials, metrics={"seconds": min(times), "cpu_seconds": min(work)})
    ]


def _cpu_s() -> float:
    """Return the seconds of work by this process and by those that it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


PARTS: dict[Part, Callable[..., list[Row]]] = {"flaky": flaky, "faults": faults, "wall": wall}
