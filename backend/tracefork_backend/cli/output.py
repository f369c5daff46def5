"""What commands print: tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ..spelling import json_line, plain, run_name, short, visible
from .terminal import unguarded

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

FINDING = 1
"""Exit status of a finding: drift, damage, a wrong number."""
FAILED = 3
"""Exit status where the agent, the model or the machine failed."""
PIPE_WIDTH = 200
"""Columns to lay tables out for where stdout is no terminal and COLUMNS says nothing."""
LOG_EVERY_S = 60.0
"""Seconds between two lines on a long work's way, where a log is kept of standard error."""


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes all text as it is, as wide as the terminal or wide enough for a pipe."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **how: Any) -> Any:
            return super().render_str(visible(text), **how)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    return Plain(file=unguarded(stream), width=width, highlight=False, markup=False, emoji=False)


class Tell(Protocol):
    """What is told how far a long work is."""

    def __call__(self, line: str, picture: RenderableType | None = None) -> None:
        """Show the picture, or the line where there is none or standard error is no terminal."""


@contextmanager
def growing(begin: str, *, per_second: int = 4) -> Iterator[Tell]:
    """Give what shows how far a long work is: on a terminal at any time, in a log by a line a minute.

    It goes to standard error. What stood on a terminal is gone at the end.
    """
    if not sys.stderr.isatty():
        yield _a_line_a_minute()
        return
    from rich.live import Live

    # Redirected, whatever is printed meanwhile would go round the guard that stands before a terminal.
    with Live(
        begin,
        console=console(stderr=True),
        refresh_per_second=per_second,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as shown:
        yield lambda line, picture=None: shown.update(line if picture is None else picture)


def _a_line_a_minute() -> Tell:
    last = time.monotonic()

    def tell(line: str, picture: RenderableType | None = None) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= LOG_EVERY_S:
            last = now
            say(visible(line.partition("\n")[0]))
            sys.stderr.flush()

    return tell


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


def print_text(text: str) -> None:
    """Print the text as it is, its long lines whole."""
    # Not by `rich`, which lays a body out word by word: half a megabyte took it 0.2 s.
    unguarded(sys.stdout).write(visible(text) + "\n")


def print_json(value: object) -> None:
    """Print one JSON value on one line."""
    unguarded(sys.stdout).write(json_line(value) + "\n")


def print_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Print one JSON object a line."""
    for row in rows:
        print_json(row)


def say(message: str) -> None:
    """Print a line of progress or advice on standard error."""
    sys.stderr.write(message + "\n")


def say_drift(text: str) -> None:
    """Say on standard error how an agent leaves its tape, while it is still at work."""
    say(visible(f"drift   {text}"))
    sys.stderr.flush()


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
        text = json.dumps(value, ensure_ascii=False, default=plain)
    else:
        text = str(value)
    return short(text, limit)


def run_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a table shows of a run first: RUN, WHEN, NAME, KIND and STEPS."""
    name, kind, steps = cell(row["name"], 40), cell(row["kind"]), cell(row["steps"])
    return run_name(str(row["run_id"])), ago(row["started_at"]), name, kind, steps


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
