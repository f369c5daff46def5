"""Records of any kind, as strategies of hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st
from wal_samples import TRACE, records_of

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.store.records import Note, Record, SpanRecord

# Anything that an attribute can hold once it is JSON.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
# Lone halves of surrogate pairs are not text, and columns of text cannot hold them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
attributes = st.dictionaries(texts, json_values, max_size=3)
headers = st.lists(st.tuples(texts, texts), max_size=3).map(tuple)
body_bytes = st.one_of(
    st.binary(max_size=200),
    st.binary(min_size=128, max_size=2000),
    st.lists(
        st.sampled_from([b'{"role":"user"},', b"abc" * 60, b"\xff\x00\x80", b'"tools":[', "é→".encode()])
    ).map(b"".join),
)
_times = st.integers(0, 2**62)
_traces = st.sampled_from([TRACE, "f" * 32, "0" * 31 + "1"])
_span_ids = st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}")


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """Any exchange that a store can hold."""
    response = None
    if draw(st.booleans()):
        body = draw(body_bytes)
        cut = draw(st.integers(0, len(body)))
        sizes = tuple(size for size in (cut, len(body) - cut) if size)
        response = Response(
            status=draw(st.integers(100, 599)),
            headers=draw(headers),
            body=body,
            chunk_sizes=sizes,
            chunk_offsets_us=tuple(draw(st.lists(_times, min_size=len(sizes), max_size=len(sizes)))),
            http_version=draw(st.sampled_from(["HTTP/1.1", "HTTP/2"])),
            reason_phrase=draw(st.sampled_from([None, "", "NOT FOUND", "caf\xe9"])),
            stream_id=draw(st.sampled_from([None, 1, 2**31 - 1])),
        )
    return Exchange(
        trace_id=draw(_traces),
        span_id=draw(_span_ids),
        parent_span_id=draw(st.none() | _span_ids),
        process_id="4711-0badcafe",
        seq=draw(st.integers(0, 2**31 - 1)),
        started_ns=draw(_times),
        ended_ns=draw(st.none() | _times),
        request=Request(
            method=draw(st.sampled_from(["GET", "POST"])),
            url=draw(texts),
            headers=draw(headers),
            body=draw(body_bytes),
        ),
        response=response,
        outcome=draw(st.sampled_from(["complete", "cut", "no_response"])),
        error_type=draw(st.none() | texts),
        error_message=draw(st.none() | texts),
        replayed=draw(st.booleans()),
        intervention=draw(st.none() | texts),
        served_span_id=draw(st.none() | _span_ids),
        name=draw(texts),
        service=draw(texts),
        span_status=draw(st.sampled_from(["UNSET", "OK", "ERROR"])),
        attributes=draw(attributes),
        links=tuple(draw(st.lists(attributes, max_size=2))),
    )


@st.composite
def spans(draw: st.DrawFn) -> SpanRecord:
    """Any span that a store can hold."""
    return SpanRecord(
        trace_id=draw(_traces),
        span_id=draw(_span_ids),
        parent_span_id=draw(st.none() | _span_ids),
        name=draw(texts),
        kind=draw(st.sampled_from(["INTERNAL", "CLIENT"])),
        started_ns=draw(_times),
        ended_ns=draw(st.none() | _times),
        status=draw(st.sampled_from(["UNSET", "OK", "ERROR"])),
        status_message=draw(st.none() | texts),
        service=draw(texts),
        scope=draw(texts),
        attributes=draw(attributes),
        events=tuple(draw(st.lists(attributes, max_size=2))),
        links=tuple(draw(st.lists(attributes, max_size=2))),
        process_id="4711-0badcafe",
    )


@st.composite
def notes(draw: st.DrawFn) -> Note:
    """Any note that a store can hold."""
    return Note(
        kind=draw(st.sampled_from(["lost", "leak", "drift", "incomplete"])),
        time_ns=draw(_times),
        trace_id=draw(st.none() | _traces),
        attributes=draw(attributes),
        process_id="4711-0badcafe",
    )


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    """What a process may write, in any order."""
    pairs = draw(st.lists(exchanges(), max_size=5, unique_by=lambda exchange: exchange.span_id))
    records: list[Record] = [record for exchange in pairs for record in records_of(exchange)]
    records += draw(st.lists(spans(), max_size=3))
    records += draw(st.lists(notes(), max_size=2))
    return draw(st.permutations(records))
