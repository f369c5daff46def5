"""The columns of the store's tables, each told once: segments, live tables, WALs and tapes follow from these.

A new field of an exchange is a field of `exchange.Ending` and an `optional` line of `EXCHANGES`: segments of
earlier versions lack it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from ..exchange import Body, Exchange, Headers, Response, request_of
from .json_text import to_json

FORMAT = 1
"""Of a segment; its entry in the manifest says it where it is another one."""
FACTS_VERSION = 10
"""Grows when other facts are read from the same bytes: facts of other versions are read anew."""
Parts: TypeAlias = dict[str, dict[str, Any]]
"""Fields by name: those of an exchange under "", of its request and response under `request`, `response`."""


def _as_is(value: Any) -> Any:
    return value


def _headers(pairs: Iterable[Iterable[str]]) -> Headers:
    return tuple((name, value) for name, value in pairs)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError
    return to_json(value) if isinstance(value, list | dict) else str(value)


def _whole(bits: int) -> Callable[[Any], int]:
    limit = 1 << (bits - 1)

    def fit(value: Any) -> int:
        # A time of day as a float is what `time.time()` gives.
        found = int(value) if isinstance(value, float) else value
        if not isinstance(found, int) or isinstance(found, bool) or not -limit <= found < limit:
            raise ValueError
        return found

    return fit


def _of(kind: type) -> Callable[[Any], Any]:
    def fit(value: Any) -> Any:
        if not isinstance(value, kind):
            raise ValueError
        return tuple(value) if kind is list else value

    return fit


_pair = _of(list)


def _each(fit: Callable[[Any], Any]) -> Callable[[Any], Any]:
    listed = _of(list)
    return lambda value: tuple(map(fit, listed(value)))


def _header_line(value: Any) -> tuple[str, str]:
    name, said = _pair(value)
    return _text(name), _text(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Type:
    """What a column holds."""

    arrow: str
    sql: str
    many: bool = False
    """Whether it holds a list of these."""
    texts: tuple[str, ...] = ()
    """The fields of a struct of texts."""
    json: bool = False
    """Whether it is kept as JSON text in a table."""
    restored: Callable[[Any], Any] = _as_is
    """Gives a value as records have it, out of one that was read from JSON or from a list."""
    encoding: str | None = None
    """How Parquet lays it out where not as a dictionary; None: plainly."""
    fit: Callable[[Any], Any] = _as_is
    """Gives a value out of JSON as records have it; raises where a column of this type cannot hold it."""
    empty: object = None
    """What stands for a value that does not fit, where there must be one."""

    def held(self, values: list[Any]) -> list[Any]:
        """Return values as a table holds them; a value that does not fit its column is dealt with here."""
        return [None if value is None else to_json(value) for value in values] if self.json else values

    @property
    def reads(self) -> bool:
        """Whether records have a value otherwise than a table holds it."""
        return self.json or self.restored is not _as_is

    def read(self, held: Any) -> Any:
        """Return the value that a table holds as records have it."""
        if held is None:
            return None
        return self.restored(json.loads(held) if self.json else held)


_DELTA = "DELTA_BINARY_PACKED"
TEXT = Type(arrow="string", sql="VARCHAR", fit=_text, empty="")
BOOLEAN = Type(arrow="bool", sql="BOOLEAN", fit=_of(bool), empty=False)
SHORT = Type(arrow="int16", sql="SMALLINT", fit=_whole(16), empty=0)
INTEGER = Type(arrow="int32", sql="INTEGER", encoding=_DELTA, fit=_whole(32), empty=0)
LONG = Type(arrow="int64", sql="BIGINT", encoding=_DELTA, fit=_whole(64), empty=0)
DOUBLE = Type(arrow="double", sql="DOUBLE")
BYTES = Type(arrow="binary", sql="BLOB")
DIGEST = Type(arrow="digest", sql="BLOB")
PIECE = Type(arrow="string", sql="VARCHAR", encoding="DELTA_LENGTH_BYTE_ARRAY")
_MANY: dict[str, Any] = {"many": True, "restored": tuple, "encoding": _DELTA, "empty": ()}
INTEGERS = Type(arrow="int32", sql="INTEGER[]", fit=_each(_whole(32)), **_MANY)
LONGS = Type(arrow="int64", sql="BIGINT[]", fit=_each(_whole(64)), **_MANY)
_JSON: dict[str, Any] = {"arrow": "string", "sql": "VARCHAR", "json": True}
OBJECT = Type(fit=_of(dict), empty={}, **_JSON)
LIST = Type(restored=tuple, fit=_of(list), empty=(), **_JSON)
TEXTS = Type(restored=tuple, fit=_each(_text), empty=(), **_JSON)
HEADERS = Type(restored=_headers, fit=_each(_header_line), empty=(), **_JSON)
SAID = Type(
    arrow="struct",
    many=True,
    texts=("role", "kind", "name", "content"),
    sql="STRUCT(role VARCHAR, kind VARCHAR, name VARCHAR, content VARCHAR)[]",
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and where else its value stands."""

    name: str
    type: Type
    path: str = field(default="", kw_only=True)
    """Where a record has it, as `response.status`; its name by default."""
    start: str = field(default="", kw_only=True)
    """Its key in a WAL's record of a request, as `http.1` if it is in a list there; empty: not in it."""
    end: str | None = field(default=None, kw_only=True)
    """Its key in a WAL's record of a response, empty if not in it; by default its name if it has no start."""
    tape: Literal["set", "always", "placed", "never"] = field(default="set", kw_only=True)
    """Whether a tape's line of an exchange has it: where set, always, at a place of its own, or never."""
    repeats: bool = field(default=False, kw_only=True)
    """Whether few values come often, so that Parquet keeps a dictionary of them."""
    optional: bool = field(default=False, kw_only=True)
    """Whether segments of earlier versions lack it; its value is then the field's default."""

    at: tuple[str, str] = field(init=False, compare=False)
    """The part of an exchange (`request`, `response`, or empty) that has it, and its name there."""

    def __post_init__(self) -> None:
        part, _, leaf = (self.path or self.name).rpartition(".")
        object.__setattr__(self, "at", (part, leaf))

    def values(self, records: Sequence[Any]) -> list[Any]:
        """Return what the records have; None for those that lack the part."""
        part, leaf = self.at
        if part != "response":
            return list(map(attrgetter(self.path or self.name), records))
        read = attrgetter(leaf)
        return [None if one.response is None else read(one.response) for one in records]

    @property
    def ends(self) -> str:
        """Its key in a WAL's record of a response; empty where it is not in it."""
        return ("" if self.start else self.name) if self.end is None else self.end


EXCHANGES = (
    Column("trace_id", TEXT, start="trace", tape="placed", repeats=True),
    Column("span_id", TEXT, start="span", end="span", tape="always"),
    Column("parent_span_id", TEXT, start="parent", tape="always"),
    Column("process_id", TEXT, end="", tape="always", repeats=True),
    Column("seq", INTEGER, start="seq", tape="always"),
    Column("started_ns", LONG, start="at", tape="always"),
    Column("ended_ns", LONG, end="at", tape="always"),
    Column("method", TEXT, path="request.method", start="method", tape="placed", repeats=True),
    Column("url", TEXT, path="request.url", start="url", tape="placed", repeats=True),
    Column("request_headers", HEADERS, path="request.headers", start="headers", tape="placed"),
    Column(
        "hidden", TEXTS, path="request.hidden", start="hidden", tape="placed", repeats=True, optional=True
    ),
    Column("status_code", SHORT, path="response.status", end="http.0", tape="placed", repeats=True),
    Column("http_version", TEXT, path="response.http_version", end="http.1", tape="placed", repeats=True),
    Column("response_headers", HEADERS, path="response.headers", end="http.2", tape="placed"),
    Column("outcome", TEXT, end="outcome", tape="placed", repeats=True),
    Column("error_type", TEXT, end="error.0", repeats=True),
    Column("error_message", TEXT, end="error.1", repeats=True),
    Column("intervention", TEXT, end="served.2", repeats=True),
    Column("served_span_id", TEXT, end="served.1"),
    Column("name", TEXT, start="name", end="name", repeats=True),
    Column("service", TEXT, start="service", repeats=True),
    Column("span_status", TEXT, end="status", tape="always", repeats=True),
    Column("attributes", OBJECT, tape="always"),
    Column("links", LIST, tape="never", repeats=True),
    Column("replayed", BOOLEAN, start="replayed", end="served.0", tape="placed"),
    Column("request_sha256", DIGEST, end="", tape="placed"),
    Column("request_length", LONG, end="", tape="placed"),
    Column("request_parts", INTEGERS, end="", tape="placed"),
    Column("response_sha256", DIGEST, end="", tape="placed"),
    Column("response_length", LONG, end="", tape="placed"),
    Column("response_parts", INTEGERS, end="", tape="placed"),
    Column("chunk_sizes", INTEGERS, path="response.chunk_sizes", end="chunks.0", tape="placed"),
    Column("chunk_offsets_us", LONGS, path="response.chunk_offsets_us", end="chunks.1", tape="placed"),
    Column("span_trace_id", TEXT, start="own", optional=True),
    Column(
        "reason_phrase",
        TEXT,
        path="response.reason_phrase",
        end="reason",
        tape="placed",
        repeats=True,
        optional=True,
    ),
    Column("stream_id", LONG, path="response.stream_id", end="stream", tape="placed", optional=True),
    Column("site", TEXT, repeats=True, optional=True),
    Column("damage", TEXT, end="", tape="never"),
)
BODY_COLUMNS = frozenset(
    f"{side}_{what}" for side in ("request", "response") for what in ("sha256", "length", "parts")
)
"""Those of `EXCHANGES` that a body has once it is stored."""
PLAIN = tuple(column for column in EXCHANGES if column.name not in BODY_COLUMNS)
SPANS = (
    Column("trace_id", TEXT, repeats=True),
    Column("span_id", TEXT),
    Column("parent_span_id", TEXT),
    Column("process_id", TEXT, repeats=True),
    Column("name", TEXT, repeats=True),
    Column("kind", TEXT, repeats=True),
    Column("started_ns", LONG),
    Column("ended_ns", LONG),
    Column("status", TEXT, repeats=True),
    Column("status_message", TEXT, repeats=True),
    Column("service", TEXT, repeats=True),
    Column("scope", TEXT, repeats=True),
    Column("attributes", OBJECT),
    Column("events", LIST),
    Column("links", LIST, repeats=True),
)
CHUNKS = (Column("no", INTEGER), Column("text", PIECE), Column("data", BYTES))
FACTS = (
    Column("trace_id", TEXT),
    Column("span_id", TEXT),
    Column("provider", TEXT),
    Column("operation", TEXT),
    Column("model", TEXT),
    Column("response_model", TEXT),
    Column("finish_reason", TEXT),
    Column("input_tokens", LONG),
    Column("output_tokens", LONG),
    Column("cached_tokens", LONG),
    Column("cost_usd", DOUBLE),
    # Why the cost is not known, and the name of a response that other exchanges may fetch again.
    Column("cost_reason", TEXT),
    Column("stored_id", TEXT),
    Column("streamed", BOOLEAN),
    Column("response_text", TEXT),
    # What was asked and said, as pairs of a first and a last number; and the messages that have their numbers
    # from here, for none stands twice.
    Column("messages", INTEGERS),
    Column("first_no", INTEGER),
    Column("said", SAID),
)
TABLES: dict[str, tuple[Column, ...]] = {
    "exchanges": EXCHANGES,
    "spans": SPANS,
    "chunks": CHUNKS,
    "facts": FACTS,
}
"""The columns of each kind of file that a segment has."""


def nullable(cls: type) -> frozenset[str]:
    """Return the fields of a record's class that may be None."""
    return frozenset(spec.name for spec in fields(cls) if "None" in str(spec.type))


def unlike(table: str, found: Mapping[str, object], kind_of: Callable[[Type], object]) -> str | None:
    """Return how the columns of a file (kinds by name) are not those of its table; None if they are.

    `kind_of` gives the kind of a type, as whoever has read the file names kinds.
    """
    lacking = [one.name for one in TABLES[table] if not one.optional and one.name not in found]
    if lacking:
        return f"this is no {table} file of a segment, it lacks {', '.join(sorted(lacking))}"
    for column in TABLES[table]:
        if column.name in found and found[column.name] != kind_of(column.type):
            return f"this is no {table} file of a segment, its {column.name} is {found[column.name]}"
    return None


def assembled(values: Mapping[str, Any], sent: bytes | Body, received: Callable[[], bytes]) -> Exchange:
    """Return the exchange of values by column, as records have them, and its bodies.

    That of the request may be what gives it each time it is asked for. A field whose column has no value has
    its default.
    """
    parts: Parts = {"": {}, "request": {}, "response": {}}
    for column in PLAIN:
        if column.name in values:
            part, leaf = column.at
            parts[part][leaf] = values[column.name]
    request = request_of(body=sent, **parts["request"])
    answered = values.get("status_code") is not None
    response = Response(body=received(), **parts["response"]) if answered else None
    return Exchange(request=request, response=response, **parts[""])
