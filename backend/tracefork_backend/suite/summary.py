"""What pytest prints of tapes at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ..spelling import counted, money
from . import names
from .leftover import UNUSED


def write(reporter: Any, config: pytest.Config, told: Sequence[Mapping[str, Any]]) -> None:
    """Print how many exchanges came from tapes, what they had cost, and which tapes are left over."""
    for what, words in (
        ("replayed", "answered from tapes"),
        ("recorded", "recorded"),
        ("asked", "asked of models"),
    ):
        ours = [one for one in told if one["tracefork"] == what]
        if ours:
            calls = sum(one["tracefork_exchanges"] for one in ours)
            usd = sum(one["tracefork_cost_usd"] or 0.0 for one in ours)
            worth = f", {money(usd)} {'saved' if what == 'replayed' else 'spent'}" if usd else ""
            reporter.write_line(
                f"tracefork: {counted(len(ours), 'test')}, {counted(calls, 'exchange')} {words}{worth}"
            )
    forked = [one for one in told if one["tracefork"] == "forked"]
    if forked:
        served, asked = (
            sum(one[name] for one in forked) for name in ("tracefork_exchanges", "tracefork_asked")
        )
        live = f", {asked} asked of models" if asked else ""
        usd = sum(one["tracefork_cost_usd"] for one in forked)
        reporter.write_line(
            f"tracefork: {counted(len(forked), 'test')}, {counted(served, 'exchange')} answered from"
            f" tapes{live}" + (f", {money(usd)} spent" if usd else "")
        )
    left = config.stash.get(UNUSED, [])
    if left:
        done = (
            "deleted"
            if config.getoption("--tracefork-prune")
            else "not of any test (--tracefork-prune deletes them)"
        )
        for path in left:
            reporter.write_line(f"tracefork: {names.said(path, reporter)}: {done}")
