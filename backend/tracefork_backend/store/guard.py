"""Which SQL a user may run: one SELECT over the views, nothing that writes, reads a file or sets anything.

Three fences, each there for what the others might miss: the statement's syntax tree is checked here, it runs
in a read-only transaction, and the database opens no file but those of the segments (`_connection`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from tracefork_otel.errors import UsageError

from .statements import statement

QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""The parts a SELECT is made of; INSERT, UPDATE and DELETE have nodes of their own, also inside WITH."""
TABLE_FUNCTIONS = frozenset(
    (
        *("unnest", "range", "generate_series", "repeat", "json_each", "json_tree", "summary"),
        *("duckdb_columns", "duckdb_tables", "duckdb_views", "duckdb_functions", "duckdb_types"),
        *("duckdb_keywords", "pragma_table_info", "pragma_version"),
    )
)
"""Table functions that read neither files nor text that is SQL itself."""
FUNCTIONS = frozenset(
    (
        *("current_setting", "getenv", "getvariable", "nextval", "setval", "which_secret", "write_log"),
        "json_serialize_plan",
    )
)
"""Functions that tell or change what is not the store's; the last runs what it can of a text that is SQL."""
_OF_DUCKDB = re.compile(r"duckdb_|pragma_|pg_settings$")
"""Views of DuckDB's own, which are as their table functions are."""
_GAP = r"(?:\s|--[^\n\r]*[\n\r]|/\*(?:(?!/\*|\*/).)*\*/)"
"""Space, or a comment, but none that holds another: where that ends only the parser knows."""
_EXPLAIN = re.compile(
    rf"{_GAP}*explain\b"
    rf"(?:{_GAP}*analy[sz]e\b)?"
    rf"(?:{_GAP}*\({_GAP}*(?:analy[sz]e|format)\b(?:\w|,|'\w*'|{_GAP})*\))?",
    re.IGNORECASE | re.DOTALL,
)
"""What stands before a query that is explained; no character is read in another way than by DuckDB."""
_FILE_LIKE = re.compile(r"[./\\:*]")
"""A table name with one of these would be opened as a file where no table has it."""

ONLY_VIEWS = "a query reads the store's views and nothing else"
ONE_SELECT = "write one SELECT (or EXPLAIN, DESCRIBE, SUMMARIZE) over the views"


def check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise UsageError, saying what is refused, if the query does anything but read the views."""
    explain = _EXPLAIN.match(query)
    text = query[explain.end() :] if explain else query
    try:
        rows = connection.execute(statement("parse"), {"query": text}).fetchall()
    except duckdb.Error as error:
        raise UsageError(f"the query cannot be parsed: {first_line(error)}") from error
    try:
        tree = json.loads(rows[0][0])
    except RecursionError:
        raise UsageError("the query is nested too deep") from None
    if tree.get("error"):
        said = str(tree.get("error_message", ""))
        if "Only SELECT" in said:
            raise UsageError(f"the store is read-only, this is no SELECT; {ONE_SELECT}")
        raise UsageError(f"the query cannot be parsed: {said}")
    if len(tree.get("statements", ())) != 1:
        raise UsageError(f"these are {len(tree.get('statements', ()))} statements; {ONE_SELECT}")
    for node in _nodes(tree):
        _check_node(node)


def _check_node(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return
    if kind.endswith("_NODE") and kind not in QUERY_NODES:
        raise UsageError(f"the store is read-only: {kind.partition('_')[0]} is refused; {ONE_SELECT}")
    if kind == "TABLE_FUNCTION":
        function = node.get("function") or {}
        name = str(function.get("function_name", "")).lower()
        if name not in TABLE_FUNCTIONS:
            raise UsageError(f"{name}() is refused: {ONLY_VIEWS}")
    if kind == "BASE_TABLE":
        path = (node.get("qualified_name") or {}).get("path") or [node.get("table_name", "")]
        named = next((str(part) for part in path if _FILE_LIKE.search(str(part))), None)
        if named is not None:
            raise UsageError(f"{named!r} is refused: a query reads the store's views and no files")
        last = str(path[-1]).lower()
        if _OF_DUCKDB.match(last) and last not in TABLE_FUNCTIONS:
            raise UsageError(f"{last} is refused: {ONLY_VIEWS}")
    if kind == "FUNCTION":
        name = str(node.get("function_name", "")).lower()
        if name in FUNCTIONS:
            raise UsageError(f"{name}() is refused: {ONLY_VIEWS}")


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    # A loop, not recursion: a query may nest deeper than Python's stack.
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def first_line(error: BaseException) -> str:
    """Return what a library says, on one line and without DuckDB's pointer into the query."""
    return " ".join(str(error).partition("\n\n")[0].split())
