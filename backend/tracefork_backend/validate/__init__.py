"""Hold blame to planted truth: simulated worlds and real forks, simpler rules beside them, and gates."""

from __future__ import annotations

import time

from .baselines import RULES, baseline, fixed_forks_for
from .law import CELLS, anytime_coverage, estimate_error, false_alarm
from .parts import OnProgress, RealForks
from .parts import gates as real_gates
from .report import Baseline, Gate, Report, Row
from .suites import cells
from .tally import SEED, Tally, pooled, upper_bound
from .worlds import planted

__all__ = ["Baseline", "Gate", "Report", "Row", "run_suites"]

# Runs of a cell of weight 1. Quick is for a look and for CI's fast part; full has the runs that the gates
# ask for.
_RUNS = {True: 16, False: 200}
_COMPARE_RUNS = {True: 150, False: 600}
_LAW_RUNS = {True: 150, False: 2000}
_LAW_LOOKS = {True: 40, False: 100}
_BASELINE_RUNS = {True: 60, False: 300}
_ESTIMATE_RUNS = {True: 200, False: 400}

# Steps, budget in calls to the model, and baseline at which the estimate is held to what then happens.
_ESTIMATE_CASES = ((10, 600.0, 0.05), (10, 800.0, 0.2), (20, 1600.0, 0.1))

# How many fewer forks than fixed-k with controls, by the number of steps.
_SAVINGS = {10: 2.5, 20: 4.0, 50: 7.0}


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
        baselines=tuple(_baselines(quick)),
        gates=tuple(gates),
    )


def _simulated(quick: bool, on_progress: OnProgress | None) -> tuple[list[Row], list[Gate]]:
    """The rows and gates of the suites that need no agent."""
    rows: list[Row] = []
    tagged: dict[str, list[Tally]] = {}
    for number, cell in enumerate(every := tuple(cells())):
        if on_progress is not None:
            on_progress("simulated cells", number, len(every))
        counts = cell.run(_RUNS[quick])
        rows.append(Row(suite=cell.suite, cell=cell.name, runs=counts.runs, metrics=counts.metrics()))
        for tag in cell.tags:
            tagged.setdefault(tag, []).append(counts)
    whole = {tag: pooled(tallies) for tag, tallies in tagged.items()}
    gates = [*_blame_gates(whole), *_find_gates(whole)]
    gates += _saving_gates(whole, quick)
    law, law_gates = _law(quick)
    rows += law
    gates += law_gates
    return rows, gates


def _blame_gates(whole: dict[str, Tally]) -> list[Gate]:
    null, wrong, cover, pivots = (whole[tag] for tag in ("null", "wrong oracle", "cover", "pivot"))
    flaky = whole["flaky"]
    return [
        Gate(
            name="false blame where nothing is a cause, upper 95 % bound",
            value=upper_bound(null.false_blame, null.runs),
            sense="at most",
            limit=0.05,
            runs=null.runs,
        ),
        Gate(
            name="the same with an oracle that is wrong in 15 %, upper 95 % bound",
            value=upper_bound(wrong.false_blame, wrong.runs),
            sense="at most",
            limit=0.05,
            runs=wrong.runs,
        ),
        Gate(
            name="the same where 0.4 or 0.8 of all re-runs flip whatever happens, any mode",
            value=upper_bound(flaky.false_blame, flaky.runs),
            sense="at most",
            limit=0.05,
            runs=flaky.runs,
        ),
        Gate(
            name="coverage of the intervals shown at the end of experiments",
            value=cover.covered / cover.shown,
            sense="at least",
            limit=0.95,
            runs=cover.shown,
        ),
        Gate(
            name="wrong certifications of a stochastic run, baseline ≤ 0.05",
            value=pivots.false_blame / pivots.runs,
            sense="at most",
            limit=0.01,
            runs=pivots.runs,
        ),
    ]


def _find_gates(whole: dict[str, Tally]) -> list[Gate]:
    gates: list[Gate] = []

    def at_least(name: str, value: float, limit: float, runs: int) -> None:
        gates.append(Gate(name=name, value=value, sense="at least", limit=limit, runs=runs))

    one = whole["one cause"]
    at_least("one cause, two echoes, baseline ≤ 0.1: top-1", one.top / one.runs, 0.95, one.runs)
    at_least("one cause, two echoes, baseline ≤ 0.1: recall", one.recall / one.runs, 0.93, one.runs)
    for members, noise, limit in ((2, 0.0, 0.98), (2, 0.1, 0.90), (3, 0.0, 0.90), (4, 0.0, 0.90)):
        joint = whole[f"joint {members} {noise}"]
        name = f"{members} steps that flip only together, baseline {noise}: named exactly"
        at_least(name, joint.exact_sets / joint.runs, limit, joint.runs)
    pivots = whole["pivot"]
    at_least("stochastic pivot, baseline ≤ 0.05: top-1", pivots.top / pivots.runs, 0.85, pivots.runs)
    exact = whole["deterministic"]
    at_least("deterministic agent: all causes certified", exact.recall / exact.runs, 1.0, exact.runs)
    return gates


def _saving_gates(whole: dict[str, Tally], quick: bool) -> list[Gate]:
    gates: list[Gate] = []
    for steps, limit in _SAVINGS.items():
        ours = whole[f"one cause {steps}"]
        fixed = fixed_forks_for(ours.recall / ours.runs, steps, 0.1, runs=_COMPARE_RUNS[quick])
        gates.append(
            Gate(
                name=f"forks of fixed-k with controls at the same recall, n = {steps}, as a multiple of ours",
                value=fixed / (sum(ours.forks) / ours.runs),
                sense="at least",
                limit=limit,
                runs=ours.runs,
            )
        )
    null = whole["null forks"]
    gates.append(
        Gate(
            name="forks where nothing is a cause, n ≥ 20, baseline ≤ 0.1, mean",
            value=sum(null.forks) / null.runs,
            sense="at most",
            limit=50.0,
            runs=null.runs,
        )
    )
    return gates


def _law(quick: bool) -> tuple[list[Row], list[Gate]]:
    runs, looks = _LAW_RUNS[quick], _LAW_LOOKS[quick]
    rows: list[Row] = []
    lowest, alarms, worst = 1.0, 0.0, 0.0
    for treated, control in CELLS:
        held = anytime_coverage(treated, control, runs=runs, looks=looks)
        lowest = min(lowest, held)
        rows.append(
            Row(
                suite="law",
                cell=f"interval, rates {treated} and {control}",
                runs=runs,
                metrics={"coverage": held},
            )
        )
    for rate in (0.05, 0.2, 0.5, 0.8):
        alarm = false_alarm(rate, runs=runs, looks=looks)
        alarms = max(alarms, alarm)
        rows.append(
            Row(suite="law", cell=f"e-value, both rates {rate}", runs=runs, metrics={"alarms": alarm})
        )
    count = _ESTIMATE_RUNS[quick]
    for steps, budget, noise in _ESTIMATE_CASES:
        told, reached = estimate_error(steps, budget, noise, runs=count)
        worst = max(worst, abs(told - reached))
        metrics = {"estimated": told, "reached": reached}
        rows.append(
            Row(
                suite="law",
                cell=f"estimate, n={steps} b={noise}, budget {budget}",
                runs=count,
                metrics=metrics,
            )
        )
    gates = [
        Gate(
            name=f"coverage of the interval at all of {looks} looks, the worst of {len(CELLS)} cells",
            value=lowest,
            sense="at least",
            limit=0.95,
            runs=runs,
        ),
        Gate(
            name=f"two equal arms: e-value ever ≥ 20 in {looks} looks, the worst of four rates",
            value=alarms,
            sense="at most",
            limit=0.05,
            runs=runs,
        ),
        Gate(
            name="estimated chance of a verdict against what then happened, largest difference",
            value=worst,
            sense="at most",
            limit=0.10,
            runs=count,
        ),
    ]
    return rows, gates


def _baselines(quick: bool) -> list[Baseline]:
    found: list[Baseline] = []
    for steps in (10, 20):
        for causes, noise in ((0, 0.1), (0, 0.2), (1, 0.1)):
            cell = f"n={steps} b={noise} {'one cause' if causes else 'no cause'}"
            found += [
                baseline(
                    rule,
                    cell,
                    _BASELINE_RUNS[quick],
                    lambda rng, s=steps, c=causes, b=noise: planted(rng, s, causes=c, noise=b),
                )
                for rule in RULES
            ]
    return found
