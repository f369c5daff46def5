"""The list of runs, as it is asked for in a terminal and on a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from .store import Kind, Store

Status: TypeAlias = Literal["ok", "error", "running", "killed", "part"]
Ended: TypeAlias = Literal["success", "failure", "not graded"]
KINDS: tuple[Kind, ...] = get_args(Kind)
STATUSES: tuple[Status, ...] = get_args(Status)
ENDED: tuple[Ended, ...] = get_args(Ended)
_OUTCOMES = {"success": "true", "failure": "false", "not graded": "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which runs; None does not narrow."""

    text: str | None = None
    """Stands in name, service, command, function or id."""
    kind: str | None = None
    status: str | None = None
    outcome: str | None = None
    """As an oracle graded it, in words."""
    model: str | None = None
    """Stands in the name of one that was asked."""
    since: datetime | None = None
    """UTC, without a zone."""
    before: datetime | None = None
    every: bool = False
    """Replays and trials too, which a kind that is given stands for as well."""

    @property
    def narrows(self) -> bool:
        """Whether some runs are left out but for their kind alone."""
        told = (self.text, self.kind, self.status, self.outcome, self.model, self.since, self.before)
        return any(one is not None for one in told)


def runs_listed(store: Store, wanted: Wanted, *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
    """Return a row for each run that is wanted, newest first, behind so many others."""
    rows = store.ask(
        "runs_listed",
        every=wanted.every or wanted.kind is not None,
        limit=limit,
        offset=offset,
        text=wanted.text,
        kind=wanted.kind,
        status=wanted.status,
        outcome=None if wanted.outcome is None else _OUTCOMES[wanted.outcome],
        model=wanted.model,
        since=wanted.since,
        before=wanted.before,
    )
    store.tell_apart()
    return rows
