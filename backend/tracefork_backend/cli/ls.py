"""`ls`: the runs of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from ..spelling import money
from .flags.options import STORE, JsonOption, StoreOption
from .opening import reading
from .output import ago, cell, console, duration, print_rows, say, table


def ls(
    store: StoreOption = STORE,
    every: Annotated[bool, typer.Option("--all", help="Replays and trials too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    with reading(store) as opened:
        rows = opened.ask("runs_listed", every=every, limit=limit)
        losses = opened.losses()
    if as_json:
        return print_rows(rows)
    if not rows:
        say(f"no runs in {store}: record one with `tracefork-otel run -- python agent.py`")
    else:
        shown = table(
            "RUN", "WHEN", "NAME", "KIND", "STEPS", "IN", "OUT", "COST", "TIME", "STATUS", "",
            right=("STEPS", "IN", "OUT", "COST", "TIME"),
        )  # fmt: skip
        for row in rows:
            shown.add_row(
                str(row["run_id"])[:8],
                ago(row["started_at"]),
                cell(row["name"], 40),
                cell(row["kind"]),
                cell(row["steps"]),
                cell(row["input_tokens"]),
                cell(row["output_tokens"]),
                money(row["cost_usd"]),
                duration(row["duration_ms"]),
                cell(row["outcome"] if row["outcome"] is not None else row["status"]),
                "" if row["complete"] else "incomplete",
            )
        console().print(shown)
    if losses:
        say(f"{losses} records could not be written: `tracefork-otel doctor` says which and why")
    return None
