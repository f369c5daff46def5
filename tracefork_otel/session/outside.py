"""A piece of work that came from outside, which is a run once something is asked in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .result import kept

if TYPE_CHECKING:
    from .own_span import OwnSpan, Parent
    from .session import Session


class FromOutside(ABC):
    """One piece of work, and the span that it gets once something is asked."""

    def __init__(self, session: Session, name: str, entrypoint: str | None) -> None:
        """From here on a thread of the work may open it.

        `entrypoint` is what is called when it is made again; None where nobody knows.
        """
        self.session = session
        self.name = name
        self.entrypoint = entrypoint
        self._span: OwnSpan | None = None
        self._over = False
        """Whether it ended: what goes on after that and only then asks is none of it."""
        session.requests[id(self)] = self.open

    @abstractmethod
    def _attributes(self) -> dict[str, Any]:
        """Return what the span says of how the work is made again."""

    @abstractmethod
    def _closed(self, span: OwnSpan) -> None:
        """Put on the span what came of the work."""

    def open(self, parent: Parent | None) -> OwnSpan | None:
        """Return the span of the work, which begins with the first thing that is asked in it."""
        if self._span is None and not self._over:
            from . import root

            # Below the user's own spans only such a one says how a run began (`_heads` in views.sql).
            name = self.name if parent is None else f"invoke_agent {self.name}"
            self._span = root.open_entry(self.session, name, self._attributes(), parent)
        return self._span

    def end(self, failure: BaseException | None) -> None:
        """End the span, if there is one, with what came of the work; once."""
        if self._over:
            return
        span, session, self._over = self._span, self.session, True
        session.requests.pop(id(self), None)
        if span is None:
            return
        try:
            from . import spans

            self._closed(span)
            session.flush_draws(span.trace_id)
            spans.end(session, span, error=failure)
        except Exception as problem:
            session.lost(f"end of {self.name}", problem)

    def keep(self, span: OwnSpan, result: str, lost: int = 0) -> None:
        """Put a result on the span, of which so much was lost before."""
        found = kept(result, self.session.redactor.text, whole=False)
        span.attributes["tracefork.result"] = found.text
        if found.left_out or lost:
            span.attributes["tracefork.result.left_out"] = found.left_out + lost
