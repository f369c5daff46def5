"""What commands print: tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from ..spelling import short

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FINDING = 1
"""Exit status of a finding: drift, damage, a wrong number."""
FAILED = 3
"""Exit status where the agent, the model or the machine failed."""
PIPE_WIDTH = 200
"""Columns to lay tables out for where stdout is no terminal and COLUMNS says nothing."""


def console() -> Console:
    """Return a console on standard output, as wide as the terminal or wide enough for a pipe."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    return Console(width=width, highlight=False, soft_wrap=False)


def table(*columns: str, right: Iterable[str] = (), grow: Iterable[str] = ()) -> Table:
    """Return an empty table with these headings, `right` aligned so; those in `grow` may fold over lines."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    numbers, growing = set(right), set(grow)
    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for name in columns:
        made.add_column(
            name,
            justify="right" if name in numbers else "left",
            no_wrap=name not in growing,
            overflow="fold" if name in growing else "ellipsis",
        )
    return made


def print_narrow(made: Table) -> None:
    """Print the table, of which only the last column gives way where the terminal is narrow."""
    shown = console()
    room = shown.width
    for column in made.columns[:-1]:
        column.min_width = max(len(str(text)) for text in (column.header, *column.cells))
        room -= column.min_width + 2
    made.columns[-1].max_width = max(10, room)
    shown.print(made)


def print_json(value: object) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")


def print_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        print_json(row)


def say(message: str) -> None:
    """Print a line of progress or advice on standard error."""
    sys.stderr.write(message + "\n")


def cell(value: object, limit: int = 400) -> str:
    """Return a value as a table shows it: short, on one line, NULL as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, bytes):
        text = f"{len(value)} bytes"
    elif isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, default=_plain)
    else:
        text = str(value)
    return short(text, limit)


def ago(then: datetime) -> str:
    """Return how long ago that was, in one unit; `then` is UTC."""
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{int(seconds)}s ago"


def duration(milliseconds: float | None) -> str:
    """Return a duration for people, nothing where it is not known."""
    if milliseconds is None or math.isnan(milliseconds):
        return ""
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
    if isinstance(value, bytes):
        import base64

        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):
        return float(value)
    return str(value)
