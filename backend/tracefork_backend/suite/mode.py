"""Whether a test gets its tape or its model."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias, cast, get_args

import pytest

Mode: TypeAlias = Literal["replay", "once", "rewrite", "live", "fork"]
MODES: tuple[Mode, ...] = get_args(Mode)


def mode_of(config: pytest.Config) -> Mode:
    """Return the mode; on a machine that says `CI`, nothing is asked anew unless the command line says so."""
    given = config.getoption("--tracefork")
    if given is not None:
        return cast(Mode, given)
    mode = str(config.getini("tracefork"))
    if mode not in MODES:
        *modes, last = MODES
        raise pytest.UsageError(f"tracefork = {mode}: use {', '.join(modes)} or {last}")
    return "replay" if os.environ.get("CI", "").lower() in ("1", "true") else cast(Mode, mode)
