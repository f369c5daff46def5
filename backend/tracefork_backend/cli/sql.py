"""`sql`: a read-only query over the store's views."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .flags.options import STORE, JsonOption, StoreOption, StrictOption, valued
from .interrupt import at_last
from .opening import reading, told
from .output import cell, console, print_rows, print_text, table
from .terminal import unguarded


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from standard input.")],
    store: StoreOption = STORE,
    strict: StrictOption = False,
    as_json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    timeout: Annotated[
        float, valued("--timeout", "SECONDS", "End the query after this long.", min=0.01)
    ] = 300.0,
    memory: Annotated[str, valued("--memory", "SIZE", "What it may hold at once: 2GB, 500MB, 25% …")] = "50%",
) -> None:
    """Ask the store in SQL: runs, exchanges, bodies, messages, tools, spans …"""
    text = sys.stdin.read() if query == "-" else query
    with reading(store, strict=strict, memory=memory) as opened:
        opened.current()  # what is sealed on the way is no time of the query's
        with at_last(timeout):
            answer = opened.answer(text, seconds=timeout)
        names, rows = list(answer.columns), answer.rows
        if as_json:
            print_rows(dict(zip(names, row, strict=True)) for row in rows)
            print_rows(filter(None, [told(opened)]))
        elif csv:
            import csv as csv_module

            writer = csv_module.writer(sys.stdout if sys.stdout.isatty() else unguarded(sys.stdout))
            writer.writerow(names)
            writer.writerows(rows)
        else:
            _print(names, rows)


def _print(names: list[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows as a table, or one column a line where a table of them would not fit."""
    out = console()
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, (name, *column))) for name, *column in zip(names, *texts, strict=True)]
    if sum(widths) + 3 * len(widths) > out.width and len(names) > 2:
        wide = max(map(len, names))
        for number, row in enumerate(texts):
            out.print(f"-- row {number}")
            for name, value in zip(names, row, strict=True):
                print_text(f"{name:{wide}}  {value}")
        return
    numbers = [
        name
        for at, name in enumerate(names)
        if rows and all(isinstance(row[at], int | float) or row[at] is None for row in rows)
    ]
    made = table(*names, right=numbers, grow=set(names) - set(numbers))
    for row in texts:
        made.add_row(*row)
    out.print(made)
