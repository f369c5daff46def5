"""Records whose values are of another kind than their fields: read, sealed and named, never an error."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wal_samples import exchange_records, process

from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.codec import FRAME, HEADER, MAGIC, encode
from tracefork_otel.store.delta import Delta
from tracefork_otel.store.records import Note, Record, Rotated, SpanRecord
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

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
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def header_of(record: Record) -> tuple[dict[str, Any], bytes]:
    """The header of a record, and its bodies."""
    framed = b"".join(encode(record, Delta(-1, 0, 0, -1)))[FRAME.size :]
    length = HEADER.unpack_from(framed)[0]
    return json.loads(framed[HEADER.size : HEADER.size + length]), framed[HEADER.size + length :]


def frame(header: bytes, bodies: bytes = b"") -> bytes:
    """A record with a right checksum, whatever is in it."""
    payload = HEADER.pack(len(header)) + header + bodies
    return FRAME.pack(len(payload), crc32(payload)) + payload


def written(store: Path, frames: list[bytes]) -> Path:
    """A WAL of a process that is gone, with those records."""
    path = store / "wal" / "4711-0badcafe-0.wal"
    path.parent.mkdir(parents=True)
    path.write_bytes(MAGIC + b"".join(frames))
    return path


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_json_in_any_field_is_read_and_sealed(data: st.DataObject) -> None:
    """What does not fit is kept as text or left out; every other record is there, the segment whole."""
    frames = [frame(json.dumps(header_of(process())[0]).encode())]
    for record in data.draw(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=6)):
        header, bodies = header_of(record)
        for name in data.draw(st.lists(st.sampled_from(sorted(header)), max_size=3)):
            header[name] = data.draw(JSON)
        if data.draw(st.booleans()):
            header |= data.draw(st.dictionaries(st.text(max_size=3), JSON, max_size=2))
        frames.append(frame(json.dumps(header).encode(), bodies))
    frames += [frame(json.dumps(header).encode(), bodies) for header, bodies in map(header_of, (START, END))]
    with TemporaryDirectory() as name:
        path = written(Path(name), frames)
        exchanges, spans, processes, notes = exchanges_of([read_wal(path)])
        assert (START.trace_id, START.span_id) in {(one.trace_id, one.span_id) for one in exchanges}
        report = sealing.seal_dead(Path(name))
        assert not report.problems
        (entry,) = manifest.load(Path(name)).segments
        assert len(list(segment.read_exchanges(Path(name), entry))) == len(exchanges)
        found = segment.read_records(Path(name), entry)
        assert [len(one) for one in found] == [len(spans), len(processes), len(notes)]


@pytest.mark.parametrize(
    "header",
    [
        b'{"t":"resp',
        b"[1]",
        b"7",
        b"null",
        b'"request"',
        b"\xff\xfe",
        b"",
        b'{"t":' + b"[" * 10**5,
        b'{"t":"span"}',
        b'{"t":["span"]}',
        b'{"t":"later"}',
        b'{"t":"span","started_ns":' + b"9" * 10**4 + b"}",
    ],
)
def test_what_is_no_record_is_named_and_left_out(tmp_path: Path, header: bytes) -> None:
    """A header of no known form costs its record alone, and the damage says at which byte it stands."""
    frames = [frame(json.dumps(header_of(process())[0]).encode()), frame(header)]
    frames += [frame(json.dumps(header).encode(), bodies) for header, bodies in map(header_of, (START, END))]
    contents = read_wal(written(tmp_path, frames))
    assert [why.startswith("4711-0badcafe-0.wal: the record at byte") for why in contents.damage] == [True]
    assert len(exchanges_of([contents])[0]) == 1


@pytest.mark.parametrize(
    ("field", "value", "kept", "shown"),
    [
        ("name", 7, "7", None),
        ("name", ["a", 1], '["a",1]', None),
        ("name", None, "", "None"),
        ("started_ns", 1.5e9, 1_500_000_000, None),
        ("started_ns", 2**70, 0, str(2**70)),
        ("started_ns", "now", 0, "'now'"),
        ("started_ns", float("nan"), 0, "nan"),
        ("ended_ns", "now", None, "'now'"),
        ("ended_ns", True, None, "True"),
        ("parent_span_id", 12, "12", None),
        ("attributes", ["a"], {}, "a list"),
        ("links", {"a": 1}, (), "a dict"),
    ],
)
def test_a_value_is_kept_as_text_or_left_out_and_told(
    tmp_path: Path, field: str, value: object, kept: object, shown: str | None
) -> None:
    """A number where a text is meant is its text; what cannot be is left out, and a note tells where."""
    header, _ = header_of(SPAN)
    headers = (header_of(process())[0], header | {field: value})
    wal = written(tmp_path, [frame(json.dumps(one).encode()) for one in headers])
    _, (span,), _, notes = exchanges_of([read_wal(wal)])
    assert getattr(span, field) == kept
    told = [(note.kind, note.trace_id, note.attributes) for note in notes]
    expected = {"field": field, "first": shown, "count": 1}
    assert told == ([] if shown is None else [("odd", SPAN.trace_id, expected)])
