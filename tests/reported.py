"""Reports to test with: exchanges of a real wire form, findings of a real search with a planted cause."""

from __future__ import annotations

import json
import random

from tracefork_backend.blaming.drive import run
from tracefork_backend.blaming.findings import Findings
from tracefork_backend.blaming.plan import Plan
from tracefork_backend.blaming.search import Search
from tracefork_backend.report.content import About, Report, change_between, timeline
from tracefork_backend.validate.worlds import NoisyOr, noise_of

from tracefork_otel.exchange import Exchange, Request, Response

MS = 1_000_000
ANSWERS: tuple[tuple[str, str | None, dict[str, str]], ...] = (
    ("I will look for flights to Osaka.", "search_flights", {"city": "Osaka"}),
    ("I check the cheapest, KE724.", "check_seats", {"flight": "KE724", "date": "2026-11-03"}),
    ("I check the next cheapest, JL60.", "check_seats", {"flight": "JL60", "date": "2026-11-04"}),
    ("JL60 has 9 seats left, I book it.", "book", {"flight": "JL60", "date": "2026-11-03"}),
    ("ERROR: the booking failed (sold out). I am sorry, nothing was booked.", None, {}),
)


def exchange(
    step: int, text: str, tool: str | None, arguments: dict[str, str], **changed: object
) -> Exchange:
    """Return an Anthropic exchange that answers with a text and perhaps a tool call."""
    content: list[dict[str, object]] = [{"type": "text", "text": text}]
    if tool is not None:
        content.append({"type": "tool_use", "id": f"toolu_{step}", "name": tool, "input": arguments})
    body = {
        "id": f"msg_{step}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": content,
        "stop_reason": "tool_use" if tool else "end_turn",
        "usage": {"input_tokens": 700 + 90 * step, "output_tokens": 60},
    }
    started = step * 1900 * MS
    fields: dict[str, object] = {
        "trace_id": "a1b2c3d4" * 4,
        "span_id": f"{step + 1:016x}",
        "parent_span_id": None,
        "process_id": "p",
        "seq": step,
        "started_ns": started,
        "ended_ns": started + (900 + 170 * (step * 3 % 5)) * MS,
        "request": Request(
            method="POST",
            url="https://api.anthropic.com/v1/messages",
            body=b'{"model":"claude-sonnet-5","messages":[]}',
        ),
        "response": Response(
            status=200, headers=(("content-type", "application/json"),), body=json.dumps(body).encode()
        ),
        "outcome": "complete",
    }
    return Exchange(**{**fields, **changed})  # type: ignore[arg-type]


def searched(plan: Plan, world: NoisyOr, *, seed: int = 0, budget: float | None = None) -> Findings:
    """Return what a search finds in a world whose causes are known."""
    sample = random.Random(seed)
    return run(Search(plan), lambda request: world.flips(request, sample), budget=budget).findings


def booking(
    *, steps: int = 5, mode: str = "intervene", cause: int | None = 2, budget: float | None = None
) -> Report:
    """Return the report of a failed booking, its cause planted at a step."""
    plan = Plan(steps=steps, mode=mode, costs=tuple(0.0027 * (steps - kept) for kept in range(steps + 1)))  # type: ignore[arg-type]
    own = tuple(0.92 if step == cause else 0.0 for step in range(steps))
    world = NoisyOr(
        steps=steps, noise=noise_of(steps, 0.04), own=own, causes=() if cause is None else (cause,)
    )
    exchanges = tuple(exchange(step, *ANSWERS[step % 5]) for step in range(steps))
    after = exchange(
        2,
        "I check the next cheapest, JL60.",
        "check_seats",
        {"flight": "JL60", "date": "2026-11-03"},
        intervention="tool_input",
        trace_id="0f" * 16,
    )
    findings = searched(plan, world, budget=budget)
    return Report(
        run_id=exchanges[0].trace_id,
        name="book a flight",
        parent_failed=True,
        timeline=timeline(exchanges),
        findings=findings,
        about=About(
            experiment_id="b7e1",
            intervention="the model's answer, repaired",
            oracle="regex success=/BOOKED/ failure=/ERROR|sorry/",
            spent_usd=0.2184,
            budget_usd=2.0,
            seconds=41.2,
            when="2026-11-24",
        ),
        change=change_between(exchanges[2], after, step=2) if findings.top == 2 else None,
    )
