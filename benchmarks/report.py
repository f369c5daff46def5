"""What a benchmark prints and leaves behind: one line a figure, and `results/<name>.json`."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    what: str
    value: float
    unit: str
    target: float
    at_least: bool = False
    note: str = ""
    within: tuple[float, float] | None = None
    """Where the value lies as far as so many runs tell, in files at 99 %; each end by itself."""

    @property
    def met(self) -> bool:
        return self._meets(self.value)

    @property
    def ruled_out(self) -> bool:
        """Whether the target is missed by more than chance explains, or missed where nothing is by chance."""
        low, high = self.within or (self.value, self.value)
        return not self._meets(high if self.at_least else low)

    def _meets(self, value: float) -> bool:
        return value >= self.target if self.at_least else value <= self.target


def told(rows: Iterable[Figure]) -> None:
    """Print a line for each figure; `near` is missed by no more than chance explains."""
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        state = "met " if row.met else "MISS" if row.ruled_out else "near"
        between = f"; between {row.within[0]:,.4g} and {row.within[1]:,.4g}" if row.within else ""
        print(
            f"{state}  {row.what}: {row.value:,.4g} {row.unit} "
            f"(target {sign} {row.target:,g}{between}){'  ' + row.note if row.note else ''}"
        )


def report(name: str, figures: Iterable[Figure]) -> None:
    rows = list(figures)
    told(rows)
    RESULTS.mkdir(exist_ok=True)
    document = {"figures": [{**asdict(row), "met": row.met} for row in rows], **circumstances()}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def circumstances() -> dict[str, str]:
    """What every result says of its machine and day."""
    machine = f"{platform.machine()}, {_cores()} cores, Python {platform.python_version()}"
    return {"machine": machine, "day": time.strftime("%Y-%m-%d")}


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def median_ms(call: Callable[[], object], repeats: int = 9) -> float:
    """The median wall time of a call, milliseconds, after one call to warm up."""
    call()
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - started) / 1e6)
    return statistics.median(times)


def least_cpu_ms(call: Callable[[], object], repeats: int = 25) -> float:
    """The least processor time of a call, milliseconds, of all threads, after one call to warm up.

    What others make of the machine meanwhile lengthens it at times, and never shortens it.
    """
    call()
    times: list[float] = []
    for _ in range(repeats):
        started = time.process_time_ns()
        call()
        times.append((time.process_time_ns() - started) / 1e6)
    return min(times)
