"""Logs as nobody of ours writes them: right checksums, and whatever in the records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from zlib import crc32

import tracefork_backend
from hypothesis import strategies as st
from wal_samples import exchange_records, process

import tracefork_otel
from tracefork_otel.store.codec import FRAME, HEADER, MAGIC, encode
from tracefork_otel.store.delta import Delta
from tracefork_otel.store.records import Note, Record, Rotated, SpanRecord
from tracefork_otel.wire.json_values import mapping

START, END = exchange_records(0, b"question", b"answer")
SPAN = SpanRecord(
    trace_id=START.trace_id, span_id="aa" * 8, parent_span_id=None, name="plan", kind="INTERNAL", started_ns=1
)
RECORDS: list[Record] = [
    process(),
    START,
    END,
    SPAN,
    Note(kind="lost", time_ns=1),
    Rotated(to="4711-0badcafe-1.wal"),
]
DEEP: Any = 1
for _ in range(300):
    DEEP = [DEEP] if _ % 2 else {"a": DEEP}
_ODD = st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, "\ud800", "\0", "{", "[1]", '{"a": 1}', DEEP])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | _ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
"""Any tree of JSON values, and what Python's JSON knows besides."""


_NAME = re.compile(r"[\"']((?:tracefork|gen_ai)\.[a-z._]+)[\"']")


def _names() -> list[str]:
    """The names of attributes that the code asks for."""
    found: set[str] = set()
    for package in (tracefork_otel, tracefork_backend):
        for path in Path(str(package.__file__)).parent.rglob("*.[ps][yq]*"):
            found |= set(_NAME.findall(path.read_text("utf-8", "replace")))
    return sorted(found)


ATTRIBUTES = st.dictionaries(st.sampled_from(_names()), JSON, max_size=4)
"""Values of any kind under names that mean something."""


def header_of(record: Record) -> tuple[dict[str, Any], bytes]:
    """The header of a record, and its bodies."""
    framed = b"".join(encode(record, Delta(-1, 0, 0, -1)))[FRAME.size :]
    length = HEADER.unpack_from(framed)[0]
    return json.loads(framed[HEADER.size : HEADER.size + length]), framed[HEADER.size + length :]


def frame(header: object, bodies: bytes = b"") -> bytes:
    """A record with a right checksum; bytes are its header as they are."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    payload = HEADER.pack(len(text)) + text + bodies
    return FRAME.pack(len(payload), crc32(payload)) + payload


def whole() -> list[bytes]:
    """The records of one exchange as they should be."""
    return [frame(*header_of(record)) for record in (START, END)]


def forged(store: Path, frames: list[bytes]) -> Path:
    """A log of a process that is gone, with those records after the one that begins it."""
    path = store / "wal" / "4711-0badcafe-0.wal"
    path.parent.mkdir(parents=True)
    path.write_bytes(MAGIC + frame(*header_of(process())) + b"".join(frames))
    return path


@st.composite
def odd_records(draw: st.DrawFn) -> list[bytes]:
    """Records of every kind in which some values are of any other kind."""
    frames: list[bytes] = []
    for record in draw(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=6)):
        header, bodies = header_of(record)
        for name in draw(st.lists(st.sampled_from(sorted(header)), max_size=3)):
            header[name] = draw(JSON)
        if "attributes" in header or draw(st.booleans()):
            header["attributes"] = {**mapping(header.get("attributes")), **draw(ATTRIBUTES)}
        if draw(st.booleans()):
            header |= draw(st.dictionaries(st.text(max_size=3), JSON, max_size=2))
        frames.append(frame(header, bodies))
    return frames
