"""What the page may do: look, and where the command line says so start agents and spend money."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

from tracefork_otel.errors import UsageError

from ..spelling import money


def new_token() -> str:
    """Return what nobody guesses."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permits:
    """What the command line allows."""

    allow_run: bool = False
    """Whether agents may be started."""
    budget_usd: float = 0.0
    """What all that is started from the page may spend together."""
    action: str = field(default_factory=new_token, repr=False)
    """What a request shows that does anything: only a page of ours knows it."""
    entry: str | None = field(default=None, repr=False)
    """What whoever looks has to show first; None where being on this machine is enough."""


class Ledger:
    """What jobs of the page took of its budget, and what is set aside for those that run."""

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd = budget_usd
        self._lock = threading.RLock()
        self._held: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    @property
    def spent_usd(self) -> float:
        """What ended jobs spent."""
        with self._lock:
            return sum(self._spent.values())

    @property
    def held_usd(self) -> float:
        """What is set aside for running jobs."""
        with self._lock:
            return sum(self._held.values())

    @property
    def left_usd(self) -> float:
        """What a new job may have."""
        with self._lock:
            return max(0.0, self.budget_usd - self.spent_usd - self.held_usd)

    def hold(self, job: str, usd: float) -> None:
        """Set that much aside for a job; raise UsageError where there is not so much left."""
        with self._lock:
            if usd > self.left_usd + 1e-12:
                raise UsageError(
                    f"{money(usd)} is more than the {money(self.left_usd)} that may still be spent here: "
                    f"this was started with --budget {self.budget_usd:g}"
                )
            self._held[job] = usd

    def settle(self, job: str, spent_usd: float | None) -> None:
        """Book what the ended job spent, all that was set aside for it where nobody knows."""
        with self._lock:
            held = self._held.pop(job, 0.0)
            self._spent[job] = held if spent_usd is None else spent_usd
