"""Server-sent events are read as they are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire.sse import data_spans, is_sse, sse_event, sse_events

LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=9)
EVENTS = st.tuples(
    st.lists(LINES, min_size=1, max_size=3).map("\n".join),
    st.none() | LINES.filter(lambda name: bool(name) and not name.startswith(" ")),
)


@given(st.lists(EVENTS, max_size=4), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_read_as_they_are_written(events: list[tuple[str, str | None]], end: bytes) -> None:
    """Any names and data come back, whatever ends the lines, and the places of the data are told."""
    body = b"".join(sse_event(data.encode(), name, end=end) for data, name in events)
    assert [(data.decode(), name) for name, data in sse_events(body)] == events
    assert not events or is_sse(body, None)
    text = body.decode()
    if end != b"\r":
        told = [text[a:b] for a, b in data_spans(text)]
        assert told == [line for data, _ in events for line in data.split("\n")]
