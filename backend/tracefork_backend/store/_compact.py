"""Compaction: many small segments become one, while others write and read."""

from __future__ import annotations

from pathlib import Path


def compact(store: Path) -> str | None:
    """All segments are one; its id, or None if there was nothing to merge."""
    raise NotImplementedError(store)
