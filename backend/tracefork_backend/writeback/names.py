"""What the spans are called that the backend writes, and where a person looks at them."""

from __future__ import annotations

import os
from collections.abc import Mapping

SERVICE = "tracefork"
"""Jaeger's rows show service and span name only: what must be seen at a glance stands in those two."""
SCOPE = "tracefork_backend"
FORK = "fork {name}@{step}"
REPLAY = "replay {name}"
FORK_NOTE = "tracefork.fork {kind}"
PROBLEM = "tracefork.fork.problem"
"""The attribute of a fork's root that says what kind of problem it has."""
PROBLEM_TEXT = f"{PROBLEM}.text"
BLAME = "blame {name}"
BLAME_NOTE = "tracefork.blame {verdict}"
REPAIR = "repair {name}"
REPAIR_NOTE = "tracefork.repair {verdict}"

UI = "TRACEFORK_JAEGER_UI"
"""The address of Jaeger's pages, such as `http://127.0.0.1:16686`."""


def jaeger_url(
    trace_id: str, span_id: str | None = None, *, environ: Mapping[str, str] = os.environ
) -> str | None:
    """Return the page of the trace, with the span found in it if one is given; None if no Jaeger is named."""
    base = environ.get(UI, "").strip().rstrip("/")
    if not base:
        return None
    if "://" not in base:
        base = f"http://{base}"
    return f"{base}/trace/{trace_id}" + (f"?uiFind={span_id}" if span_id else "")
