"""The suites that hold blame to planted truth."""

from __future__ import annotations

import json
import random
from pathlib import Path

import bench_statistics
import pytest
from e2e.command import tracefork
from simpler_rules import baseline, bh_constant_null
from tracefork_backend.validate import Gate, Report, Row, parts, run_suites
from tracefork_backend.validate.forecasts import forecast_cells
from tracefork_backend.validate.parts import RealForks, gates
from tracefork_backend.validate.removing import parts_cells
from tracefork_backend.validate.repairs import repair_cells
from tracefork_backend.validate.suites import cells
from tracefork_backend.validate.tally import pooled, upper_bound
from tracefork_backend.validate.worlds import Prompt, conjunction, pivot, planted

from tracefork_otel import AgentFailed


def failing(report: Report) -> list[Gate]:
    """Return the gates that did not pass."""
    return [gate for gate in report.gates if not gate.passed]


@pytest.mark.slow
def test_no_false_repair_in_four_hundred_worlds() -> None:
    """Suite O by itself, as its quick run has it: what repairs nothing is not confirmed."""
    cells = [cell for cell in repair_cells() if "no repair" in cell.tags]
    found = pooled([cell.run(16) for cell in cells])
    assert found.runs >= 400
    assert upper_bound(found.false_blame, found.runs) <= 0.05


@pytest.mark.slow
def test_no_part_is_blamed_where_none_matters_and_one_that_does_is_found() -> None:
    """Suite P by itself, as its quick run has it, in either direction and over several runs."""
    found = {
        tag: pooled([cell.run(16) for cell in parts_cells() if tag in cell.tags])
        for tag in ("no part", "a part")
    }
    assert upper_bound(found["no part"].false_blame, found["no part"].runs) <= 0.05
    assert found["a part"].recall / found["a part"].runs >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("tag", "kinds"), [("forecast", 3), ("real forecast", 6)])
def test_what_a_forecast_says_comes_true(tag: str, kinds: int) -> None:
    """Suite Q by itself: of experiments forecast at 60 to 80 %, 60 to 80 % end with a verdict."""
    held = [cell for cell in forecast_cells() if tag in cell.tags]
    assert len(held) == kinds
    assert all(0.6 <= cell.chance <= 0.8 for cell in held)
    found = pooled([cell.run(16) for cell in held])
    assert 0.6 <= found.ended / found.runs <= 0.8


@pytest.mark.parametrize("effect", [0.9, -0.8])
def test_a_part_has_the_effect_that_its_world_says(effect: float) -> None:
    """Over runs that fail at different rates, in either direction."""
    from tracefork_backend.blaming.trials import Ledger

    rng, ledger = random.Random(3), Ledger()
    world = Prompt(parts=3, rates=(0.1, 0.8), effects={1: effect})
    for part in range(3):
        arms = [ledger.removing(parts, use=f"{part}") for parts in ((part,), ())]
        failed = [sum(world.flips(arm.request("parts"), rng) for _ in range(4000)) / 4000 for arm in arms]
        assert failed[0] - failed[1] == pytest.approx(world.effect(part), abs=0.04)
    assert (world.causes, world.innocent) == ((1,), {0, 2})


@pytest.mark.parametrize("rule", ["BH, constant null k=50", "raw flip rate k=10"])
def test_a_rule_without_control_blames_somebody_where_nothing_is_a_cause(rule: str) -> None:
    """That is what ours is for."""
    found = baseline(rule, "n=20 b=0.2 no cause", 60, lambda rng: planted(rng, 20, causes=0, noise=0.2))
    assert found.false_blame > 0.9


@pytest.mark.slow
def test_the_law_holds_at_every_look() -> None:
    """Intervals cover, equal arms raise no alarm, and the estimate comes true, in few runs."""
    figures = [*bench_statistics.statistics(150, 40), bench_statistics.estimates(200)]
    assert [figure.what for figure in figures if not figure.met] == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_full_suites_pass_their_gates() -> None:
    """The full run has the number of experiments that the gates ask for, and passes them.

    Real forks take six minutes of a processor for theirs: `validate` runs them, and a test their quick look.
    """
    report = run_suites(quick=False, real_forks=False)
    # How long something takes is no matter of a test that shares its machine with others.
    assert [gate.name for gate in failing(report) if not gate.name.startswith("seconds")] == []
    runs = {gate.name: gate.runs for gate in report.gates}
    assert min(count for name, count in runs.items() if name.startswith("false blame")) >= 1000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_quick_run_of_real_forks_is_shown_and_gates_the_exit_status(tmp_path: Path) -> None:
    """`validate --quick` measures every suite, holds the gates, and says that it was a look."""
    ran = tracefork("validate", "--quick", "--report", "report.json", cwd=tmp_path, timeout=280)
    shown = json.loads((tmp_path / "report.json").read_text())
    suites = {row["suite"] for row in shown["rows"]}
    assert suites == {*"ABCDEFGHIJKLMNOPQ", "real"}
    assert "real forks of a flaky agent" in ran.out
    assert "This was a look" in ran.out
    assert len(shown["gates"]) == 30
    failed = [gate for gate in shown["gates"] if not gate["passed"]]
    assert shown["passed"] is (not failed)
    assert ran.status == (1 if failed else 0)
    assert [gate["name"] for gate in failed if not gate["name"].startswith("seconds")] == []


@pytest.mark.slow
def test_real_forks_that_cannot_run_are_said_and_leave_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last words of a part that failed are the error, not a gate that passed."""
    monkeypatch.setattr(parts, "_PROGRAM", "tracefork_backend.validate.none")
    why = r"fault classes ended with status 1: .*No module named tracefork_backend.validate.none"
    with RealForks(("faults",), quick=True) as beside, pytest.raises(AgentFailed, match=why):
        beside.rows()


def test_a_gate_of_real_forks_fails_with_what_was_measured() -> None:
    """Shares are taken over all experiments of a kind, and one certified noop is one too many."""
    rows = [
        Row(suite="real", cell="flaky 0.4, n=4", runs=10, metrics={"false_blame": 0.1}),
        Row(suite="real", cell="flaky 0.8, n=4", runs=10, metrics={"false_blame": 0.0}),
        Row(suite="real", cell="fault a", runs=3, metrics={"top": 1.0}),
        Row(suite="real", cell="fault b", runs=1, metrics={"top": 0.0}),
        Row(suite="real", cell="noop", runs=4, metrics={"certified": 0.25}),
        Row(suite="real", cell="n=10, all", runs=36, metrics={"seconds": 0.5}),
    ]
    assert [(gate.value, gate.passed) for gate in gates(rows)] == [
        (0.05, True),
        (0.75, False),
        (0.25, False),
        (0.5, True),
    ]


def test_a_cell_is_the_same_whenever_it_is_run() -> None:
    """Seeds belong to cells, so a cell alone gives what it gives among the others."""
    cell = next(cell for cell in cells() if cell.suite == "B")
    assert cell.run(10).metrics() == cell.run(10).metrics()


def test_a_gate_fails_on_the_wrong_side() -> None:
    """A value past its limit fails the gate and the report with it."""
    bad = Gate(name="x", value=0.06, sense="at most", limit=0.05, runs=1)
    good = Gate(name="y", value=0.96, sense="at least", limit=0.95, runs=1)
    assert (bad.passed, good.passed) == (False, True)
    report = Report(quick=True, seed="", seconds=0.0, rows=(), gates=(good, bad))
    assert not report.passed


@pytest.mark.parametrize("seed", range(5))
def test_planted_truth_is_what_the_forks_do(seed: int) -> None:
    """The effects that worlds claim are the difference of rates that their forks show."""
    from tracefork_backend.blaming.trials import Ledger

    rng = random.Random(seed)
    world = planted(rng, 8, causes=2, noise=0.15)
    ledger = Ledger()
    for step in (*world.causes, *sorted(world.innocent)[:2]):
        if step == world.steps - 1:
            continue
        treated = ledger.alter((step,)).request("screen")
        control = ledger.keep(step).request("confirm")
        runs = 3000
        difference = sum(world.flips(treated, rng) - world.flips(control, rng) for _ in range(runs)) / runs
        assert difference == pytest.approx(world.effect(step), abs=0.06)
    joint = conjunction(rng, 8, members=3, noise=0.0)
    assert not joint.innocent & set(joint.causes)
    curve = pivot(rng, 12, noise=0.05)
    assert max(range(12), key=curve.effect) == curve.causes[0]


def test_the_rival_rule_is_benjamini_and_hochberg() -> None:
    """The constant-null rule flags a step that always flips and none where nothing does."""
    assert bh_constant_null([10, 0, 0, 0], 10) == {0}
    assert bh_constant_null([0, 0, 0, 0], 10) == set()
    # Two flips in ten have p = 0.086 under 0.05: enough at q = 0.10 if all steps show them, not for one of
    # four.
    assert bh_constant_null([2, 2, 2, 2], 10) == {0, 1, 2, 3}
    assert bh_constant_null([2, 0, 0, 0], 10) == set()
