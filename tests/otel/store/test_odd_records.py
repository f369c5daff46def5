"""Records whose values are of another kind than their fields: read, sealed and named, never an error."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from wal_forged import SPAN, START, forged, frame, header_of, odd_records, whole

from tracefork_otel.store import manifest, sealing, segment
from tracefork_otel.store.wal_reading import exchanges_of, read_wal


@settings(deadline=None, max_examples=3 * settings.default.max_examples)
@given(odd_records())
def test_any_json_in_any_field_is_read_and_sealed(records: list[bytes]) -> None:
    """What does not fit is kept as text or left out; every other record is there, the segment whole."""
    with TemporaryDirectory() as name:
        path = forged(Path(name), [*records, *whole()])
        exchanges, spans, processes, notes = exchanges_of([read_wal(path)])
        assert (START.trace_id, START.span_id) in {(one.trace_id, one.span_id) for one in exchanges}
        assert not sealing.seal_dead(Path(name))
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
    contents = read_wal(forged(tmp_path, [frame(header), *whole()]))
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
    _, (span,), _, notes = exchanges_of([read_wal(forged(tmp_path, [frame(header | {field: value})]))])
    assert getattr(span, field) == kept
    told = [(note.kind, note.trace_id, note.attributes) for note in notes]
    expected = {"field": field, "first": shown, "count": 1}
    assert told == ([] if shown is None else [("odd", SPAN.trace_id, expected)])
