"""Tapes that no test has any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import names
from .taped import TAPES

UNUSED = pytest.StashKey[list[Path]]()


def find(session: pytest.Session) -> None:
    """Note which tapes no test has, in the folders of files that were collected whole, or delete them."""
    config = session.config
    if any("::" in str(one) for one in config.args):
        return
    having = config.stash.get(TAPES, {})
    folders = {path.parent for path in having}
    left = sorted(
        path for folder in folders for path in folder.glob(f"*{names.SUFFIX}") if path not in having
    )
    if config.getoption("--tracefork-prune"):
        for path in left:
            path.unlink(missing_ok=True)  # another worker of xdist may have
    config.stash[UNUSED] = left
    output: dict[str, object] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output["tracefork_unused"] = [str(path) for path in left]


def take(config: pytest.Config, told: list[str]) -> None:
    """Note what a worker of xdist found."""
    config.stash[UNUSED] = sorted({*config.stash.get(UNUSED, []), *map(Path, told)})
