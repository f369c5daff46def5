"""One run as the page shows it: its steps, tools and spans in time, and what was found out about each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from ..spelling import short
from ..store import Run, Store
from ..writeback.names import SCOPE, jaeger_url

WIDTH = 240
"""Of the picture of a row in time, in its own units."""
WINDOW = 300
"""Steps that one page shows, around the one that is looked at."""
SPANS = 2000
"""Spans of a run that are looked at."""
_LEAST = 2.0
_SAYS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What blame found of a step."""

    text: str
    certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the waterfall: a step, a tool's call, or a span of the agent's own."""

    what: str
    """`step`, `tool` or `span`."""
    step: int | None
    label: str
    says: str
    x: float
    width: float
    duration_ms: float | None
    failed: bool = False
    served: bool = False
    tokens: str = ""
    cost_usd: float | None = None
    unpriced: bool = False
    mark: Mark | None = None
    forks: tuple[Mapping[str, Any], ...] = ()
    trials: int = 0
    """Forks of experiments that were made here, which are not listed."""
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunShown:
    """A run, whole enough for its page."""

    run: Run
    rows: tuple[Row, ...]
    steps: int
    first: int
    """The first step that is shown."""
    last: int
    """The last one."""
    experiments: tuple[Mapping[str, Any], ...]
    jaeger: str | None
    problem: str | None
    """What was wrong with it, of a fork."""
    change: str | None
    incomplete: str | None
    no_spans_from: int | None
    """Where so many spans were recorded that the later ones are left out: how many are looked at."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is coming."""
        return self.run.status != "running"


def shown(store: Store, run: Run, *, step: int) -> RunShown:
    """Return the run with the steps around that one."""
    steps = store.ask("steps_of_run", run_id=run.run_id)
    first = max(0, min(step - WINDOW // 2, len(steps) - WINDOW))
    window = steps[first : first + WINDOW]
    spans = store.ask("own_spans_of_run", run_id=run.run_id, limit=SPANS + 1)
    experiments = store.ask("experiments_of_run", run_id=run.run_id)
    forked = store.forked(run.run_id)
    return RunShown(
        run=run,
        rows=tuple(_rows(store, run, window, spans[:SPANS], experiments, whole=len(window) == len(steps))),
        steps=len(steps),
        first=first,
        last=first + len(window) - 1,
        experiments=tuple(experiments),
        jaeger=jaeger_url(run.run_id),
        problem=None if forked is None else forked.problem,
        change=None if forked is None else forked.change,
        incomplete=_incomplete(store, run),
        no_spans_from=SPANS if len(spans) > SPANS else None,
    )


def _incomplete(store: Store, run: Run) -> str | None:
    """Return why the run is not whole, as far as it is known without its bodies."""
    open_steps = [] if run.status == "running" else store.open_steps(run.run_id)
    reasons = [f"step {step} was open when its process ended" for step in open_steps[:3]]
    reasons += run.noted_reasons
    reasons += [f"not recorded: {line}" for line in run.unseen]
    return "; ".join(reasons) or None


def _rows(
    store: Store,
    run: Run,
    steps: Sequence[Mapping[str, Any]],
    spans: Sequence[Mapping[str, Any]],
    experiments: Sequence[Mapping[str, Any]],
    *,
    whole: bool,
) -> Iterator[Row]:
    begun = [_ns(one["started_at"]) for one in steps]
    ends = [start + (one["duration_ms"] or 0.0) * 1e6 for start, one in zip(begun, steps, strict=True)]
    left, right = min(begun, default=0), max(ends, default=1)
    own = [one for one in spans if one["scope"] != SCOPE and (whole or left <= one["started_ns"] <= right)]
    scale = WIDTH / max(right - left, 1)
    said = replies(store, run.run_id)
    marks = _marks(store, experiments)
    forks: dict[int, list[Mapping[str, Any]]] = {}
    for fork in store.ask("forks_of_run", run_id=run.run_id):
        forks.setdefault(fork["step"], []).append(fork)
    depths = _depths(own)
    rows: list[tuple[float, int, Row]] = []
    for start, one in zip(begun, steps, strict=True):
        here = forks.get(one["step"], [])
        failed = (one["status_code"] or 0) >= 400 or one["outcome"] not in ("complete", "closed")
        rows.append(
            (
                start,
                1,
                Row(
                    what="step",
                    step=one["step"],
                    label=one["model"] or f"{one['method']} {_host(one['url'])}",
                    says=_ended(one)
                    if failed
                    else said.get(one["step"], str(one["operation"] or one["url"])),
                    x=(start - left) * scale,
                    width=max(_LEAST, (one["duration_ms"] or 0.0) * 1e6 * scale),
                    duration_ms=one["duration_ms"],
                    failed=failed,
                    served=bool(one["replayed"]),
                    tokens=_tokens(one),
                    cost_usd=one["cost_usd"],
                    unpriced=bool(one["cost_reason"]),
                    mark=marks.get(one["step"]),
                    forks=tuple(fork for fork in here if fork["kind"] == "fork"),
                    trials=sum(fork["kind"] != "fork" for fork in here),
                ),
            )
        )
    for one in own:
        x, width = _bar(one, left, right, scale)
        tool = one["name"].startswith("execute_tool ")
        rows.append(
            (
                one["started_ns"],
                0,
                Row(
                    what="tool" if tool else "span",
                    step=None,
                    label=one["name"].removeprefix("execute_tool ") if tool else one["name"],
                    says=_span_says(one) if tool else one["status_message"] or "",
                    x=x,
                    width=width,
                    duration_ms=((one["ended_ns"] or one["started_ns"]) - one["started_ns"]) / 1e6,
                    failed=one["status"] == "ERROR",
                    depth=depths[one["span_id"]],
                ),
            )
        )
    rows.sort(key=lambda row: row[:2])
    yield from (row for _, _, row in rows)


def replies(store: Store, run_id: str) -> dict[int, str]:
    """Return what each step answered, in a few words."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in store.ask("replies_of_run", run_id=run_id, most=_SAYS):
        found.setdefault(row["step"], []).append(row)
    said: dict[int, str] = {}
    for step, messages in found.items():
        reply: list[str] = []
        for one in reversed(messages):
            if one["role"] not in ("assistant", "model"):
                break
            if one["kind"] == "tool_use":
                reply.append(f"→ {one['name']}({short(one['content'], _SAYS)})")
            elif one["kind"] in ("text", "refusal") and one["content"].strip():
                reply.append(short(one["content"], _SAYS))
        if reply:
            said[step] = " ".join(reversed(reply))
    return said


def _marks(store: Store, experiments: Sequence[Mapping[str, Any]]) -> dict[int, Mark]:
    """Return what the newest experiment on steps says of each."""
    newest = next((one for one in experiments if one["mode"] != "parts"), None)
    if newest is None:
        return {}
    marks: dict[int, Mark] = {}
    for row in store.ask("blame_of_experiment", id=newest["experiment_id"]):
        text = row["verdict"].replace("_", " ")
        if row["effect"] is not None:
            text += f" {row['effect']:+.2f}"
        if row["ci_low"] is not None and row["ci_high"] is not None:
            text += f" ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})"
        marks[row["step"]] = Mark(text=text, certified=row["verdict"] == "certified")
    return marks


def _depths(spans: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many of these spans each lies in."""
    above = {one["span_id"]: one["parent_span_id"] for one in spans}
    depths: dict[str, int] = {}
    for span_id in above:
        depth, seen, at = 0, {span_id}, above[span_id]
        while at in above and at not in seen:
            seen.add(at)
            depth, at = depth + 1, above[at]
        depths[span_id] = depth
    return depths


def _bar(span: Mapping[str, Any], left: float, right: float, scale: float) -> tuple[float, float]:
    """Return where a span stands among the steps, and how long it is; what lies outside of them is cut."""
    begin = min(max(span["started_ns"], left), right)
    end = min(max(span["ended_ns"] or span["started_ns"], begin), right)
    return (begin - left) * scale, max(_LEAST, (end - begin) * scale)


def _ns(moment: Any) -> int:
    return round(moment.replace(tzinfo=UTC).timestamp() * 1e9)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] or url


def _ended(row: Mapping[str, Any]) -> str:
    status = row["status_code"]
    return row["outcome"].replace("_", " ") if status is None else f"status {status}, {row['outcome']}"


def _tokens(row: Mapping[str, Any]) -> str:
    if row["input_tokens"] is None and row["output_tokens"] is None:
        return ""
    return f"{row['input_tokens'] or 0:,} → {row['output_tokens'] or 0:,}"


def _span_says(row: Mapping[str, Any]) -> str:
    """Return what a tool's span keeps of its result, or why it failed."""
    if row["status"] == "ERROR":
        return row["status_message"] or "error"
    try:
        told = json.loads(row["attributes"])
    except ValueError:
        return ""
    found = told.get("gen_ai.tool.call.result") or told.get("gen_ai.tool.call.arguments") or ""
    return short(str(found), _SAYS)
