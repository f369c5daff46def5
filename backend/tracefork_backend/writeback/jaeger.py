"""Where a trace is seen in a browser."""

from __future__ import annotations

import os
from collections.abc import Mapping

UI = "TRACEFORK_JAEGER_UI"
"""The address of Jaeger's pages, such as `http://127.0.0.1:16686`."""


def jaeger_url(
    trace_id: str, span_id: str | None = None, *, environ: Mapping[str, str] = os.environ
) -> str | None:
    """The page of the trace, with the span found in it if one is given; None where no Jaeger was named."""
    base = environ.get(UI, "").strip().rstrip("/")
    if not base:
        return None
    if "://" not in base:
        base = f"http://{base}"
    return f"{base}/trace/{trace_id}" + (f"?uiFind={span_id}" if span_id else "")
