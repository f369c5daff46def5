"""An intervention kind, as a class: its flags, its label, and how it is bound to a step of a tape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import TAILS, Intervention, Kind, Tail
from tracefork_otel.play.onward import Scope

from ...flag import Flag
from ...spelling import no_step, short

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.tape.tape import Tape

Given: TypeAlias = Mapping[str, Sequence[str]]
"""The values of each flag by its name: none where it was not given, one (of no meaning) for a switch."""


ONCE = Flag(
    "once",
    "--set, --system, --model, --tool-result hold at the step alone.",
    alone="--once says how far --set, --system, --model and --tool-result hold; what else is changed is "
    "changed once anyhow",
)


def scoped(given: Given) -> Scope | None:
    """Return the scope that the flags ask for, None where they ask for none."""
    return "once" if given[ONCE.name] else None


@dataclass(frozen=True, slots=True)
class Edit(ABC):
    """What to change at a step, whichever run that will be: one edit binds to any number of runs."""

    kind: ClassVar[Kind]
    flags: ClassVar[tuple[Flag, ...]]
    edited: ClassVar[bool] = True
    """Whether the step gets what somebody wrote, and not what a tape or a model says by itself."""
    answers: ClassVar[bool] = True
    """Whether it gives the step's response itself, so that at the last step it decides what is graded."""

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return one edit a variant that the values of its flags ask for: one for each of the first flag."""
        return [cls.parsed(value, given) for value in given[cls.flags[0].name]]

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit that this value of the first flag asks for, or that the switch is."""
        return cls()

    @abstractmethod
    def change(self, tape: Tape, step: int) -> Intervention:
        """Return what it is at the step, which is whole; UsageError for all that would fail later."""

    @property
    def label(self) -> str:
        """What tables and spans call it: `text`, `request model=…`, `fault 529`."""
        return self.kind

    @property
    def variant(self) -> str:
        """The label with what is set, by which variants are told apart."""
        return self.label

    def bind(self, tape: Tape, step: int, *, tail: Tail = "live") -> Intervention:
        """Return the intervention that this edit is at a step of the tape.

        Raises UsageError, naming the step, for everything that would make the fork fail later.
        """
        if tail not in TAILS:
            raise UsageError(f"{tail!r} is no tail: use one of {', '.join(TAILS)}")
        if isinstance(step, bool) or not 0 <= step < tape.steps:
            raise UsageError(no_step(tape.run_id, step, tape.steps))
        damage = tape.exchanges[step].damage
        if damage is not None:
            raise UsageError(f"step {step} is damaged ({damage}): choose another run")
        try:
            bound = self.change(tape, step)
        except UsageError as error:
            raise UsageError(f"step {step}: {error}") from None
        return replace(bound, tail=tail, parent_run_id=tape.run_id)

    def at_one_step(self) -> Edit:
        """Return the edit as an experiment on steps tries it: what it changes is one step's alone.

        Raises UsageError where it cannot be held to that.
        """
        return self

    def at(self, step: int, **members: Any) -> Intervention:
        """Return an intervention of this kind and label."""
        return Intervention(kind=self.kind, step=step, label=self.label, **members)


def checked(edit: object) -> Edit:
    """Return the edit; UsageError for anything else, such as the text that an answer is to have."""
    if isinstance(edit, Edit):
        return edit
    raise UsageError(
        f"{short(repr(edit))} is no edit: give one, such as text('…'), request(model='…') or fault(529)"
    )


def together(first: Intervention, also: Sequence[Intervention]) -> Intervention:
    """Return the first change with further ones, of calls that its tail makes at their steps."""
    if not also:
        return first
    label = " + ".join([first.label, *(f"{one.label}@{one.step}" for one in also)])
    return replace(first, also=tuple(also), label=label)


def ending(exchange: Exchange) -> str:
    """Return how an exchange that is not whole ended, in words."""
    if exchange.response is None:
        return f"no response was recorded ({exchange.outcome})"
    return f"the recorded response is not whole ({exchange.outcome})"
