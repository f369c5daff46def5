"""Blame's statistics at every look, its estimate against what then happens, and simpler rules on the same worlds."""

from __future__ import annotations

from law import CELLS, anytime_coverage, estimate_error, false_alarm
from report import Figure, report
from simpler_rules import RULES, Baseline, baseline, fixed_forks_for
from tracefork_backend.validate.suites import cells
from tracefork_backend.validate.tally import pooled
from tracefork_backend.validate.worlds import planted

RUNS, LOOKS = 2000, 100
# Steps, budget in calls to the model, and baseline at which the estimate is held to what then happens.
ESTIMATES = ((10, 600.0, 0.05), (10, 800.0, 0.2), (20, 1600.0, 0.1))
# How many fewer forks than fixed-k with controls, by the number of steps.
SAVINGS = {10: 2.5, 20: 4.0, 50: 7.0}


def statistics(runs: int = RUNS, looks: int = LOOKS) -> list[Figure]:
    held = min(anytime_coverage(treated, control, runs=runs, looks=looks) for treated, control in CELLS)
    alarms = max(false_alarm(rate, runs=runs, looks=looks) for rate in (0.05, 0.2, 0.5, 0.8))
    return [
        Figure(f"coverage of the interval at all of {looks} looks, the worst of {len(CELLS)} cells", held, "", 0.95, at_least=True),
        Figure(f"two equal arms: e-value ever ≥ 20 in {looks} looks, the worst of four rates", alarms, "", 0.05),
    ]  # fmt: skip


def estimates(runs: int = 400) -> Figure:
    pairs = [estimate_error(*case, runs=runs) for case in ESTIMATES]
    worst = max(abs(told - reached) for told, reached in pairs)
    return Figure(
        "estimated chance of a verdict against what then happened, largest difference", worst, "", 0.1
    )


def savings(runs: int = 600) -> list[Figure]:
    figures: list[Figure] = []
    for steps, least in SAVINGS.items():
        ours = pooled([cell.run(200) for cell in cells() if f"one cause {steps}" in cell.tags])
        fixed = fixed_forks_for(ours.recall / ours.runs, steps, 0.1, runs=runs)
        figures.append(
            Figure(f"forks of fixed-k with controls at the same recall, n = {steps}", fixed / (sum(ours.forks) / ours.runs), "x", least, at_least=True)
        )  # fmt: skip
    return figures


def rules(runs: int = 300) -> list[Baseline]:
    return [
        baseline(rule, f"n={n} b={b} {'one cause' if c else 'no cause'}", runs, lambda rng, n=n, c=c, b=b: planted(rng, n, causes=c, noise=b))
        for n in (10, 20)
        for c, b in ((0, 0.1), (0, 0.2), (1, 0.1))
        for rule in RULES
    ]  # fmt: skip


def main() -> None:
    for row in rules():
        top = "" if row.top is None else f", names the cause in {row.top:.2f}"
        print(
            f"      {row.rule}, {row.cell}: blames an innocent in {row.false_blame:.2f}{top}, {row.forks:.0f} forks"
        )
    report("statistics", [*statistics(), estimates(), *savings()])


if __name__ == "__main__":
    main()
