"""Two runs compared step by step: what is the same, what changed, and what that followed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.tape.tape import Tape

from ..store import Run, Store
from .align import align
from .compare import Change, Kind, StepDiff, compare
from .reading import Step, read
from .text import lines

__all__ = ["Change", "Diff", "Kind", "Side", "StepDiff", "diff"]


class Kept(Protocol):
    """What stands for a run of a store, such as a Fork."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...


if TYPE_CHECKING:
    Comparable: TypeAlias = Run | Tape | Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs, as a whole."""

    run_id: str
    name: str
    steps: int
    status: str | None
    """`ok`, `error`, `killed` or `running`; None for a tape."""
    outcome: bool | None
    """What an oracle said."""
    exit_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    last_text: str
    """What the run's last model call answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """How two runs compare."""

    a: Side
    b: Side
    steps: tuple[StepDiff, ...]
    """In the order of `b`, what only `a` has standing where it was."""

    @property
    def differs(self) -> bool:
        """Whether any step does."""
        return self.first is not None

    @property
    def first(self) -> int | None:
        """The index of the first difference, None if there is none."""
        return next((index for index, step in enumerate(self.steps) if step.differs), None)

    @property
    def chain(self) -> tuple[int, ...]:
        """The indexes of the steps that follow from the first: they carry it, or what it led to."""
        first = self.first
        if first is None:
            return ()
        reached = {first}
        for index, step in enumerate(self.steps):
            if reached & set(step.follows):
                reached.add(index)
        return tuple(sorted(reached - {first}))

    def count(self, kind: Kind) -> int:
        """How many steps compare so."""
        return sum(1 for step in self.steps if step.kind == kind)

    def lines(self) -> tuple[str, ...]:
        """The comparison for a person, line by line."""
        return lines(self)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def diff(a: Comparable, b: Comparable, *, store: Store | None = None) -> Diff:
    """How two runs compare; each is a run, a tape, or a fork, whose store is the other one's or `store`."""
    stores = [store, *(side.store for side in (a, b) if isinstance(side, Run))]
    where = next((found for found in stores if found is not None), None)
    left, right = _whole(a, where), _whole(b, where)
    ours, theirs = read(_exchanges(left)), read(_exchanges(right))
    return Diff(a=_side(left, ours), b=_side(right, theirs), steps=compare(align(ours, theirs), ours, theirs))


def _whole(side: Comparable, store: Store | None) -> Run | Tape:
    if isinstance(side, Run | Tape):
        return side
    found = store or getattr(side, "store", None)
    if not isinstance(found, Store):
        raise UsageError(f"run {side.run_id[:8]} is in a store: say which, diff(a, b, store=…)")
    return found.run(side.run_id)


def _exchanges(side: Run | Tape) -> Sequence[Exchange]:
    return side.exchanges


def _side(side: Run | Tape, steps: Sequence[Step]) -> Side:
    last_text = next((step.text for step in reversed(steps) if step.place[0] == ""), "")
    if isinstance(side, Run):
        return Side(
            run_id=side.run_id,
            name=side.name,
            steps=len(steps),
            status=side.status,
            outcome=side.outcome,
            exit_status=side.start.exit_status,
            input_tokens=side.input_tokens,
            output_tokens=side.output_tokens,
            cost_usd=side.cost_usd,
            last_text=last_text,
        )
    from ..rerun.budget import cost_of

    costs = [cost for step in steps if (cost := cost_of(step.exchange)) is not None]
    return Side(
        run_id=side.run_id,
        name=side.name,
        steps=len(steps),
        status=None,
        outcome=None,
        exit_status=side.start.exit_status,
        input_tokens=_sum(step.input_tokens for step in steps),
        output_tokens=_sum(step.output_tokens for step in steps),
        cost_usd=sum(costs) if costs else None,
        last_text=last_text,
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
