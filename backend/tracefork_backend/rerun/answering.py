"""How a replayed request to a web application was answered, beside how it was then."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tracefork_otel.tape.start import REQUESTS
from tracefork_otel.tape.tape import Tape

from .records import DriftReport


@dataclass(frozen=True, slots=True)
class Answer:
    """What two answers have in common, in words, and the drift if they differ in their status."""

    text: str
    drifts: tuple[DriftReport, ...] = ()


def is_request(tape: Tape) -> bool:
    """Return whether the run is a request to a web application."""
    return (tape.start.calls or "").startswith(REQUESTS)


def answers(tape: Tape, recorded: object, replayed: object) -> Answer | None:
    """Return how the two compare, each as JSON with `status` and `body`; None where one is not known.

    Another status is a drift, as another exit status of a command is. Another body is only said, as its
    output: it may have a time or an id in it that nobody recorded.
    """
    before, now = _read(recorded), _read(replayed)
    if before is None or now is None:
        return None
    status, expected = now.get("status"), before.get("status")
    body = "the same body" if now.get("body") == before.get("body") else "another body"
    text = f"{status}, recorded {expected}, with {body}"
    if status == expected:
        return Answer(text)
    report = DriftReport(
        step=tape.steps,
        cause="agent_error",
        text=f"the request was answered with status {status}, recorded {expected}",
        path="status",
        recorded=str(expected),
        got=str(status),
    )
    return Answer(text, (report,))


def _read(result: object) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(result) if isinstance(result, str) else result
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
