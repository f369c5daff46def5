"""The list of runs, as the page asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from tracefork_otel.errors import UsageError

from ..spelling import outcome_word
from ..store import Store
from ..store.listing import ENDED, KINDS, STATUSES, Wanted, runs_listed

AT_ONCE = 60
"""Runs of one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the form above the list holds; empty where it does not narrow."""

    text: str = ""
    kind: str = ""
    status: str = ""
    outcome: str = ""
    model: str = ""
    since: str = ""
    offset: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """Return what a query string asks for; raise UsageError for a value that is none."""
        asked = {name: query.get(name, "").strip() for name in cls.__slots__ if name != "offset"}
        for name, allowed in (("kind", KINDS), ("status", STATUSES), ("outcome", ENDED)):
            if asked[name] and asked[name] not in allowed:
                raise UsageError(f"{name}={asked[name]}: use one of {', '.join(allowed)}")
        if asked["since"]:
            try:
                datetime.fromisoformat(asked["since"])
            except ValueError:
                raise UsageError(f"since={asked['since']}: write a date, such as 2026-08-31") from None
        offset = query.get("offset") or "0"
        if not (offset.isascii() and offset.isdecimal() and len(offset) < 10):
            raise UsageError(f"offset={offset}: write how many runs to pass over")
        return cls(**asked, offset=int(offset))

    def query(self, offset: int = 0) -> str:
        """Return the address's part that asks for the same, from another place on."""
        asked = {name: getattr(self, name) for name in self.__slots__ if name != "offset"}
        return urlencode({name: value for name, value in asked.items() if value} | {"offset": offset})

    @property
    def narrows(self) -> bool:
        """Whether some runs are left out."""
        return any((self.text, self.kind, self.status, self.outcome, self.model, self.since))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One page of runs."""

    rows: list[dict[str, Any]]
    more: bool
    """Whether older ones follow."""

    @property
    def running(self) -> bool:
        """Whether a run is being written, so that the list is worth asking for again."""
        return any(row["status"] == "running" for row in self.rows)


def listed(store: Store, asked: Asked) -> Listed:
    """Return the runs that are asked for, newest first, each with how many forks and experiments it has."""
    since = datetime.fromisoformat(asked.since) if asked.since else None
    wanted = Wanted(
        text=asked.text or None,
        kind=asked.kind or None,
        status=asked.status or None,
        outcome=asked.outcome or None,
        model=asked.model or None,
        since=since.astimezone(UTC).replace(tzinfo=None) if since and since.tzinfo else since,
    )
    found = runs_listed(store, wanted, limit=AT_ONCE + 1, offset=asked.offset)
    rows = found[:AT_ONCE]
    marks = {
        row["run_id"]: row for row in store.ask("marks_of_runs", run_ids=[one["run_id"] for one in rows])
    }
    for row in rows:
        row |= {name: marks[row["run_id"]][name] for name in ("forks", "experiments")}
        row["ended"] = outcome_word(row["outcome"], row["status"])
    return Listed(rows=rows, more=len(found) > AT_ONCE)
