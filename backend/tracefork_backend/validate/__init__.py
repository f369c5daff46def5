"""Hold blame to planted truth: simulated worlds and real forks, and gates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Literal

from .forecasts import forecast_cells
from .parts import OnProgress, RealForks
from .parts import gates as real_gates
from .removing import parts_cells
from .repairs import repair_cells
from .report import Gate, Report, Row
from .suites import cells
from .tally import SEED, Tally, pooled, upper_bound

__all__ = ["Gate", "Report", "Row", "run_suites"]

# Runs of a cell of weight 1. Quick is for a look and for CI's fast part; full has the runs that the gates
# ask for.
_RUNS = {True: 16, False: 200}


def _falsely(whole: Tally) -> float:
    return upper_bound(whole.false_blame, whole.runs)


def _rate(count: str) -> Callable[[Tally], float]:
    return lambda whole: getattr(whole, count) / whole.runs


def _median(whole: Tally) -> float:
    return float(statistics.median(whole.forks))


_Promise = tuple[str, str, Callable[[Tally], float], Literal["at most", "at least"], float]
# What is promised of the cells with a tag: in words, measured how, and its limit.
_PROMISES: tuple[_Promise, ...] = (
    ("false blame where nothing is a cause, upper 95 % bound", "null", _falsely, "at most", 0.05),
    (
        "the same with an oracle that is wrong in 15 %, upper 95 % bound",
        "wrong oracle",
        _falsely,
        "at most",
        0.05,
    ),
    (
        "the same where 0.4 or 0.8 of all re-runs flip whatever happens, any mode",
        *("flaky", _falsely, "at most", 0.05),
    ),
    (
        "coverage of the intervals shown at the end of experiments",
        *("cover", lambda whole: whole.covered / whole.shown, "at least", 0.95),
    ),
    (
        "wrong certifications of a stochastic run, baseline ≤ 0.05",
        *("pivot", _rate("false_blame"), "at most", 0.01),
    ),
    ("one cause, two echoes, baseline ≤ 0.1: top-1", "one cause", _rate("top"), "at least", 0.95),
    ("one cause, two echoes, baseline ≤ 0.1: recall", "one cause", _rate("recall"), "at least", 0.93),
    *(
        (
            f"{members} steps that flip only together, baseline {noise}: named exactly",
            *(f"joint {members} {noise}", _rate("exact_sets"), "at least", limit),
        )
        for members, noise, limit in ((2, 0.0, 0.98), (2, 0.1, 0.90), (3, 0.0, 0.90), (4, 0.0, 0.90))
    ),
    ("stochastic pivot, baseline ≤ 0.05: top-1", "pivot", _rate("top"), "at least", 0.85),
    ("curves of a real model with one main drop: certified", "real curve", _rate("recall"), "at least", 0.93),
    ("the same, V = .27 .17 .20 0 0: certified", "first curve", _rate("recall"), "at least", 0.95),
    ("the same, forks, median", "first curve", _median, "at most", 125.0),
    (
        "flat curves of V: experiments that certify an innocent",
        "flat",
        _rate("false_blame"),
        "at most",
        0.015,
    ),
    (
        "false repairs where no candidate is one, upper 95 % bound",
        *("no repair", _falsely, "at most", 0.05),
    ),
    ("three candidates, some of which repair: one confirmed", "repair", _rate("recall"), "at least", 0.9),
    (
        "false blame where no part of requests makes a difference, upper 95 % bound",
        *("no part", _falsely, "at most", 0.05),
    ),
    ("a part that carries success, or costs it: certified", "a part", _rate("recall"), "at least", 0.9),
    ("experiments forecast at 60 to 80 %: end with a verdict", "forecast", _rate("ended"), "at least", 0.6),
    ("the same, not more often than was told", "forecast", _rate("ended"), "at most", 0.8),
    (
        "the same on curves of a real model: end with a verdict",
        *("real forecast", _rate("ended"), "at least", 0.6),
    ),
    ("the same, not more often than was told", "real forecast", _rate("ended"), "at most", 0.8),
    ("deterministic agent: all causes certified", "deterministic", _rate("recall"), "at least", 1.0),
    (
        "forks where nothing is a cause, n ≥ 20, baseline ≤ 0.1, mean",
        *("null forks", lambda whole: sum(whole.forks) / whole.runs, "at most", 50.0),
    ),
)


def run_suites(
    quick: bool = True, *, real_forks: bool = True, on_progress: OnProgress | None = None
) -> Report:
    """Run every suite and return what was measured; the same on every machine but for the times it took.

    Without `real_forks` only what is simulated, and gates of that alone. Raises AgentFailed if the
    experiments with real forks cannot be run here.
    """
    started = time.perf_counter()
    with RealForks(("flaky", "faults") if real_forks else (), quick=quick, on_progress=on_progress) as beside:
        rows, gates = _simulated(quick, on_progress)
        real = beside.rows()
    if real_forks:
        # Alone, as nothing else should take its time.
        with RealForks(("wall",), quick=quick, on_progress=on_progress) as alone:
            real += alone.rows()
        rows += real
        gates += real_gates(real)
    return Report(
        quick=quick,
        seed=SEED,
        seconds=time.perf_counter() - started,
        rows=tuple(rows),
        gates=tuple(gates),
    )


def _simulated(quick: bool, on_progress: OnProgress | None) -> tuple[list[Row], list[Gate]]:
    """Return the rows and gates of the suites that need no agent."""
    rows: list[Row] = []
    tagged: dict[str, list[Tally]] = {}
    for number, cell in enumerate(every := (*cells(), *repair_cells(), *parts_cells(), *forecast_cells())):
        if on_progress is not None:
            on_progress("simulated cells", number, len(every))
        counts = cell.run(_RUNS[quick])
        rows.append(Row(suite=cell.suite, cell=cell.name, runs=counts.runs, metrics=counts.metrics()))
        for tag in cell.tags:
            tagged.setdefault(tag, []).append(counts)
    gates: list[Gate] = []
    for name, tag, value, sense, limit in _PROMISES:
        whole = pooled(tagged[tag])
        runs = whole.shown if tag == "cover" else whole.runs
        gates.append(Gate(name=name, value=value(whole), sense=sense, limit=limit, runs=runs))
    return rows, gates
