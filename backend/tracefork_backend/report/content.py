"""What the report shows, gathered from a run and its findings; nothing here knows about pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.facts import facts_of

from ..blaming.findings import Findings
from ..spelling import short

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange

_SAYS = 110
"""Characters of an answer in the table of steps; more would break its lines."""
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineStep:
    """One exchange of the run, as the timeline shows it."""

    step: int
    started_ms: float
    """Since the run's first exchange began."""
    duration_ms: float
    label: str
    """The model, or the method and host where no model was asked."""
    is_model: bool
    says: str
    """The beginning of what the model answered, or how the exchange ended."""
    tools: tuple[str, ...] = ()
    """The tools that the answer asked for."""
    tool_ms: float = 0.0
    """Time from its end to the next exchange's start, if it asked for tools."""
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an intervention replaced at a step, both as text."""

    step: int
    label: str
    """What kind of change it was: `text`, `tool_input`, `request model=…`."""
    old: str
    new: str
    flipped_run_id: str | None = None
    """A fork in which this change flipped the outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the findings do not say themselves: how they were asked for, and what they cost."""

    experiment_id: str = ""
    intervention: str = ""
    """What was tried at each step, in words."""
    oracle: str = ""
    """What told success from failure."""
    oracle_note: str = ""
    """What is known of its errors."""
    alpha: float = 0.05
    spent_usd: float | None = None
    unpriced: int = 0
    """Calls of forks that are left out of it, as they have no price."""
    budget_usd: float | None = None
    grading_usd: float | None = None
    """The price of a paid oracle, on top of the forks'."""
    grading_unpriced: int = 0
    """Answers of it that are left out of that, as they have no price."""
    seconds: float | None = None
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One page's worth: the run, what was found, and how."""

    run_id: str
    name: str
    parent_failed: bool
    """The recorded run's outcome; a flip is the other one."""
    timeline: tuple[TimelineStep, ...]
    findings: Findings
    about: About
    change: Change | None = None
    """What a fork had at the culprit."""

    @property
    def culprit(self) -> int | None:
        """The step to show first: the root, else what is certified, else what stands out; None if nothing."""
        return self.findings.top

    @property
    def blamed(self) -> bool:
        """Whether the culprit is certified, alone or in a set."""
        return self.culprit is not None and self.culprit in self.findings.certified


def timeline(exchanges: tuple[Exchange, ...]) -> tuple[TimelineStep, ...]:
    """Return the exchanges as bars; the time after an answer that asks for tools counts as the tools'."""
    begin = min((each.started_ns for each in exchanges), default=0)
    return tuple(_timed(exchanges, step, begin) for step in range(len(exchanges)))


def _timed(exchanges: tuple[Exchange, ...], step: int, begin: int) -> TimelineStep:
    exchange = exchanges[step]
    ended = exchange.ended_ns if exchange.ended_ns is not None else exchange.started_ns
    found = facts_of(exchange)
    tools = tuple(said.name or "tool" for said in found.reply if said.kind == "tool_use") if found else ()
    following = exchanges[step + 1].started_ns if step + 1 < len(exchanges) else ended
    status = exchange.response.status if exchange.response else None
    failed = exchange.outcome not in ("complete", "closed") or (status is not None and status >= 400)
    if found is not None and not failed:
        says = short(answer_text(exchange), _SAYS)
    else:
        says = exchange.outcome if status is None else f"status {status}, {exchange.outcome}"
    return TimelineStep(
        step=step,
        started_ms=(exchange.started_ns - begin) / _NS_PER_MS,
        duration_ms=max(0, ended - exchange.started_ns) / _NS_PER_MS,
        label=(found.model if found else None) or _where(exchange),
        is_model=found is not None,
        says=says,
        tools=tools,
        tool_ms=max(0, following - ended) / _NS_PER_MS if tools else 0.0,
        failed=failed,
    )


def _where(exchange: Exchange) -> str:
    host = exchange.request.url.partition("://")[2].partition("/")[0]
    return f"{exchange.request.method} {host}"


def answer_text(exchange: Exchange) -> str:
    """Return the answer for a person: texts, and tool calls with their arguments, a line each."""
    found = facts_of(exchange)
    if found is None:
        body = exchange.response.body if exchange.response else b""
        return body.decode(errors="replace")
    lines = [
        f"{said.name}({said.content})" if said.kind == "tool_use" else said.content
        for said in found.reply
        if said.content or said.kind == "tool_use"
    ]
    if not lines and exchange.response is not None and exchange.response.status >= 400:
        return f"status {exchange.response.status}: {exchange.response.body.decode(errors='replace')}"
    return "\n".join(lines)


def change_between(before: Exchange, after: Exchange, *, step: int, flipped: bool = True) -> Change:
    """Return what differs between a step and its fork's: the answers, and the requests if those differ."""
    old, new = answer_text(before), answer_text(after)
    asked, sent = plain_request(before.request), plain_request(after.request)
    if asked != sent:
        old = f"request: {asked.decode(errors='replace')}\nanswer: {old}"
        new = f"request: {sent.decode(errors='replace')}\nanswer: {new}"
    return Change(
        step=step,
        label=after.intervention or "",
        old=old,
        new=new,
        flipped_run_id=after.trace_id if flipped else None,
    )
