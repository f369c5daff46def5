"""Several runs forked as one experiment: its trials are spread over them in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tracefork_otel.exchange import Exchange
from tracefork_otel.tape.tape import Tape

from ..grading.oracle import Oracle
from ..rerun.forker import Fork, Forker, Gate, OnDone, Planned
from ..rerun.spending import Room
from ..store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedIn(Planned):
    """A fork of one of the runs."""

    stratum: int
    """Which of them, from 0."""


class Strata:
    """The forkers of several runs, as one."""

    def __init__(self, forkers: Sequence[Forker]) -> None:
        self.forkers = forkers

    @property
    def store(self) -> Store | None:
        """The store that the forks are kept in."""
        return self.forkers[0].store

    @property
    def tape(self) -> Tape:
        """The tape of the first run."""
        return self.forkers[0].tape

    @property
    def roots(self) -> dict[str, str]:
        """The root span of each fork made so far, by its run."""
        return {run_id: span_id for one in self.forkers for run_id, span_id in one.roots.items()}

    def remember(self, replicate: str, number: int, exchanges: Iterable[Exchange]) -> None:
        """Share calls of a trial from before with forks of the replicate, which are all of one run."""
        turn = int(replicate.rpartition("#")[2])
        self.forkers[turn % len(self.forkers)].remember(replicate, number, exchanges)

    def forks(
        self,
        planned: Iterable[Planned],
        *,
        oracle: Oracle | None = None,
        on_done: OnDone | None = None,
        gate: Gate | None = None,
        settle: bool = True,
    ) -> list[Fork]:
        """Return the forks, run by run."""
        of: dict[int, list[tuple[int, Planned]]] = {}
        for at, one in enumerate(planned):
            of.setdefault(one.stratum if isinstance(one, PlannedIn) else 0, []).append((at, one))
        made: list[Fork] = []
        for stratum, some in sorted(of.items()):
            within = None if gate is None else _Within(gate, [at for at, _ in some])
            made += self.forkers[stratum].forks(
                [one for _, one in some], oracle=oracle, on_done=on_done, gate=within, settle=settle
            )
        return made


@dataclass(frozen=True, slots=True)
class _Within:
    """A gate as it is for some of what was planned."""

    gate: Gate
    places: Sequence[int]
    """The place of each among all."""

    def admit(self, at: int) -> bool:
        """Return whether the fork planned at that place starts."""
        return self.gate.admit(self.places[at])

    def watching(self, at: int) -> Room | None:
        """Return what tells by what it spent whether the fork planned there may go on."""
        return self.gate.watching(self.places[at])

    def ended(self, at: int, fork: Fork) -> None:
        """Take in a fork that is not graded yet."""
        self.gate.ended(self.places[at], fork)

    def failed(self, at: int) -> None:
        """Take in that the fork planned there came to no end."""
        self.gate.failed(self.places[at])
