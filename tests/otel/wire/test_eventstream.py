"""The AWS event stream is written byte for byte as AWS does, and read as far as it goes."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire.eventstream import AwsEventStream, frame, frames
from tracefork_otel.wire.framing import Event

STREAM = AwsEventStream()
# The test vectors of AWS's own SDKs: nothing; a payload; a header that is a number, and a payload.
EMPTY = bytes.fromhex("000000100000000005c248eb7d98c8ff")
PAYLOAD = bytes.fromhex("0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936")
HEADER = bytes.fromhex(
    "0000002d0000001041c424b80a6576656e742d747970650400" + "00a00c7b27666f6f273a27626172277d36f480a0"
)
EVENTS = st.lists(
    st.builds(
        Event,
        st.text(st.characters(codec="utf-8"), max_size=9).filter(bool)
        | st.sampled_from(["throttlingException", "chunk"]),
        st.binary(max_size=60),
    ),
    max_size=5,
)


def test_the_sdks_own_vectors() -> None:
    """What AWS's SDKs are tested with is read, and written, byte for byte."""
    assert [(one.headers, one.payload) for one in frames(EMPTY + PAYLOAD + HEADER)] == [
        ({}, b""),
        ({}, b"{'foo':'bar'}"),
        ({}, b"{'foo':'bar'}"),
    ]
    assert frame({}, b"") == EMPTY
    assert frame({}, b"{'foo':'bar'}") == PAYLOAD
    assert STREAM.holds(EMPTY, None)
    assert not STREAM.holds(b'{"message":"a JSON body"}', "application/json")
    assert STREAM.holds(b"", "application/vnd.amazon.eventstream")


@given(EVENTS, st.data())
def test_a_cut_leaves_the_whole_messages(events: list[Event], data: st.DataObject) -> None:
    """A stream is read as it was written, up to the last message that is whole."""
    written = STREAM.write(events)
    body = b"".join(written)
    assert list(STREAM.read(body)) == events
    assert list(STREAM.cut(body)) == written
    at = data.draw(st.integers(0, len(body)))
    ends = [sum(map(len, written[: number + 1])) for number in range(len(written))]
    assert list(STREAM.read(body[:at])) == [one for one, end in zip(events, ends, strict=True) if end <= at]
    assert b"".join(STREAM.cut(body[:at])) == body[:at]


@given(EVENTS, st.data())
def test_a_damaged_message_ends_the_stream(events: list[Event], data: st.DataObject) -> None:
    """A changed byte costs its message and what follows, never an error."""
    written = STREAM.write([*events, Event("last", b"{}")])
    body = bytearray(b"".join(written))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= 0xFF
    whole = [number for number in range(len(written)) if sum(map(len, written[: number + 1])) <= at]
    assert len(list(STREAM.read(bytes(body)))) == len(whole)


@given(st.binary(max_size=200))
def test_any_bytes_are_read(body: bytes) -> None:
    """Bytes that are no stream hold no event."""
    assert list(STREAM.read(body)) == []
    assert b"".join(STREAM.cut(body)) == body


@pytest.mark.parametrize("spelled", [b"\x05:a", b"\x01a\x07\xff\xff", b"\x01a\x63zz", b"\xff"])
def test_headers_that_do_not_fit_are_left_out(spelled: bytes) -> None:
    """A sound message whose headers are cut or of an unknown type is read without them."""
    lengths = struct.pack(">II", 16 + len(spelled) + 2, len(spelled))
    message = lengths + struct.pack(">I", crc32(lengths)) + spelled + b"{}"
    body = message + struct.pack(">I", crc32(message))
    assert [one.payload for one in frames(body)] == [b"{}"]


def test_an_error_without_a_shape() -> None:
    """A message of the type `error` has its words in headers."""
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "It broke."}
    (one,) = STREAM.read(frame(headers, b""))
    assert one == Event("InternalErrorException", b'{"message":"It broke."}')
