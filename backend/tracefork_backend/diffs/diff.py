"""Two runs compared step by step: what is the same, what changed, and what that followed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from tracefork_otel.errors import UsageError
from tracefork_otel.tape.tape import Tape

from ..displayed import Displayed
from ..spelling import run_name
from ..store import Run, Store
from ..store.prices import bill
from .align import align
from .compare import Change, Comparison, Kind, Side, StepDiff, compare
from .reading import Step, read
from .text import lines

__all__ = ["Change", "Diff", "Kind", "Side", "StepDiff", "diff"]


class Kept(Protocol):
    """What stands for a run of a store, such as a Fork."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...


Comparable: TypeAlias = Run | Tape | Kept
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff(Displayed, Comparison):
    """How two runs compare, to be printed."""

    def lines(self) -> tuple[str, ...]:
        """Return the comparison for a person, line by line."""
        return lines(self)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def diff(a: Comparable, b: Comparable, *, store: Store | None = None, exact: bool = False) -> Diff:
    """Compare two runs, each a run, a tape, or a fork, whose store is the other one's or `store`.

    Ids that a provider makes are compared by their places; by their letters, as all of an answer is, where
    `exact`.
    """
    stores = [store, *(side.store for side in (a, b) if isinstance(side, Run))]
    where = next((found for found in stores if found is not None), None)
    left, right = _whole(a, where), _whole(b, where)
    ours, theirs = read(left.exchanges, exact=exact), read(right.exchanges, exact=exact)
    return Diff(a=_side(left, ours), b=_side(right, theirs), steps=compare(align(ours, theirs), ours, theirs))


def _whole(side: Comparable, store: Store | None) -> Run | Tape:
    if isinstance(side, Run | Tape):
        return side
    found = store or getattr(side, "store", None)
    if not isinstance(found, Store):
        raise UsageError(f"run {run_name(side.run_id)} is in a store: say which, diff(a, b, store=…)")
    return found.run(side.run_id)


def _side(side: Run | Tape, steps: Sequence[Step]) -> Side:
    kept = isinstance(side, Run)
    cost = bill(() if kept else (step.exchange for step in steps))
    return Side(
        run_id=side.run_id,
        name=side.name,
        steps=len(steps),
        status=side.status if kept else None,
        outcome=side.outcome if kept else None,
        exit_status=side.start.exit_status,
        input_tokens=side.input_tokens if kept else _sum(step.input_tokens for step in steps),
        output_tokens=side.output_tokens if kept else _sum(step.output_tokens for step in steps),
        cost_usd=side.cost_usd if kept else cost.usd,
        unpriced=side.unpriced if kept else cost.unpriced,
        last_text=next((step.text for step in reversed(steps) if step.place[0] == ""), ""),
    )


def _sum(counts: Iterable[_Number | None]) -> _Number | None:
    known = [count for count in counts if count is not None]
    return sum(known[1:], known[0]) if known else None
