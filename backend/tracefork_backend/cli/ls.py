"""`ls`: the runs of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ..spelling import at_least, counted, outcome_word
from ..store.listing import Ended, Status, Wanted, runs_listed
from ..store.store import Kind
from .flags.options import STORE, JsonOption, StoreOption, StrictOption, choice, moment, valued
from .opening import missing, reading, told
from .output import cell, console, duration, print_rows, run_cells, say, table


def ls(
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Runs that have this in name, command or function.")
    ] = None,
    *,
    store: StoreOption = STORE,
    every: Annotated[bool, typer.Option("--all", help="Replays and trials too.")] = False,
    kind: Annotated[Kind | None, choice("--kind", Kind, "Runs of this kind alone.")] = None,
    status: Annotated[Status | None, choice("--status", Status, "Runs that ended so.")] = None,
    outcome: Annotated[Ended | None, choice("--outcome", Ended, "Runs that an oracle graded so.")] = None,
    model: Annotated[
        str | None, valued("--model", "TEXT", "Runs that asked a model with this in its name.")
    ] = None,
    since: Annotated[
        str | None, valued("--since", "DATE", "Begun then or later, UTC: `2026-11-03`, `2026-11-03T14:30`.")
    ] = None,
    before: Annotated[str | None, valued("--before", "DATE", "Begun before it, UTC.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, newest first.")] = 20,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the runs, newest first."""
    with reading(store, strict=strict) as opened:
        wanted = Wanted(
            text=text,
            kind=kind,
            status=status,
            outcome=outcome,
            model=model,
            since=moment("--since", since) if since else None,
            before=moment("--before", before) if before else None,
            every=every,
        )
        rows = runs_listed(opened, wanted, limit=limit)
        losses = opened.losses()
        if as_json:
            print_rows([*rows, *filter(None, [told(opened)])])
        elif rows:
            _print(rows)
        elif wanted.narrows:
            more = "" if every or kind is not None else "; --all looks at replays and trials too"
            say(f"no run is like that{more}")
        elif not missing(opened):
            say(f"no runs in {store}: record one with `tracefork-otel run -- python agent.py`")
        if losses and not as_json:
            say(f"{counted(losses, 'record')} lost: `tracefork-otel doctor` says which and why")


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = table(
        "RUN", "WHEN", "NAME", "KIND", "STEPS", "IN", "OUT", "COST", "TIME", "STATUS", "",
        right=("STEPS", "IN", "OUT", "COST", "TIME"),
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            *run_cells(row),
            cell(row["input_tokens"]),
            cell(row["output_tokens"]),
            at_least(row["cost_usd"], row["unpriced"]),
            duration(row["duration_ms"]),
            outcome_word(row["outcome"], cell(row["status"])),
            "incomplete" if not row["complete"] else "maybe incomplete" if row["unseen"] else "",
        )
    console().print(shown)
