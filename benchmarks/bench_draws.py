"""Draws: what a clock, an id and a random value cost more, read by the agent (recorded, served) and by a library."""

from __future__ import annotations

import random
import statistics
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from types import FunctionType

from report import Figure, report

from tracefork_otel.draws.deck import Deck
from tracefork_otel.draws.sources import Sources
from tracefork_otel.tape.reads import Draw

# Below the 20,000 values that are kept of one function: what is not kept costs less.
CALLS = 10_000
ROUNDS = 9
CODE = """
from time import perf_counter_ns as NOW  # bound before any clock is replaced

def timed(calls):
    started = NOW()
    for _ in range(calls):
        {call}
    return NOW() - started
"""
CALLED = ("time.time()", "datetime.now()", "uuid.uuid4()", "random.random()")
# What an agent may pay for a value that it reads (µs), and what libraries may that draw for themselves.
SCOPED, UNSCOPED = 4.0, 1.0


def timed(call: str, file: str, module: str) -> FunctionType:
    """A loop of calls in a module of that name and file: an agent's, or a library's."""
    names = {
        "__name__": module,
        "__file__": file,
        "time": time,
        "datetime": datetime,
        "uuid": uuid,
        "random": random,
    }
    exec(compile(CODE.format(call=call), file, "exec"), names)
    return names["timed"]


def once(functions: list[FunctionType], recorded: list[Draw] | None = None) -> tuple[list[float], list[Draw]]:
    """Nanoseconds per call of each function with its draws recorded, or served; and what was recorded."""
    deck = Deck("bench:00000000")
    if recorded is not None:
        deck.serve(lambda: recorded, bool)
        deck.stream_of("", "none", "none")  # deals the tape's values out, which `dealing` measures
    sources = Sources(deck)
    sources.install()
    try:
        found = [function(CALLS) / CALLS for function in functions]
    finally:
        sources.restore()
    taken = deck.taken() or {"streams": [], "values": []}
    streams, values = taken["streams"], taken["values"]
    made = [
        Draw(process="bench#0", lane=lane, source=source, site=site, line=line, value=value)
        for number, _, value in values
        for lane, source, site, line in [streams[number]]
    ]
    assert recorded is None or (len(made) == len(recorded) and not taken["notes"]), taken["notes"]
    return found, made


def main() -> None:
    agent = [timed(call, "/srv/agent.py", "agent") for call in CALLED]
    library = [timed(call, "/srv/lib/site-packages/library.py", "library") for call in CALLED]
    bare = [timed(call, "/srv/agent.py", "agent") for call in CALLED]
    rounds: dict[str, list[list[float]]] = {"bare": [], "recorded": [], "served": [], "library": []}
    for _ in range(ROUNDS):
        rounds["bare"].append([function(CALLS) / CALLS for function in bare])
        costs, draws = once(agent)
        rounds["recorded"].append(costs)
        rounds["served"].append(once(agent, draws)[0])
        rounds["library"].append(once(library)[0])
    best = {name: [min(column) for column in zip(*rows, strict=True)] for name, rows in rounds.items()}
    figures: list[Figure] = []
    for number, call in enumerate(CALLED):
        plain = best["bare"][number]
        for name, what, target in (
            ("recorded", "the agent's, recorded", SCOPED),
            ("served", "the agent's, served", SCOPED),
            ("library", "a library's own", UNSCOPED),
        ):
            figures.append(
                Figure(
                    f"{call}, {what}: added to {plain:,.0f} ns",
                    (best[name][number] - plain) / 1e3,
                    "µs",
                    target,
                )
            )
    dealt = median_of(lambda: dealing(draws)) / len(draws) / 1e3
    figures.append(Figure(f"a tape's value, made ready to be served ({len(draws):,})", dealt, "µs", 5))
    figures.append(Figure("start: everything replaced", median_of(start) / 1e6, "ms", 5))
    report("draws", figures)


def dealing(draws: list[Draw]) -> float:
    deck = Deck("bench:00000000")
    deck.serve(lambda: draws, bool)
    started = time.perf_counter_ns()
    deck.stream_of("", "none", "none")
    return time.perf_counter_ns() - started


def start() -> float:
    sources = Sources(Deck("bench:00000000"))
    started = time.perf_counter_ns()
    sources.install()
    took = time.perf_counter_ns() - started
    sources.restore()
    return took


def median_of(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(ROUNDS))


if __name__ == "__main__":
    main()
