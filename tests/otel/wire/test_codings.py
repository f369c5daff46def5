"""Content codings: undone within a limit, as far as a body goes, and made again."""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire.codings import UnknownCoding, Unreadable, coded, decode_body, encoder, undone

TEXT = "".join(f"event {n}: Größe {n * n}\n" for n in range(3000)).encode()
ENCODERS = {
    "identity": lambda b: b,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda b: brotli.compress(b, quality=4),
    "zstd": zstandard.ZstdCompressor().compress,
}
CODINGS = ("gzip", "deflate", "br", "zstd")
LISTS = st.lists(st.sampled_from([*ENCODERS, "GZip", ""]), max_size=5).map(", ".join)
BODIES = st.binary(max_size=2000) | st.tuples(st.binary(max_size=9), st.integers(0, 9000)).map(
    lambda piece: piece[0] * piece[1]
)


def encoded(coding: str, body: bytes = TEXT) -> bytes:
    """The body in one or several codings, by other means than ours; the first named is applied first."""
    for name in coding.split(", "):
        body = ENCODERS[name.lower()](body)
    return body


@pytest.mark.parametrize("coding", [*ENCODERS, "GZip", "gzip, br", "br, zstd, deflate"])
def test_encodings_are_undone(coding: str) -> None:
    """Each coding, in any case, and a chain of them, give the body back."""
    assert undone(encoded(coding), coding).body == decode_body(encoded(coding), coding) == TEXT
    assert undone(encoded(coding), coding).end == "whole"


@given(BODIES, LISTS)
def test_what_is_made_is_undone(body: bytes, codings: str) -> None:
    """Any body comes back whole from any list of codings."""
    made = coded(body, codings)
    plain = undone(made, codings)
    assert (plain.body, plain.end) == (body, "whole")


@given(BODIES, LISTS, st.data())
def test_a_cut_body_gives_its_beginning(body: bytes, codings: str, data: st.DataObject) -> None:
    """Wherever a coded body is cut, its beginning is read, and nothing raises."""
    made = coded(body, codings)
    part = made[: data.draw(st.integers(0, len(made)))]
    plain = undone(part, codings)
    assert body.startswith(plain.body)
    assert plain.end == "whole" if part == made else plain.end in ("whole", "cut")


@given(BODIES, LISTS, st.integers(0, 5000))
def test_the_limit_is_never_passed(body: bytes, codings: str, limit: int) -> None:
    """At most `limit` bytes come out of a coding, and they are the first ones; what is larger says so."""
    if not any(name not in ("", "identity") for name in codings.split(", ")):
        codings = "gzip"
    plain = undone(coded(body, codings), codings, limit=limit)
    assert len(plain.body) <= limit
    assert body.startswith(plain.body)
    assert (plain.end == "limit") or plain.body == body
    assert plain.end == "limit" if len(body) > limit else True


@given(BODIES, st.sampled_from(CODINGS))
def test_a_cut_body_is_made_again_as_one(body: bytes, coding: str) -> None:
    """What is not whole can be read to its end all the same, and says that it was cut."""
    plain = undone(coded(body, coding, whole=False), coding)
    assert (plain.body, plain.end) == (body, "cut")


@given(st.lists(BODIES, max_size=4), st.sampled_from(["gzip", "zstd"]))
def test_members_are_read_together(parts: list[bytes], coding: str) -> None:
    """Members that follow one another are one body, also behind padding; a cut last one counts as cut."""
    made = b"".join(coded(part, coding) for part in parts)
    if made:
        assert undone(made, coding) == undone(coded(b"".join(parts), coding), coding)
        assert undone(made + b"\0\0", coding).end == "whole"
        assert undone(made + coded(TEXT, coding)[:-9], coding).end == "cut"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("more", [b"xx", b"x" * 100_000])
def test_what_follows_is_told(coding: str, more: bytes) -> None:
    """What stands behind a coded body and is none itself is left, and the end says so."""
    plain = undone(coded(TEXT, coding) + more, coding)
    assert (plain.body, plain.end) == (TEXT, "more")


@given(BODIES)
def test_bare_deflate_is_undone(body: bytes) -> None:
    """Deflate without zlib's wrapper, as some servers send it, is read too."""
    bare = zlib.compressobj(wbits=-15)
    assert decode_body(bare.compress(body) + bare.flush(), "deflate") == body


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_a_cut_body_gives_what_had_arrived(coding: str) -> None:
    """An encoded body cut at any byte decodes to a prefix, which grows to nearly all of it."""
    body = encoded(coding)
    lengths = [0]
    for end in range(0, len(body), 41):
        part = decode_body(body[:end], coding)
        assert part is not None
        assert TEXT.startswith(part)
        lengths.append(len(part))
    assert all(a <= b for a, b in pairwise(lengths))


@pytest.mark.parametrize("coding", CODINGS)
def test_flushed_events_are_readable_before_the_end(coding: str) -> None:
    """What a server flushed is decoded although the stream never ended, as it does when a client hangs up."""
    made = encoder(coding)
    parts = [made.compress(text) + made.flush() for text in (b"data: 1\n\n", b"data: 2\n\n")]
    assert decode_body(parts[0], coding) == b"data: 1\n\n"
    assert decode_body(b"".join(parts), coding) == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_stops_at_the_limit(coding: str) -> None:
    """A body that would decode to far more than the limit gives exactly the limit's bytes."""
    bomb = encoded(coding, bytes(50 * 2**20))
    assert len(bomb) < 60_000
    for limit in (10, 3 * 2**20 + 1):
        assert undone(bomb, coding, limit=limit).end == "limit"
        assert decode_body(bomb, coding, limit=limit) == bytes(limit)


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_many_members_take_as_long_as_they_are(coding: str) -> None:
    """A body of members that hold nothing, of which each byte would be copied once for each of them."""
    member = coded(b"", coding)
    body = member * (2**21 // len(member))
    begun = time.process_time()
    assert undone(body + coded(b"end", coding) + b"\0" * 9, coding).body == b"end"
    assert time.process_time() - begun < 10


def test_a_frame_that_wants_much_memory_is_refused() -> None:
    """A zstd frame with a larger window than a content coding may have does not get its memory."""
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(Unreadable, match="zstd"):
        undone(writer.compress(TEXT) + writer.flush(), "zstd")


@pytest.mark.parametrize(
    ("coding", "why"),
    [
        *((coding, f"not what its content-encoding {coding} says") for coding in ("gzip", "br", "zstd")),
        ("compress", "content-encoding compress is unknown"),
        ("gzip, aws-chunked", "content-encoding aws-chunked is unknown"),
        ("gzip, gzip, gzip, gzip, gzip, gzip", "6 content-encodings"),
    ],
)
def test_what_cannot_be_undone_says_why(coding: str, why: str) -> None:
    """Bytes that are not in the named coding, an unknown coding and an absurd chain are told apart."""
    body = b"plain text, not encoded at all"
    assert decode_body(body, coding) is None
    with pytest.raises(Unreadable, match=why):
        undone(body, coding)


@pytest.mark.parametrize(("coding", "modules"), [("br", ["brotli"]), ("zstd", ["zstandard"])])
def test_a_missing_library_is_named(coding: str, modules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a library that undoes the coding, the reason is its name."""
    body = encoded(coding)
    for name in (*modules, "compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnknownCoding, match=f"encoded as {coding}, and {modules[0]} is not installed"):
        undone(body, coding)


@given(st.binary(max_size=40), st.sampled_from([*CODINGS, "deflate, br"]))
def test_no_bytes_make_a_decoder_raise(body: bytes, coding: str) -> None:
    """Whatever the bytes, the answer is bytes or None."""
    assert isinstance(decode_body(body, coding), bytes | None)
    assert isinstance(decode_body(encoded(coding, b"x" * 99)[: len(body)] + body, coding), bytes | None)
