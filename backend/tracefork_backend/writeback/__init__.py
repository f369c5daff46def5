"""Results written back as spans: into the store, and by OTLP where the environment names a collector."""

from __future__ import annotations

from ._jaeger import jaeger_url
from ._names import BLAME, BLAME_NOTE, FORK, FORK_NOTE, REPLAY, SERVICE
from ._records import SpanRef, link
from ._spans import RootSpan, WriteBack

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
