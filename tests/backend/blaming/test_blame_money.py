"""What an experiment sets aside: each place by what is changed there, nothing where no price is known."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stored import Recorder, answered, asked, trace
from tracefork_backend.blaming import changes
from tracefork_backend.blaming.experiment import _Forks, prepare
from tracefork_backend.blaming.experiment import estimate as blamed
from tracefork_backend.blaming.journal import TrialRecord
from tracefork_backend.blaming.result import BlameResult, StepShown, tables_of
from tracefork_backend.blaming.running import Running
from tracefork_backend.blaming.search import Search
from tracefork_backend.blaming.trials import TrialRequest
from tracefork_backend.cli.blame_view import print_estimate, print_experiment
from tracefork_backend.grading.judge import Judge
from tracefork_backend.rerun import edits
from tracefork_backend.rerun.budget import Budget, Grading
from tracefork_backend.rerun.estimate import check_priced, estimate
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import NONE_GIVEN, rates_given

from tracefork_otel import Tape, UsageError

TOKENS = 100_000
PRICE, DEAR = 0.3, 1.5
"""What a call of the tape costs, and the same of a dearer model."""


def made(path: Path, **told: Any) -> Tape:
    """Return three model calls of so many tokens in and none out."""
    run_id = trace()
    recorder = Recorder(path)
    recorder.root(run_id)
    for n in range(3):
        reply = answered("ok", input_tokens=TOKENS, output_tokens=0)
        recorder.exchange(run_id, asked(f"turn {n}"), reply, **told)
    recorder.close()
    store = open_store(path)
    return reconstruct(store, store.run(run_id))


def test_each_place_is_priced_with_its_change(tmp_path: Path) -> None:
    """A dearer model costs more at each step, and one without a price is asked for, wherever it stands."""
    tape = made(tmp_path)
    plain = prepare(tape, changes.resample()).plan.costs
    assert plain == pytest.approx((3 * PRICE, 2 * PRICE, PRICE, 0.0))
    dear = prepare(tape, changes.of_edit(edits.request(model="claude-opus-4-1"))).plan.costs
    assert dear == pytest.approx((2 * PRICE + DEAR, PRICE + DEAR, DEAR, 0.0))

    def late(tape: Tape, step: int) -> edits.Edit | None:
        return edits.request(model="no-such-model") if step == 1 else None

    prepared = prepare(tape, changes.Change(name="late", make=late))
    with pytest.raises(UsageError, match="no-such-model is not known, so --budget cannot be held"):
        check_priced(prepared.estimates, 1.0)
    check_priced(prepared.estimates, None)


def test_a_step_beside_the_one_before_it_is_paid_for(tmp_path: Path) -> None:
    """Of calls at once each is made again where it is drawn anew, though none waited for another."""
    tape = made(tmp_path)
    first, second, third = tape.exchanges
    beside = replace(second, started_ns=first.started_ns + 1)
    fan = replace(tape, exchanges=(first, beside, third))
    assert prepare(fan, changes.resample()).plan.costs == pytest.approx((2 * PRICE, 2 * PRICE, PRICE, 0.0))


def test_changes_of_the_tail_are_priced_too(tmp_path: Path) -> None:
    """A fork that changes several steps takes what each of them takes."""
    tape = made(tmp_path)
    first, last = (edits.request(model="claude-opus-4-1").at_one_step().bind(tape, at) for at in (0, 2))
    assert estimate(tape, edits.together(first, [last])).cost_usd == pytest.approx(PRICE + 2 * DEAR)
    kept = edits.noop().bind(tape, 1, tail="recorded")
    assert estimate(tape, edits.together(kept, [last])).cost_usd == pytest.approx(DEAR)


def test_a_trial_that_is_dearer_than_thought_raises_what_is_set_aside(tmp_path: Path) -> None:
    """Also where nothing was thought to be paid at all: an agent may go on for longer than it did."""
    tape = made(tmp_path)
    prepared, budget = prepare(tape, changes.ablate()), Budget(1.0)
    request = TrialRequest(
        trial_id="keep:2#0",
        arm_id="keep:2",
        role="control",
        steps=(2,),
        altered=(),
        kept=3,
        replicate=0,
        phase="control",
    )
    how: dict[str, Any] = {"forker": SimpleNamespace(tape=tape), "journal": SimpleNamespace(header={})}
    how |= {"search": None, "oracle": None, "parent": True, "prices": NONE_GIVEN, "call_usd": 0.0}
    forks = _Forks(tape=tape, plan=prepared.plan, fits=prepared.fits, tail="live")
    running = Running(planned=forks.planned, budget=budget, grading=Grading(budget, None), **how)
    running._batch = [request, request]
    assert running.admit(0)
    assert budget.reserved_usd == 0.0
    ended: Any = SimpleNamespace(run_id="ab" * 16, cost_usd=0.6, unpriced=0)
    running.ended(0, ended)
    assert not running.admit(1)


def trial(seq: int, **told: Any) -> TrialRecord:
    """Return a trial whose calls went live."""
    return TrialRecord(
        trial_id=f"keep:1#{seq}",
        arm_id="keep:1",
        role="value",
        steps=(1,),
        altered=(),
        kept=1,
        replicate=seq,
        phase="value",
        seq=seq,
        run_id=f"{seq:032x}",
        status="undefined",
        undefined_reason="budget",
        outcome=None,
        tail_sha256="",
        calls_live=2,
        started_ns=0,
        ended_ns=1,
        **told,
    )


def test_sums_of_an_experiment_say_what_they_leave_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call of its forks that has no price is counted: in its rows, of each step, and in the terminal."""
    plan = prepare(made(tmp_path), changes.resample()).plan
    told = [trial(0, cost_usd=0.25, unpriced=1), trial(1, cost_usd=0.5, unpriced=0), trial(2, cost_usd=None)]
    result = BlameResult(
        experiment_id="ab" * 8,
        run_id="cd" * 16,
        findings=Search(plan).verdict(),
        trials=tuple(told),
        plan=plan,
        header={
            **dict.fromkeys(("tape_sha256", "parent_outcome", "change", "oracle", "budget_usd")),
            "created_ns": 0,
        },
        steps=[StepShown()] * plan.steps,
    )
    tables = tables_of(result)
    assert (tables.experiment["unpriced"], tables.experiment["unpriced_forks"]) == (2, 2)
    print_experiment(tables, every=False)
    assert " · 3 forks · ≥ $0.7500, 2 calls without a price · " in capsys.readouterr().out


@pytest.mark.slow
def test_an_estimate_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What experiments cost where the price of a model is not known is no less than that."""
    tape = made(tmp_path)
    change = changes.of_edit(edits.request(model="no-such-model"))
    print_estimate(blamed(tape, change=change, mode="intervene"), None)
    said = capsys.readouterr().out
    assert re.search(r"cost   ≥ \$\S+ typically, ≥ \$\S+ in 19 of 20\n", said)
    assert "left out: the price of no-such-model is not known; say it with --price MODEL=IN/OUT" in said


@pytest.mark.slow
def test_an_estimate_of_forks_that_cost_nothing_is_in_dollars(tmp_path: Path) -> None:
    """Where models run here no budget stands in the way, and what is paid is the judge alone."""
    tape = made(tmp_path)
    free = rates_given(["claude-sonnet-4-5=0"])
    told = blamed(tape, change=changes.ablate(), prices=free, budget_usd=0.0, mode="intervene")
    assert (told.cost_p95, told.null_cost_mean) == (0.0, 0.0)
    assert told.chance > 0.5
    judge = Judge("It went well", client=object(), model="judging")  # type: ignore[arg-type]
    prices = {**free, **rates_given(["judging=1/5"])}
    judged = blamed(tape, change=changes.ablate(), prices=prices, oracle=judge, mode="intervene")
    assert 0 < judged.judge_usd < judged.judge_worst_usd
    assert judged.cost_mean == pytest.approx(judged.judge_usd * (judged.forks_mean + 1))
    assert judged.unknown == ()
    unpriced = blamed(tape, change=changes.ablate(), oracle=Judge("It went well", model="no-such-judge"))
    assert unpriced.unknown == ("the price of no-such-judge is not known",)
