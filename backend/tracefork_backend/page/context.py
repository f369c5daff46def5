"""What every address of the page has at hand: the store, what is allowed, what was started."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange

from ..diffs.diff import Diff, diff
from ..store import Run, Store
from .jobs import Jobs
from .permits import Ledger, Permits
from .step import exchange_at
from .templating import environment

_COMPARED = 4
"""Comparisons that are kept: of two runs with 300 requests of up to 1 MB one takes seconds to make."""


class Page:
    """One store in a browser."""

    def __init__(self, store: Store, permits: Permits) -> None:
        self.store = store
        self.permits = permits
        self.ledger = Ledger(permits.budget_usd)
        self.jobs = Jobs(store.path, self.ledger)
        self._compared: dict[tuple[object, ...], Diff] = {}

    @property
    def why_not(self) -> str | None:
        """Why nothing can be started from here; None if it can."""
        if self.permits.allow_run:
            return None
        return (
            "this page only looks: start it with --allow-run, and --budget USD for what models cost, "
            "to start agents from it"
        )

    def run(self, request: Request) -> Run:
        """Return the run that the address names."""
        return self.store.run(request.path_params["run"])

    def compared(self, a: Run, b: Run) -> Diff:
        """Return how two runs compare, made anew only where one has changed: each page has some rows."""
        sides = tuple((run.run_id, run.steps, run.status, run.outcome) for run in (a, b))
        found = self._compared.get(sides) or diff(a, b)
        kept = [*self._compared.items(), (sides, found)]
        self._compared = dict(kept[-_COMPARED:])
        return found

    def exchange(self, found: Run, at: int) -> Exchange:
        """Return the exchange of a step; raise UsageError where there is none."""
        return exchange_at(self.store, found, at)

    def whole(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page; the template's own name tells where one is."""
        return self._rendered(template, status, {"template": template} | values)

    def part(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """Return a piece that goes into a page."""
        return self._rendered(template, status, values)

    def _rendered(self, template: str, status: int, values: dict[str, Any]) -> Response:
        return HTMLResponse(environment().get_template(template).render({"page": self} | values), status)


def number(text: str | None, name: str) -> int:
    """Return the number, 0 where nothing is said; raise UsageError for what is none."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"{name}={text}: write a number")
    return int(text)
