"""The store: application thread per durable exchange, size per exchange, speed of sealing, what many processes left, loading one run of many."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from filled import fill, process, records, stored_bytes
from report import Figure, least_cpu_ms, median_ms, report
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store
from workload import conversation

from tracefork_otel.store.sealing import seal_dead


def append_us(folder: Path) -> float:
    """Median of both writes of an exchange whose request is about 110 KB, in a growing conversation."""
    bodies = list(conversation(100))
    bodies = [pair for pair in bodies if len(pair[0]) > 80_000]
    wal = process(folder)
    times: list[float] = []
    for seq, (request, response) in enumerate(bodies):
        started, ended = records("ab" * 16, "cd" * 8, 10**18, seq, request, response)
        begun = time.perf_counter_ns()
        wal.append(started)
        wal.append(ended)
        times.append((time.perf_counter_ns() - begun) / 1e3)
    wal.close()
    return statistics.median(times[1:])


def bytes_per_exchange(folder: Path, exchanges: int) -> float:
    wal = process(folder)
    fill(wal, conversation(exchanges))
    wal.close()
    open_store(folder).close()  # seals, and writes what the providers' modules read from the bodies
    return stored_bytes(folder) / exchanges


def seal_rate(folder: Path) -> float:
    """MB of bodies sealed a second, in a process that has sealed once before."""
    bodies = list(conversation(250))
    raw = sum(len(request) + len(response) for request, response in bodies)
    rates: list[float] = []
    for _ in range(4):
        wal = process(folder)
        fill(wal, bodies)
        wal.close()
        begun = time.perf_counter()
        seal_dead(folder)
        rates.append(raw / 1e6 / (time.perf_counter() - begun))
    return statistics.median(rates[1:])


def open_killed_s(folder: Path, processes: int = 200) -> float:
    """Opening a store with the log of each, in which one call is, in a process that has opened one before."""
    stores: list[Path] = []
    for at in range(6):
        stores.append(folder / str(at))
        for number in range(processes):
            wal = process(stores[-1])
            fill(wal, conversation(1, seed=number, tool_bytes=0))
            wal.close()
    return least_cpu_ms(lambda: open_store(stores.pop()).close(), len(stores) - 1) / 1e3


def load_ms(folder: Path) -> tuple[float, float]:
    """A run of 100 exchanges out of 10,000 in ten segments: its bodies, all digests checked; and from its name to a tape."""
    wanted = ""
    for part in range(10):
        wal = process(folder)
        for at in range(10):
            run_id, _ = fill(wal, conversation(100, seed=part * 10 + at))
            if (part, at) == (4, 5):
                wanted = run_id
        wal.close()
        seal_dead(folder)
    with open_store(folder) as store:
        return (
            median_ms(lambda: store.exchanges(wanted)),
            median_ms(lambda: reconstruct(store, store.run(wanted))),
        )


def main() -> None:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        figures.append(
            Figure("application thread, durable exchange, 110 KB", append_us(root / "a"), "µs", 100)
        )
        sizes = {n: bytes_per_exchange(root / f"size{n}", n) for n in (100, 400, 1000)}
        note = ", ".join(f"{n}: {size:.0f}" for n, size in sizes.items())
        figures.append(Figure("store, 400 exchanges", sizes[400], "bytes/exchange", 1000, note=note))
        figures.append(Figure("bytes per exchange at 1000 over 100", sizes[1000] / sizes[100], "×", 1.10))
        figures.append(Figure("seal, warm", seal_rate(root / "seal"), "MB/s", 200, at_least=True))
        killed = open_killed_s(root / "killed")
        what = "opening a store with the logs of 200 processes that are gone, processor time"
        figures.append(Figure(what, killed, "s", 0.5))
        load, whole = load_ms(root / "load")
        note = f"{whole:.0f} ms from a run's name to its tape"
        figures.append(Figure("load 100 exchanges out of 10,000, digests checked", load, "ms", 25, note=note))
    report("store", figures)


if __name__ == "__main__":
    main()
