"""What came of one fork."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tracefork_otel.errors import AgentFailed, Drift, StoreError, UsageError
from tracefork_otel.play.intervention import Kind, Tail
from tracefork_otel.play.onward import Scope

from ..displayed import Displayed
from ..grading.graded import Graded
from ..spelling import counted, run_name
from .records import DriftReport, Leak

if TYPE_CHECKING:
    from ..store import Run, Store

ProblemKind: TypeAlias = Literal[
    "not_started",  # the agent cannot be imported, or its command not be started
    "not_captured",  # it ran outside of the fork
    "drift",  # a request before the forked step is not on the tape
    "not_reached",  # it ended before the forked step
    "not_applied",  # the edit does not fit the request that the agent sent
    "leak",  # before the intervention it connected to somebody round the seam
    "live_call",  # a live call got no answer, or an error of the provider's
    "offline",  # the tail may not go live, and made a request that the parent had not made
    "timeout",  # it did not end in time
    "budget",  # it was ended before its next call, for which the budget had no room
    "stopped",  # it was ended from here before it was done
    "crash",  # it ended by an exception or a signal, as the parent did not
    "exit_status",  # it ended with another status than the parent
    "incomplete",  # what it did is not recorded whole
]
GRADED: frozenset[ProblemKind] = frozenset({"crash", "exit_status"})
"""Problems that are the agent's own answer to the intervention, so that an oracle can grade it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a fork is not what was asked for."""

    kind: ProblemKind
    text: str
    """For a person: what happened, where, and what to do."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork(Displayed):
    """One fork: a run of its own that replayed a prefix, was changed at a step, and went on."""

    run_id: str
    parent_run_id: str
    step: int
    """The step of the parent at which it was changed."""
    kind: Kind
    intervention: str
    """What was changed, as tables and spans show it: `text`, `request model=…`, `fault 529`."""
    tail: Tail
    scope: Scope | None = None
    """How far the change was to hold; None where there is no choice."""
    held_in: int = 0
    """The requests from the change on in which it holds whole."""
    held_of: int = 0
    """The requests from the change on that it could hold in."""
    held_partly: Mapping[str, int] = field(default_factory=dict[str, int])
    """What holds in how many others, where only a part of it has a place there."""
    trial: int = 0
    """Its number among the forks of one call."""
    outcome: bool | None = None
    """True for success, False for failure; None if nothing graded it, or it cannot be graded."""
    steps: int = 0
    """The exchanges of the fork's own run."""
    forked_at: int | None = None
    """The fork's own step that was changed; None if the agent never came to it."""
    reconverged_at: int | None = None
    """The fork's first own step after the change from which on all its requests are the parent's."""
    calls_replayed: int = 0
    """Calls answered from the tape before the change, or beside it."""
    calls_live: int = 0
    """Calls that went over the network."""
    calls_memo: int = 0
    """Calls after the change that the parent had made too, answered as then."""
    cost_usd: float | None = 0.0
    """The price of the live calls; None if no price of them is known."""
    unpriced: int = 0
    """Live model calls whose price is not known."""
    exit_status: int | None = None
    """128+n if signal n ended the agent; in place 1 if it raised, else 0."""
    result: object = None
    """What the agent function returned: the object itself in place, else its text; None for a command."""
    stdout: str = ""
    stderr: str = ""
    """The beginning and the end of both, if the agent had a process of its own; else of its error."""
    left_out: int = 0
    """How many bytes of the middle of `output` are not in it."""
    last_text: str | None = None
    """The text of the last model answer."""
    answers_sha256: str = ""
    """A digest of everything that was answered to it: alike for forks that went alike."""
    drift: DriftReport | None = None
    """How the agent left its tape before the step, if it did."""
    leaks: tuple[Leak, ...] = ()
    """Connections that went round the seam before the change."""
    problem: Problem | None = None
    """Why it is not what was asked for, or None."""
    tools: str | None = None
    """What became of the calls of `@tool` functions, and which ran for real; None where there were none."""
    notes: tuple[str, ...] = ()
    """What a reader should know; none of it is a problem."""
    seconds: float = 0.0
    """How long its agent ran."""
    store: Store | None = field(default=None, repr=False, compare=False)
    """Where it is kept; None if nowhere."""

    @property
    def held(self) -> str | None:
        """How far the change holds, in words; None where there is no choice."""
        return held([self])

    @property
    def output(self) -> object:
        """What is graded: the agent function's return value, else the command's standard output."""
        return self.stdout if self.result is None else self.result

    @property
    def gradable(self) -> bool:
        """Whether an oracle can say how it ended: the agent ran to its end, changed as asked."""
        return self.problem is None or self.problem.kind in GRADED

    def graded(self, said: Mapping[str, Any] | None = None) -> Graded:
        """Return what an oracle is shown; a fork that is not what was asked for has a problem instead.

        `said` is its output as whole as it is known while the fork is made; else it is what is kept here.
        """
        kept = {"output": self.output, "stdout": self.stdout, "left_out": self.left_out}
        shown: Mapping[str, Any] = kept if said is None else said
        return Graded(
            run_id=self.run_id,
            exit_status=self.exit_status,
            last_text=self.last_text or "",
            stderr=self.stderr,
            problem=None if self.gradable else str(self.problem),
            **shown,
        )

    @property
    def run(self) -> Run:
        """The fork as a run of its store; raises UsageError if it is not kept."""
        if self.store is None:
            raise UsageError(
                f"fork {run_name(self.run_id)} is not kept in a store: name one, store=open_store(…)"
            )
        return self.store.run(self.run_id)

    def raise_for_problem(self) -> Fork:
        """Return this fork if it has no problem; raise Drift, StoreError or AgentFailed with it otherwise."""
        if self.problem is None:
            return self
        kinds = {"drift": Drift, "leak": Drift, "incomplete": StoreError}
        raise kinds.get(self.problem.kind, AgentFailed)(self.problem.text)


def held(forks: Sequence[Fork]) -> str | None:
    """Return in how many requests the change of these forks held, in words; None where there is no choice."""
    told = [fork for fork in forks if fork.scope is not None]
    if not told:
        return None
    whole, asked = (sum(getattr(fork, name) for fork in told) for name in ("held_in", "held_of"))
    partly: Counter[str] = Counter()
    for fork in told:
        partly.update(fork.held_partly)
    more = [f"in {count} only {label}" for label, count in partly.items()]
    lacking = asked - whole - partly.total()
    if lacking and told[0].scope == "onward":
        more.append(f"{lacking} {'has' if lacking == 1 else 'have'} no place for it")
    return "; ".join([f"held in {whole} of {counted(asked, 'request')}", *more])
