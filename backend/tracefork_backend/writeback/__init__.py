"""Results written back as spans: into the store, and by OTLP where the environment names a collector."""

from __future__ import annotations

from .names import BLAME, BLAME_NOTE, FORK, FORK_NOTE, REPLAY, SERVICE, jaeger_url
from .spans import RootSpan, SpanRef, WriteBack, link

__all__ = [
    "BLAME",
    "BLAME_NOTE",
    "FORK",
    "FORK_NOTE",
    "REPLAY",
    "SERVICE",
    "RootSpan",
    "SpanRef",
    "WriteBack",
    "jaeger_url",
    "link",
]
