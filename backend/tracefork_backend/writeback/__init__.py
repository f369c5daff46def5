"""Results written back as spans: into the store, and by OTLP where the environment names a collector."""

from __future__ import annotations

from .jaeger import jaeger_url
from .names import BLAME, BLAME_NOTE, FORK, FORK_NOTE, REPLAY, SERVICE
from .records import SpanRef, link
from .spans import RootSpan, WriteBack

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
