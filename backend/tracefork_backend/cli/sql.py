"""`sql`: a read-only query over the store's views."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ._options import STORE, JsonOption, StoreOption
from ._output import cell, console, print_rows, table


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `-` reads it from standard input.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Ask the store in SQL: runs, exchanges, bodies, messages, tools, spans …"""
    from ..store import open_store

    text = sys.stdin.read() if query == "-" else query
    with open_store(store) as opened:
        relation = opened.sql(text)
        names = list(relation.columns)
        rows = relation.fetchall()
    if as_json:
        print_rows(dict(zip(names, row, strict=True)) for row in rows)
    elif csv:
        import csv as csv_module

        writer = csv_module.writer(sys.stdout)
        writer.writerow(names)
        writer.writerows(rows)
    else:
        numbers = [
            name
            for at, name in enumerate(names)
            if rows and all(isinstance(row[at], int | float) or row[at] is None for row in rows)
        ]
        made = table(*names, right=numbers, grow=set(names) - set(numbers))
        for row in rows:
            made.add_row(*(cell(value) for value in row))
        console().print(made)
