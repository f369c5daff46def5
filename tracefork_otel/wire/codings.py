"""Content codings undone, as far as a body goes and never past a limit, and made again."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from ..exchange import Request

LIMIT = 256 * 2**20
"""The largest body that is undone for reading: far over any model's answer, far under a machine's memory."""
_SMALL, _FACTOR = 16 * 2**20, 32
"""A body may have so many bytes, or so many times those that it has in its codings."""
MAX_CODINGS = 5
"""Each coding multiplies what a bomb gains; clients refuse longer chains too."""
_STEP = 2**20
"""The most bytes that a decoder is asked for at a time."""
_FIRST, _FEED = 256, 64 * 2**10
"""How many bytes a decoder gets at first and at a time: what it leaves of them is copied."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ZEROS = re.compile(rb"\0*+")
_ZSTD_WINDOW = 23
"""Bits: frames that want more memory are no content coding by RFC 9659."""

End: TypeAlias = Literal["whole", "cut", "more", "limit"]
_ENDS: tuple[End, ...] = ("whole", "cut", "more", "limit")


class Unreadable(Exception):
    """A body cannot be looked into."""


class UnknownCoding(Unreadable):
    """A coding for which no decoder is here."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A body without its codings, and how its coded bytes end.

    `whole`: where their coding ends; `cut`: before that; `more`: something else follows; `limit`: there is
    more in them than the body.
    """

    body: bytes
    end: End


@dataclass(frozen=True, slots=True)
class Encoder:
    """Makes one coding; what stands before a `flush` can be read before the rest has come."""

    compress: Callable[[bytes], bytes]
    flush: Callable[[], bytes]
    finish: Callable[[], bytes]


def plausible(size: int) -> int:
    """Return what a body of so many bytes may have once its codings are undone: more is a bomb."""
    return min(LIMIT, max(_SMALL, _FACTOR * size))


def undone(body: bytes, content_encoding: str | None, *, limit: int | None = None) -> Plain:
    """Return the body with its content codings undone, at most `limit` bytes (what is plausible) of it.

    Raises Unreadable that says why it cannot be done.
    """
    end: End = "whole"
    limit = plausible(len(body)) if limit is None else limit
    for name in reversed(_named(content_encoding)):
        try:
            found = _undone(body, _CODINGS[name], limit)
        except ImportError as error:
            raise UnknownCoding(f"it is encoded as {name}, and {error.name} is not installed") from error
        except Exception as error:  # each library has an error of its own
            raise Unreadable(f"it is not what its content-encoding {name} says: {error}") from error
        body, end = found.body, _ENDS[max(_ENDS.index(end), _ENDS.index(found.end))]
    return Plain(body, end)


def decode_body(body: bytes, content_encoding: str | None, *, limit: int | None = None) -> bytes | None:
    """Return what can be read of the body: of one that is cut or too large its beginning, None if nothing."""
    try:
        return undone(body, content_encoding, limit=limit).body
    except Unreadable:
        return None


def plain_request(request: Request) -> bytes:
    """Return the request's body with its content codings undone; as it is where that cannot be done whole."""
    coding = request.header("content-encoding")
    if coding is None:
        return request.body
    try:
        plain = undone(request.body, coding)
    except Unreadable:
        return request.body
    return plain.body if plain.end == "whole" else request.body


def coded(plain: bytes, content_encoding: str | None, *, whole: bool = True) -> bytes:
    """Return the body in its content codings; one that is not whole ends as one that was cut."""
    for name in _named(content_encoding):
        made = encoder(name)
        plain = made.compress(plain) + (made.finish() if whole else made.flush())
    return plain


def encoder(name: str) -> Encoder:
    """Return what makes a coding; raises UnknownCoding, or ImportError where its library is missing."""
    (name,) = _named(name)
    return _CODINGS[name].encoder()


def _named(content_encoding: str | None) -> list[str]:
    """Return the codings that a header names, in the order in which they were made."""
    names = [name.strip().lower() for name in (content_encoding or "").split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > MAX_CODINGS:
        raise UnknownCoding(f"it has {len(names)} content-encodings on top of each other")
    for name in names:
        if name not in _CODINGS:
            raise UnknownCoding(f"its content-encoding {name} is unknown")
    return names


# --- undone ---


class _Decoder:
    """Undoes one member of a coding: a member of gzip, a frame of zstd, the whole of the others."""

    feed = _FEED

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made = make()

    def another(self) -> _Decoder:
        """Return one for the next member; libraries are not looked for again, which takes longer than it."""
        return type(self)(self._make)

    @property
    def eof(self) -> bool:
        return self._made.eof

    @property
    def unused_data(self) -> bytes:
        return self._made.unused_data

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return what comes next; there may be more without further data, until nothing is returned."""
        return self._made.decompress(data, most)


class _Inflate(_Decoder):
    def decompress(self, data: bytes, most: int) -> bytes:
        return self._made.decompress(self._made.unconsumed_tail + data, most)


class _Brotli(_Decoder):
    def __init__(self) -> None:
        super().__init__(importlib.import_module("brotli").Decompressor)
        self._bounded = hasattr(self._made, "can_accept_more_data")
        if not self._bounded:  # before 1.2: gives all at once
            self.feed = 16

    @property
    def eof(self) -> bool:
        return self._made.is_finished()

    @property
    def unused_data(self) -> bytes:
        return b""  # to brotli it is an error

    def decompress(self, data: bytes, most: int) -> bytes:
        if self._bounded:
            return self._made.process(data, output_buffer_limit=most)
        return self._made.process(data) if data else b""


class _Zstandard(_Decoder):
    feed = 256  # it gives all at once, and four bytes can become 128 KiB

    def decompress(self, data: bytes, most: int) -> bytes:
        return self._made.decompress(data) if data else b""


def _zstd() -> tuple[Any, bool]:
    """Return a zstd library, and whether it is the standard library's or one that is called like it."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name), True
        except ImportError:
            continue
    return importlib.import_module("zstandard"), False


def _unzstd() -> _Decoder:
    zstd, standard = _zstd()
    if standard:
        options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}
        return _Decoder(partial(zstd.ZstdDecompressor, options=options))
    return _Zstandard(zstd.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW).decompressobj)


def _inflating(wbits: int) -> Callable[[], _Decoder]:
    return partial(_Inflate, partial(zlib.decompressobj, wbits))


def _undone(body: bytes, coding: _Coding, limit: int) -> Plain:
    *others, last = coding.decoders
    for decoder in others:
        try:
            return _members(body, decoder, limit, several=coding.members)
        except zlib.error:
            continue
    return _members(body, last, limit, several=coding.members)


def _members(body: bytes, decoder: Callable[[], _Decoder], limit: int, *, several: bool) -> Plain:
    out = bytearray()
    at = 0
    one = decoder()
    while True:
        try:
            at += _member(one, memoryview(body)[at:], out, limit)
        except Exception:
            if at == 0:
                raise
            return Plain(bytes(out), "more")
        if len(out) > limit:
            return Plain(bytes(out[:limit]), "limit")
        if not one.eof:
            return Plain(bytes(out), "cut")
        if _ZEROS.fullmatch(body, at):  # some servers pad
            return Plain(bytes(out), "whole")
        if not several:
            return Plain(bytes(out), "more")
        one = one.another()


def _member(one: _Decoder, body: memoryview, out: bytearray, limit: int) -> int:
    """Add what the member holds to `out`, little past the limit, and return how many bytes it takes."""
    at = 0
    while at < len(body) and not one.eof and len(out) <= limit:
        piece = bytes(body[at : at + min(one.feed, max(at, _FIRST))])
        at += len(piece)
        while len(out) <= limit and not one.eof:
            made = one.decompress(piece, min(_STEP, limit + 1 - len(out)))
            if not made and not piece:
                break
            out += made
            piece = b""
    return at - len(one.unused_data)


# --- made ---


def _deflate(wbits: int) -> Encoder:
    made = zlib.compressobj(wbits=wbits)
    return Encoder(made.compress, partial(made.flush, zlib.Z_SYNC_FLUSH), made.flush)


def _brotli() -> Encoder:
    made: Any = importlib.import_module("brotli").Compressor()
    return Encoder(made.process, made.flush, made.finish)


def _made_zstd() -> Encoder:
    zstd, standard = _zstd()
    if standard:
        made = zstd.ZstdCompressor()
        return Encoder(made.compress, partial(made.flush, made.FLUSH_BLOCK), made.flush)
    made = zstd.ZstdCompressor().compressobj()
    return Encoder(made.compress, partial(made.flush, zstd.COMPRESSOBJ_FLUSH_BLOCK), made.flush)


@dataclass(frozen=True, slots=True)
class _Coding:
    encoder: Callable[[], Encoder]
    decoders: tuple[Callable[[], _Decoder], ...]
    """The first that takes the body undoes it."""
    members: bool = False
    """Whether a further member may follow the first."""


_CODINGS = {
    "gzip": _Coding(partial(_deflate, _GZIP), (_inflating(_GZIP),), members=True),
    # The name means zlib's wrapper, and some servers send the bare stream.
    "deflate": _Coding(partial(_deflate, _ZLIB), (_inflating(_ZLIB), _inflating(_RAW))),
    "br": _Coding(_brotli, (_Brotli,)),
    "zstd": _Coding(_made_zstd, (_unzstd,), members=True),
}
_CODINGS["x-gzip"] = _CODINGS["gzip"]
