"""The names of every span that the backend writes."""

from __future__ import annotations

SERVICE = "tracefork"
"""Jaeger's rows show service and span name only: what must be seen at a glance stands in those two."""
SCOPE = "tracefork_backend"
FORK = "fork {name}@{step}"
REPLAY = "replay {name}"
FORK_NOTE = "tracefork.fork {kind}"
BLAME = "blame {name}"
BLAME_NOTE = "tracefork.blame {verdict}"
