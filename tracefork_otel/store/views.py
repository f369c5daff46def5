"""The SQL of the views, in which the live tables have the columns that segments have."""

from __future__ import annotations

from functools import cache
from importlib import resources

from .columns import FACTS_VERSION, FORMAT, TABLES, Column


@cache
def source(name: str) -> str:
    """Return a file of SQL: `{exchanges}` are that table's columns, `{mixed}` if files may lack some."""
    text = (resources.files("tracefork_otel.store") / "sql" / name).read_text("utf-8")
    for table, columns in TABLES.items():
        text = text.replace(f"{{{table}}}", ", ".join(map(_declared, columns)))
    # Reading files of different columns costs more: only once a version has added one.
    mixed = any(column.optional for columns in TABLES.values() for column in columns)
    return (
        text.replace("{mixed}", str(mixed).lower())
        .replace("{format}", str(FORMAT))
        .replace("{version}", str(FACTS_VERSION))
    )


def _declared(column: Column) -> str:
    return f"{column.name} {column.type.sql}"
