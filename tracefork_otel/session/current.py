"""The one session of this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

session: Session | None = None
"""None where nothing is recorded."""


def _after_fork_in_child() -> None:
    if session is not None:
        session.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
