"""Scale: growing conversations, stores of many exchanges, many writers and a month of one agent, as commands read them: processor time
(user and system) over that of `--help`, while eight to twelve other processes wanted the two cores; and peak memory. 100,000 exchanges: with `--all`. What opens a store begins with
0.4 to 0.6 s of that: the row `start` is a query that reads nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Figure, report

CALLS = (1250, 2500, 5000)
EXCHANGES = (1_000, 10_000)
MORE = 100_000
"""With `--all`: 10,000 runs, which take minutes to make."""
STEPS = 10
"""Exchanges of a run in a store of many."""
WRITERS, EACH = 16, 600
"""Processes that record at the same time, and the exchanges of each."""
DAYS, A_DAY = 30, 24
"""A month of one agent: its runs each day, sealed once a day."""
COUNT = "select count(*) from {}"
PER_DAY = "select started_at::date d, count(*), sum(input_tokens), sum(cost_usd) from exchanges group by d"
COMMAND = (sys.executable, "-m", "tracefork_backend.cli")
_SPAWN = multiprocessing.get_context("spawn")


def run(*words: str) -> tuple[float, float]:
    """Seconds of the processor and megabytes that a command takes."""
    child = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        said = child.stderr.read().decode() if child.stderr else ""
        raise SystemExit(f"{' '.join(words)}: {child.returncode}: {said}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def apart(make: Callable[..., None], *given: object, times: int = 1) -> None:
    """It ran in so many processes at once: what this one holds would be counted as a command's memory."""
    started = [_SPAWN.Process(target=make, args=(*given, at)) for at in range(times)]
    for one in started:
        one.start()
    for one in started:
        one.join()
        if one.exitcode:
            raise SystemExit(f"{make.__name__} ended with {one.exitcode}")


def long_run(folder: Path, calls: int, _: int) -> None:
    from filled import fill, process
    from growing import growing

    from tracefork_otel.store.sealing import seal_dead

    wal = process(folder)
    fill(wal, growing(calls))
    wal.close()
    seal_dead(folder)


def many_runs(folder: Path, exchanges: int, _: int) -> None:
    from filled import fill, process
    from workload import conversation

    from tracefork_otel.store.sealing import seal_dead

    bodies = list(conversation(STEPS, tool_bytes=0))
    for _ in range(10):
        wal = process(folder, rotate_bytes=1 << 40)
        for _ in range(exchanges // STEPS // 10):
            fill(wal, bodies)
        wal.close()
        seal_dead(folder)


def writer(folder: Path, number: int) -> None:
    from filled import fill, process
    from workload import conversation

    from tracefork_otel.store.sealing import seal_dead

    wal = process(folder)
    for run_of in range(EACH // STEPS):
        fill(wal, conversation(STEPS, seed=number * EACH + run_of, tool_bytes=0), seq=run_of * STEPS)
    wal.close()
    seal_dead(folder)


def month(folder: Path, _: int) -> None:
    from filled import fill, process
    from workload import conversation

    from tracefork_otel.store.sealing import seal_dead

    day = 86400 * 10**9
    begun = time.time_ns() - DAYS * day
    for number in range(DAYS):
        wal = process(folder)
        for run_of in range(A_DAY):
            bodies = conversation(STEPS, seed=number * A_DAY + run_of)
            fill(wal, bodies, seq=run_of * STEPS, at=begun + number * day + run_of * day // A_DAY)
        wal.close()
        seal_dead(folder)


def of_long_runs(root: Path, started: float) -> list[Figure]:
    figures: list[Figure] = []
    taken: dict[tuple[str, int], float] = {}
    for calls in CALLS:
        store = ("--store", str(folder := root / f"calls{calls}"))
        file = str(root / f"{calls}.tape")
        apart(long_run, folder, calls)
        for what, words, seconds, megabytes in (
            ("first ls", ("ls",), 5, 500),
            ("start", ("sql", "select 1"), 0.6, 200),
            ("show of a step", ("show", f"last@{calls // 2}"), 1.1, 200),
            ("show", ("show", "last"), 10, 500),
            ("count of messages", ("sql", COUNT.format("messages")), 3, 500),
            ("doctor", ("doctor",), 5, 500),
            ("tape export", ("tape", "export", "last", "-o", file), 10, 500),
            ("tape import", ("tape", "import", file), 15, 500),
        ):
            where = store if what != "tape import" else ("--store", str(root / f"import{calls}"))
            spent, memory = run(*words, *where)
            taken[what, calls] = spent - started
            scale = max(1, calls / 2500)
            note = f"{memory:.0f} MB, target {megabytes * scale:.0f}"
            named = f"{what}, a run of {calls:,} calls"
            figures.append(Figure(named, spent - started, "s", seconds * scale, note=note))
    for what in dict.fromkeys(what for what, _ in taken):
        ratio = taken[what, 5000] / taken[what, 2500]
        figures.append(Figure(f"{what}, 5,000 calls over 2,500", ratio, "×", 2.2))
    return figures


def of_many(root: Path, started: float, exchanges: int) -> list[Figure]:
    folder = root / f"exchanges{exchanges}"
    apart(many_runs, folder, exchanges)
    named = f"a store of {exchanges:,} exchanges in {exchanges // STEPS:,} runs"
    return asked(
        folder,
        started,
        named,
        exchanges,
        (
            ("first ls", ("ls",), 2e-3),
            ("ls", ("ls",), 2e-5),
            ("show of a step", ("show", "last@3"), 2e-5),
            ("count of exchanges", ("sql", COUNT.format("exchanges")), 2e-5),
            ("count of messages", ("sql", COUNT.format("messages")), 4e-5),
            ("doctor", ("doctor",), 2e-3),
        ),
    )


def asked(
    folder: Path,
    started: float,
    named: str,
    exchanges: int,
    commands: tuple[tuple[str, tuple[str, ...], float], ...],
) -> list[Figure]:
    """What commands take of a store, each with its target for one exchange."""
    figures: list[Figure] = []
    for what, words, each in commands:
        spent, memory = run(*words, "--store", str(folder))
        note = f"{memory:.0f} MB"
        figures.append(Figure(f"{what}, {named}", spent - started, "s", 1 + each * exchanges, note=note))
    return figures


def of_writers(root: Path, started: float) -> list[Figure]:
    folder = root / "writers"
    begun = os.times()
    apart(writer, folder, times=WRITERS)
    ended = os.times()
    spent = sum(ended[2:4]) - sum(begun[2:4])
    count = ("sql", COUNT.format("exchanges"), "--json", "--store", str(folder))
    kept = json.loads(subprocess.check_output([*COMMAND, *count]))["count_star()"]
    total = WRITERS * EACH
    named = f"{WRITERS} writers at once, {EACH} exchanges each"
    return [
        Figure(f"exchanges kept, {named}", kept / total, "×", 1, at_least=True),
        Figure(f"making, recording and sealing one, {named}", spent / total * 1e3, "ms", 10),
        *asked(folder, started, named, total, (("ls", ("ls",), 1e-4), ("doctor", ("doctor",), 2e-3))),
    ]


def of_a_month(root: Path, started: float) -> list[Figure]:
    from filled import stored_bytes

    folder = root / "month"
    apart(month, folder)
    total = DAYS * A_DAY * STEPS
    named = f"a month of one agent, {total:,} exchanges in {DAYS * A_DAY} runs and {DAYS} segments"
    figures = asked(
        folder,
        started,
        named,
        total,
        (
            ("first ls", ("ls",), 2e-3),
            ("ls", ("ls",), 2e-5),
            ("tokens and cost by day", ("sql", PER_DAY), 2e-5),
            ("show of a step", ("show", "last@3"), 2e-5),
            ("doctor", ("doctor",), 2e-3),
        ),
    )
    return [*figures, Figure(f"bytes an exchange, {named}", stored_bytes(folder) / total, "bytes", 3000)]


def main() -> None:
    started = sorted(run("--help")[0] for _ in range(5))[2]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        figures = of_long_runs(root, started)
        for exchanges in (*EXCHANGES, *((MORE,) if "--all" in sys.argv else ())):
            figures += of_many(root, started, exchanges)
        figures += of_a_month(root, started)
        figures += of_writers(root, started)
    report("scale", figures)


if __name__ == "__main__":
    main()
