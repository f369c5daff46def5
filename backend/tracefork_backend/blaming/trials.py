"""Trials as the search asks for them, and the arms that collect their outcomes in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Role = Literal["treatment", "control", "group", "conditional", "value"]
Phase = Literal[
    "control", "screen", "confirm", "interact", "conditional", "value", "fixed", "repair", "parts"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One fork: `kept` recorded responses are kept, `altered` altered, everything else runs live."""

    trial_id: str
    """`{arm_id}#{replicate}`: the same in every run of a plan, so a recorded outcome finds its place."""
    arm_id: str
    role: Role
    steps: tuple[int, ...]
    """The steps that the arm is about."""
    altered: tuple[int, ...]
    """Where the intervention is made; none in a control."""
    kept: int
    """How many leading responses are the recorded ones."""
    replicate: int
    """Trials of one replicate may share what is common to them; two replicates share nothing."""
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest(Trial):
    """A trial to run."""

    shares: str = ""
    """The name of what this trial shares memory with."""


Sampler: TypeAlias = Callable[[TrialRequest], bool | None]
"""Gives the outcome of a trial: flipped, did not, or could not be graded."""


@dataclass(slots=True, kw_only=True, eq=False)
class Arm:
    """The trials of one set of steps in one role; outcomes count from the front, however they arrive."""

    arm_id: str
    role: Role
    steps: tuple[int, ...]
    altered: tuple[int, ...]
    kept: int
    scope: str = ""
    issued: int = 0
    outcomes: list[bool | None] = field(default_factory=list[bool | None])
    """True: flipped. False: did not. None: could not be graded."""
    defined: list[bool] = field(default_factory=list[bool])
    flips: int = 0
    shared: bool = False
    """Whether any trial was answered from the memory of its replicate."""
    tails: set[str] = field(default_factory=set[str])
    """Digests of what the forks answered, as far as the runner gave them; "" among them: one it did not."""
    _early: dict[int, bool | None] = field(default_factory=dict[int, bool | None])
    """Outcomes that wait for those before them."""

    def shares(self, replicate: int) -> str:
        """Return the name of what that trial shares memory with: only trials of one use share any."""
        return f"{self.scope}#{replicate}"

    def request(self, phase: Phase) -> TrialRequest:
        """Return the next trial of this arm, now counted as issued."""
        replicate = self.issued
        self.issued += 1
        return TrialRequest(
            trial_id=f"{self.arm_id}#{replicate}",
            arm_id=self.arm_id,
            role=self.role,
            steps=self.steps,
            altered=self.altered,
            kept=self.kept,
            replicate=replicate,
            phase=phase,
            shares=self.shares(replicate),
        )

    def record(self, replicate: int, outcome: bool | None, tail: str, *, shared: bool = False) -> None:
        """Put an outcome in its place; it counts once all before it have arrived."""
        self.tails.add(tail)
        self.shared = self.shared or shared
        self._early[replicate] = outcome
        while len(self.outcomes) in self._early:
            counted = self._early.pop(len(self.outcomes))
            self.outcomes.append(counted)
            if counted is not None:
                self.defined.append(counted)
                self.flips += counted

    @property
    def undefined(self) -> int:
        """How many outcomes could not be graded."""
        return len(self.outcomes) - len(self.defined)

    @property
    def rate(self) -> float | None:
        """The share of flips among the outcomes that could be graded, None before the first."""
        return self.flips / len(self.defined) if self.defined else None

    @property
    def told(self) -> bool:
        """Whether the runner gave the digests of what all forks answered."""
        return "" not in self.tails

    def alike(self, flips: bool) -> bool:
        """Tell whether all forks flipped, or none did, and all with the same answers."""
        return len(self.tails) == 1 and all(outcome is flips for outcome in self.outcomes)


class Ledger:
    """All arms of one experiment, by id."""

    def __init__(self) -> None:
        self.arms: dict[str, Arm] = {}

    def _arm(
        self, arm_id: str, role: Role, steps: tuple[int, ...], altered: tuple[int, ...], kept: int, scope: str
    ) -> Arm:
        arm = self.arms.get(arm_id)
        if arm is None:
            arm = self.arms[arm_id] = Arm(
                arm_id=arm_id, role=role, steps=steps, altered=altered, kept=kept, scope=scope
            )
        return arm

    def keep(self, step: int, *, use: str = "", role: Role = "control") -> Arm:
        """Return the arm that keeps the responses up to `step` (-1: none) and re-runs what follows."""
        steps = (step,) if step >= 0 else ()
        return self._arm(
            f"keep:{step}{use and '/' + use}", role, steps=steps, altered=(), kept=step + 1, scope=use
        )

    def alter(
        self, steps: tuple[int, ...], *, use: str = "", role: Role | None = None, scope: str | None = None
    ) -> Arm:
        """Return the arm that intervenes at all `steps`.

        `use` names one whose trials serve one purpose only, `scope` what they share memory for, if not that.
        """
        return self._arm(
            f"alter:{'+'.join(map(str, steps))}{use and '/' + use}",
            role or ("treatment" if len(steps) == 1 else "group"),
            steps=steps,
            altered=steps,
            kept=steps[0],
            scope=use if scope is None else scope,
        )

    def removing(self, parts: tuple[int, ...], *, use: str = "") -> Arm:
        """Return the arm in which these parts are taken out of all requests; of none, its control."""
        return self._arm(
            f"without:{'+'.join(map(str, parts)) or '-'}{use and '/' + use}",
            ("treatment" if len(parts) == 1 else "group") if parts else "control",
            steps=parts,
            altered=parts,
            kept=0,
            scope=use,
        )

    def trying(self, name: str, step: int, *, changed: bool, kept: int) -> Arm:
        """Return the arm of that name, in which the step is changed as the name says, or kept."""
        return self._arm(
            name,
            "treatment" if changed else "control",
            steps=(step,),
            altered=(step,) if changed else (),
            kept=kept,
            scope=name,
        )

    def without(self, steps: tuple[int, ...], dropped: int, *, use: str) -> Arm:
        """Return the control of one member of a set: the same start and tail, without altering `dropped`.

        Where the dropped step is the first, its recorded response is kept, so that both arms re-run the
        same calls.
        """
        rest = tuple(step for step in steps if step != dropped)
        kept = steps[0] + 1 if dropped == steps[0] else steps[0]
        return self._arm(
            f"alter:{'+'.join(map(str, rest))}/{use}-{dropped}",
            "group",
            steps=steps,
            altered=rest,
            kept=kept,
            scope=use,
        )
