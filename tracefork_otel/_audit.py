"""Connections that go round the seam, seen by Python's audit events."""

from __future__ import annotations

from ._session import Session


def watch(session: Session) -> None:
    """Connections of this process are watched from now on."""
