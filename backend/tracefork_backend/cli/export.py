"""`export`: the views as tables that other engines read."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ..exporting.export import Exported, Format
from ..exporting.export import export as bring
from ..spelling import counted
from .flags.options import STORE, JsonOption, StoreOption, choice, moment, valued
from .opening import reading, told
from .output import FINDING, console, print_json, say, table


def export(
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder, or for Delta a bucket: s3://bucket/prefix.")
    ],
    to: Annotated[Format, choice("--to", Format, "What it writes.")],
    views: Annotated[
        str | None,
        valued("--views", "NAME,…", "These views; else all but bodies and draws, which are large."),
    ] = None,
    since: Annotated[
        str | None, valued("--since", "DATE", "Look at what began then or later; other days stay.")
    ] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> int:
    """Bring tables of the store's views up to date, for Spark, Polars, ClickHouse, a warehouse.

    Whole days (UTC) are written, and only those that have changed: a second export writes nothing.
    """
    moment_since = None if since is None else moment("--since", since)
    with reading(store) as opened:
        done = bring(opened, destination, to=to, views=views, since=moment_since)
        kept = sorted({day for one in done for day in one.kept})
        if as_json:
            print_json(
                {"to": to, "destination": destination, "views": [asdict(one) for one in done], **told(opened)}
            )
        else:
            _print(done)
        if kept:
            say(f"left as they were, as files of the store cannot be read: {', '.join(kept)}")
    return FINDING if kept else 0


def _print(done: list[Exported]) -> None:
    made = table("VIEW", "ROWS", "WRITTEN", "GONE", right=("ROWS",))
    for one in done:
        made.add_row(one.view, f"{one.rows:,}", _days(one.written), _days(one.gone))
    console().print(made)


def _days(days: tuple[str, ...]) -> str:
    if len(days) < 3:
        return ", ".join(days) or "nothing"
    return f"{counted(len(days), 'day')}, {min(days)} to {max(days)}"
