"""A test on its tape up to its first other request, and with its model from there on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tracefork_otel.play.claims import DRIFTED
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.tape.tape import Tape

from ..rerun.budget import Budget, Purse
from ..rerun.records import phase_of, went_live
from ..rerun.stage import Stage
from ..rerun.starting import playable
from ..spelling import counted, money, total_money
from ..store.prices import Bill, bill
from ..writeback.spans import SpanRef

MEANT = "a connection that is meant: @pytest.mark.tracefork(allow_hosts=['HOST'])"
"""What is said of connections that go round the tape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """How a test went that was played its tape as far as that goes."""

    served: int
    """Exchanges of the tape."""
    asked: int
    """Requests that went live."""
    live_from: int | None
    """The step of the first request that the tape does not answer; None where there was none."""
    paid: Bill
    receipt: tuple[str, ...]
    wrong: str | None
    """Why the test has failed, whatever it says itself."""


def fork(tape: Tape, call: Callable[[], None], budget: Budget, **how: Any) -> Forked:
    """Make the call with its tape in place, held to the budget once it goes live."""
    change = Intervention(kind="agent", step=tape.steps, label="agent")
    with Stage(tape, playable("fork", timing="none", **how), agent=call, store=None) as stage:
        root = stage.spans.open_fork(
            change,
            name=tape.name,
            parent_run_id=tape.run_id,
            parent_root_span_id=None,
            forked=SpanRef(trace_id=tape.run_id, span_id=tape.exchanges[0].span_id),
        )
        space = stage.workspace.trial(change)
        spent_usd = budget.spent_usd
        budget.reserve(0.0)
        # Nobody was told that a call may go beyond it: each has to have room for the most that it can cost.
        purse = Purse(budget, 0.0, bill(tape.exchanges).dearest_usd, most_usd=0.0)
        held = None if budget.limit_usd is None else purse
        ended, records = stage.run(space, root, timeout=None, room=held)
        where = space.claims.said(DRIFTED)
        root.end()
    live = [one for one in records.exchanges if went_live(one)]
    paid = bill(live)
    purse.settle(paid.usd, paid.unpriced)
    # Of all that is asked before, the tape has answers, or gave a key that is asked for anew.
    first = next((at for at, one in enumerate(records.exchanges) if phase_of(one) != "prefix"), tape.steps)
    served = sum(one.replayed for one in records.exchanges)
    told = f"{counted(served, 'exchange')} answered from the tape"
    if where:
        site = next((f" ({one.site})" for one in records.exchanges[first:] if one.site), "")
        usd = total_money(paid.usd, paid.unpriced)
        receipt = (f"live from step {first}{site}", where, f"{told}, {len(live)} asked of models, {usd}")
    else:
        left = tape.steps - served
        receipt = (told + (f"; it has {left} more, which nobody asked for" if left > 0 else ""),)
    wrong = None
    if ended.no_room is not None:
        wrong = (
            f"the budget of {money(budget.limit_usd)} (--tracefork-budget) holds no further call: this test "
            f"spent {money(paid.usd)} of it in {counted(len(live), 'call')}, those before it "
            f"{money(spent_usd)}"
        )
    elif paid.unpriced and held is not None:
        wrong = (
            f"a call of this test has no price that is known ({'; '.join(paid.reasons)}), so that nothing "
            "holds it to the budget: leave --tracefork-budget out if that is meant"
        )
    elif leaks := records.leaks():
        wrong = "\n".join((*(f"{one.host}: by {one.caller}" for one in leaks), MEANT))
    return Forked(
        served=served,
        asked=len(live),
        live_from=first if where else None,
        paid=paid,
        receipt=receipt,
        wrong=wrong if wrong is None else "\n\n".join(("\n".join(receipt), wrong)),
    )
