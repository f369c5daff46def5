"""Content codings: undone within a limit, and made again as they were."""

from __future__ import annotations

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.wire import codings
from tracefork_otel.wire.codings import Unreadable, packed, unpacked

CODINGS = ("gzip", "deflate", "br", "zstd")


@pytest.mark.parametrize("coding", CODINGS)
@given(body=st.binary(max_size=4000))
def test_what_is_packed_unpacks(coding: str, body: bytes) -> None:
    """Any body comes back whole from each coding."""
    assert unpacked(packed(body, coding, whole=True), coding) == (body, True)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_refused_before_it_is_unpacked(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is not looked into, and at most a multiple of the limit is held of it."""
    bomb = packed(bytes(64 * 1024 * 1024), coding, whole=True)
    monkeypatch.setattr(codings, "MAX_PLAIN", 100_000)
    with pytest.raises(Unreadable, match="more than 100000 bytes"):
        unpacked(bomb, coding)


@pytest.mark.parametrize("more", [b"", b"x" * 2000])
def test_more_behind_a_zstd_frame_is_no_body_to_rewrite(more: bytes) -> None:
    """What follows the first frame would be lost if the body was packed again."""
    body = zstandard.compress(b"first") + (more or zstandard.compress(b"second"))
    with pytest.raises(Unreadable, match="more follows"):
        unpacked(body, "zstd")


def test_a_cut_body_says_so() -> None:
    """The beginning of a compressed body is read as far as it goes."""
    whole = brotli.compress(b"words " * 1000)
    assert unpacked(whole[:-3], "br")[1] is False
