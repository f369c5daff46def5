"""What reads what a person types: queries, names of runs, paths, values; and prices asked with any counts."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import duckdb
from tracefork_backend import flag
from tracefork_backend.cli import refs
from tracefork_backend.store import guard, prices
from tracefork_backend.store import refs as names

from tracefork_otel.wire.messages import Usage
from tracefork_otel.wire.paths import format_path, parse_path

from .mutating import Input
from .running import Target


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


def query(text: bytes) -> None:
    """A query judged by the guard, which runs nothing of it."""
    guard.check(_database(), text.decode("utf-8", "replace"))


def queries() -> list[Input]:
    """Queries that are asked, and that are refused."""
    found = (
        "select run_id, count(*) from exchanges group by 1 order by 2 desc limit 3",
        "with a as (select * from runs) select a.*, b.x from a, lateral (select 1 as x) b",
        "explain analyze select * from messages where content like '%x%'",
        "select * from read_csv('/etc/passwd')",
        "copy runs to 'x.csv'",
        "select 1; select 2",
        "summarize spans",
        "select * from 'x.parquet'",
        "select json_extract(attributes, '$.a'), unnest([1, 2]) from spans",
        "pivot runs on kind using count(*)",
    )
    return [(text.encode(),) for text in found]


def name_of_run(text: bytes) -> None:
    """A name as it is typed."""
    name = text.decode("utf-8", "surrogateescape")
    run, step = names.parse_ref(name)
    assert step is None or step >= 0
    assert (names.back_of(run) or 0) >= 0
    names.prefix_of(run)
    refs.split(name)


def path_typed(text: bytes) -> None:
    """A JSON path, which comes back the same from what is printed of it."""
    tokens = parse_path(text.decode("utf-8", "surrogatepass") if _valid(text) else text.decode("latin-1"))
    assert parse_path(format_path(tokens)) == tokens


def _valid(text: bytes) -> bool:
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def price(text: bytes) -> None:
    """What odd counts of an odd model cost."""
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(told, list) or len(told) != 4 or not all(isinstance(one, str) for one in told[:2]):
        return
    counts = [one if isinstance(one, int) and 0 <= one < 2**63 else 0 for one in told[2:]]
    used = Usage(input_tokens=counts[0], output_tokens=counts[1], cached_tokens=counts[1])
    cost = prices.usage_price(told[0], [told[1]], used, at=None)
    assert (cost.usd is None) == (cost.reason is not None)
    assert cost.usd is None or cost.usd >= 0


def value_typed(text: bytes) -> None:
    """A value of a flag that is JSON, or JSON at a path."""
    given = text.decode("utf-8", "replace")
    flag.json_or_text(given)
    path, value = flag.assignment(given, "--set", "a=1")
    parse_path(path)
    flag.json_value(given.partition("=")[2], "--set")
    json.dumps(value)


TARGETS = (
    Target(name="sql", corpus=queries, read=query, dear=20),
    Target(
        name="ref",
        corpus=lambda: [
            (b"last~2@3",),
            (b"last",),
            (b"9ab0b14b@0",),
            (b"tapes/a.tape.jsonl@1",),
            (b"last~" + b"9" * 5000,),
        ],
        read=name_of_run,
    ),
    Target(
        name="path",
        corpus=lambda: [(b"messages[*].content",), (b'$.a["b c"][0]',), (b"**.x",), (b'["a\\"b"].c',)],
        read=path_typed,
    ),
    Target(
        name="value",
        corpus=lambda: [(b'a.b[0]={"x": 1}',), (b'["a=b"].c=text',), (b"a=1e5",)],
        read=value_typed,
    ),
    Target(
        name="price",
        corpus=lambda: [
            (json.dumps([host, model, 1000, 10]).encode(),)
            for host, model in (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("acme", "m"))
        ],
        read=price,
        dear=5,
    ),
)
