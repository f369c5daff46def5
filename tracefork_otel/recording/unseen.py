"""Connections of clients that are not captured, in words."""

from __future__ import annotations


def connected(client: str, host: str, port: int | str, caller: str, *, count: int) -> str:
    """Return who connected where, how often and from which line, as a part of a sentence."""
    times = "" if count == 1 else f", {count} times"
    return f"{client} connected to {host}:{port}{times} at {caller}"
