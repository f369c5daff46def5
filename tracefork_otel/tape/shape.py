"""What a tape's lines may hold: the shape of each, declared once and checked when a tape is read."""

from __future__ import annotations

from base64 import b64decode
from typing import get_args

from ..errors import TapeError
from ..exchange import Outcome
from ..shapes import Shape, boolean, many, named, number, optional, record, row, string, text, tree
from ..state.kept import kept_of
from ..store.columns import (
    BOOLEAN,
    EXCHANGES,
    HEADERS,
    INTEGER,
    INTEGERS,
    LIST,
    LONG,
    LONGS,
    OBJECT,
    SHORT,
    TEXT,
    TEXTS,
    Type,
)
from .file import CutShort
from .reads import TOOL_FORMS
from .start import given_input

_TRACE = text(r"[0-9a-f]{32}", "a run's id")
_SPAN = text(r"[0-9a-f]{16}", "a span's id")
_ANY = string()
_WORD = string(without="\0")
"""Of a command, a folder or an environment: the system takes no NUL there."""
_COUNT = number()
_TIME = number(-(2**63))
_OBJECT = tree(dict)
_HEADER_LINES = many(row(_ANY, _ANY))
_NULL = ("parent_span_id", "ended_ns")
_NUMBERS = many(number(0, 2**31 - 1))
_TIMES = many(_TIME)
_TYPES: tuple[tuple[Type, Shape], ...] = (
    (TEXT, _ANY),
    (BOOLEAN, boolean),
    (SHORT, number(-(2**15), 2**15 - 1)),
    (INTEGER, number(-(2**31), 2**31 - 1)),
    (LONG, _TIME),
    (INTEGERS, _NUMBERS),
    (LONGS, _TIMES),
    (OBJECT, _OBJECT),
    (LIST, tree(list)),
    (TEXTS, many(_ANY)),
    (HEADERS, _HEADER_LINES),
)


def _of_columns(how: str) -> dict[str, Shape]:
    """Return the shapes of the columns that a tape's line has so."""
    shapes = {id(kind): shape for kind, shape in _TYPES}
    found = {one.name: shapes[id(one.type)] for one in EXCHANGES if one.tape == how}
    return {name: optional(shape) if name in _NULL else shape for name, shape in found.items()}


def _stdin(value: object) -> str:
    kept = _ANY(value)
    try:
        given_input(kept)
    except TapeError as error:
        raise ValueError(str(error)) from None
    return kept


def _base64(value: object) -> str:
    text = _ANY(value)
    b64decode(text, validate=True)
    return text


def _state(value: object) -> str:
    kept = _ANY(value)
    try:
        kept_of(kept)
    except TapeError as error:
        raise ValueError(str(error)) from None
    return kept


_START = record(
    {
        "command": optional(many(_WORD)),
        "cwd": optional(_WORD),
        "environment": named(_WORD, string(without="\0=")),
        "withheld": many(string(without="\0=")),
        "entrypoint": optional(_WORD),
        "arguments": tree(),
        "git_commit": optional(_ANY),
        "versions": named(_ANY),
        "exit_status": optional(number(-(2**31), 2**31 - 1)),
    }
)
_NOTE = record(
    {"kind": _ANY, "time_ns": _TIME},
    {"trace_id": optional(_ANY), "attributes": _OBJECT, "process_id": _ANY},
)
MANIFEST = record(
    {
        "tracefork_tape": _COUNT,
        "run_id": _TRACE,
        "name": _ANY,
        "digest": _ANY,
        "chunks": _COUNT,
        "exchanges": _COUNT,
        "start": _START,
        "notes": many(_NOTE),
    },
    {
        "draws": _COUNT,
        "tools": _COUNT,
        "mark": _ANY,
        "script": optional(_WORD),
        "stdin": _stdin,
        "stdin_kind": _ANY,
        "stdin_lost": _ANY,
        "arguments_lost": _ANY,
        "state": _state,
        "state_lost": _ANY,
        "changes": _ANY,
        "changes_lost": _ANY,
        "files": named(_base64),
        "cut_short": text("|".join(get_args(CutShort)), "why a recording was cut short"),
        "left_ns": _TIME,
    },
)

_BODY = {"lines": many(row(_COUNT, _COUNT)), "bytes": _COUNT, "sha256": _ANY}
_RESPONSE = record(
    {**_BODY, "chunk_sizes": _NUMBERS, "chunk_offsets_us": _TIMES, "http_version": _ANY},
    {"reason_phrase": _ANY, "stream_id": _COUNT},
)
EXCHANGE = record(
    {
        **_of_columns("always"),
        "span_id": _SPAN,
        "step": _COUNT,
        "method": _ANY,
        "url": _ANY,
        "outcome": text("|".join(get_args(Outcome)), "how an exchange ends"),
        "request": record(_BODY),
        "request_headers": _HEADER_LINES,
        "chain": _ANY,
    },
    {
        **_of_columns("set"),
        "status": number(0, 2**15 - 1),
        "hidden": many(_ANY),
        "response": _RESPONSE,
        "response_headers": _HEADER_LINES,
        "trace_id": _TRACE,
        "replayed": boolean,
    },
)

DRAWS = record({"process": _ANY, "lane": _ANY, "draws": many(row(_ANY, _ANY, _TIME, tree()))})
TOOL = record(
    {
        "tool": _ANY,
        "arguments": _OBJECT,
        "span_id": _SPAN,
        "process_id": _ANY,
        "started_ns": _TIME,
        "ended_ns": _TIME,
    },
    {
        "by_text": many(_ANY),
        "exchanges": _COUNT,
        "inside": optional(_ANY),
        **{form: _ANY if form == "text" else tree() for form in TOOL_FORMS},
    },
)
