"""What one experiment sets out to do, fixed before its first trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tracefork_otel.errors import UsageError

ModeName: TypeAlias = Literal["auto", "intervene", "value", "fixed", "parts"]
"""How the steps are compared: each a file in `modes`."""
What: TypeAlias = Literal["system", "tools"]
"""The parts of requests that can be compared: sections of the system prompt, or tools."""
Coupling: TypeAlias = Literal["fresh", "recorded"]
"""What a fork gets for a request that the recorded run made too: a new answer, or the recorded one."""


SEARCH = 2
"""The search of value mode that is built here; an experiment of an earlier one is read as it was written."""


MOST_EXACT = 0.02
"""The least effect that parts can be bounded by, for some 250 forks of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of one search; the same plan and the same outcomes always give the same findings."""

    steps: int
    """How many steps the recorded run has."""
    mode: ModeName = "auto"
    natural: bool = False
    """The intervention is a redraw of the step's own response, so `auto` means `value`."""
    parent_failed: bool = True
    """The recorded run's outcome; a flip is the other one."""
    output: int | None = -1
    """The step whose text is graded, which an intervention would only rewrite; None: no such step."""
    blocked: frozenset[int] = frozenset()
    """Steps at which the intervention cannot be made."""
    attempts: tuple[tuple[int, int], ...] = ()
    """(Attempt, answer) of calls that were refused and made again: each is one step with its answer."""
    costs: tuple[float, ...] = ()
    """Price of a fork by how many responses it keeps, 0 to `steps`; left out, one for each live call."""
    alpha: float = 0.05
    """The chance of blaming an innocent step that is put up with."""
    max_trials: int | None = None
    every: bool = False
    """Whether value mode goes on for smaller drops after it has certified one."""
    k: int = 10
    """Forks per step in `fixed` mode."""
    deterministic: Literal["auto", "never"] = "auto"
    """Whether one fork may stand for all: when unchanged re-runs were byte-identical, or never."""
    search: int = SEARCH
    """Which search decides what is asked for."""
    repair: bool = False
    """The intervention mends a step instead of breaking it: of steps to mend together each is a cause."""

    parts: tuple[tuple[str, int], ...] = ()
    """Where parts of requests are compared, and not steps: what each is called, and its tokens a call."""
    bound: float | None = None
    """How far the effect of a part must be bounded before it is closed; None: a large one is unlikely."""
    strata: int = 1
    """Over how many runs the forks are spread in turn; a look is taken after whole turns."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(
                f"a run of {self.steps} steps has nothing to blame: record a run with a model call"
            )
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha}: give a chance between 0 and 1, for example 0.05")
        if self.bound is not None and not MOST_EXACT <= self.bound < 1:
            raise UsageError(
                f"a bound of {self.bound:g} is not one that forks can show: give one from {MOST_EXACT} to 1"
            )
        if self.k < 1:
            raise UsageError(f"k is {self.k}: fixed mode needs at least one fork a step")
        if self.costs and len(self.costs) != self.steps + 1:
            raise UsageError(
                f"costs has {len(self.costs)} entries: give {self.steps + 1}, for 0 to {self.steps} kept"
            )
        if self.output == -1:
            object.__setattr__(self, "output", self.steps - 1)

    @property
    def tested(self) -> tuple[int, ...]:
        """The steps at which the intervention is tried."""
        return tuple(i for i in self.whole if i != self.output and i not in self.blocked)

    @property
    def whole(self) -> tuple[int, ...]:
        """The steps that are one by themselves: all but refused attempts."""
        refused = self.answers
        return tuple(i for i in range(self.steps) if i not in refused)

    @property
    def answers(self) -> dict[int, int]:
        """The step with which each refused attempt is one."""
        return dict(self.attempts)

    def place(self, step: int, *, after: int) -> int:
        """Return where a call stands in a fork that goes on live after a step: nothing is refused there."""
        return step - sum(after < attempt < step for attempt, _ in self.attempts)

    def cost(self, kept: int) -> float:
        """Return the price of one fork that keeps so many recorded responses."""
        return self.costs[kept] if self.costs else float(self.steps - kept)
