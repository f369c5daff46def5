"""Content encodings undone, as far as a cut body goes and never past a limit."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

# The largest body that is decoded for reading: far over any model's answer, far under a machine's memory.
DEFAULT_LIMIT = 256 * 2**20
# Each coding multiplies what a bomb gains; clients refuse longer chains too.
MAX_CODINGS = 5
# How much a decoder may produce per call: what it allocates ahead of the limit check.
STEP = 2**20

_GZIP, _ZLIB, _RAW = 31, 15, -15


def decode_body(body: bytes, content_encoding: str | None, *, limit: int = DEFAULT_LIMIT) -> bytes | None:
    """Return the body with its content encodings undone, None where that cannot be done.

    A body that was cut, or that decodes to more than `limit` bytes, gives the prefix that could be decoded.
    """
    codings = [c.strip().lower() for c in (content_encoding or "").split(",")]
    codings = [c for c in codings if c not in ("", "identity")]
    if len(codings) > MAX_CODINGS:
        return None
    for coding in reversed(codings):
        try:
            decoded = _decode(body, coding, limit)
        except _decoder_errors():
            return None
        if decoded is None:
            return None
        body = decoded
    return body


def _decode(body: bytes, coding: str, limit: int) -> bytes | None:
    """Return the body with one coding undone, None where this installation does not know the coding."""
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, _GZIP, limit)
    if coding == "deflate":
        # The name means zlib's wrapper, and some servers send the bare stream.
        try:
            return _inflate(body, _ZLIB, limit)
        except zlib.error:
            return _inflate(body, _RAW, limit)
    if coding == "br":
        return _brotli(body, limit)
    if coding == "zstd":
        return _zstd(body, limit)
    return None


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    """Return the inflated bytes, of gzip every member; junk after the first member is padding."""
    out, members = bytearray(), 0
    while body and len(out) < limit:
        decoder = zlib.decompressobj(wbits)
        try:
            while body and len(out) < limit and not decoder.eof:
                out += decoder.decompress(body, min(STEP, limit - len(out)))
                body = decoder.unconsumed_tail
        except zlib.error:
            if members == 0:
                raise
            break
        members += 1
        body = decoder.unused_data if wbits == _GZIP else b""
    return bytes(out)


def _brotli(body: bytes, limit: int) -> bytes | None:
    """Return the brotli-decoded bytes, None where brotli is not installed."""
    brotli = _module("brotli")
    if brotli is None:
        return None
    decoder, out = brotli.Decompressor(), bytearray()
    piece = body
    while len(out) < limit:
        produced = decoder.process(piece, output_buffer_limit=min(STEP, limit - len(out)))
        out += produced
        piece = b""
        if decoder.is_finished() or (not produced and decoder.can_accept_more_data()):
            break
    return bytes(out[:limit])


def _zstd(body: bytes, limit: int) -> bytes | None:
    """Return the zstd-decoded bytes of all frames, None where no zstd library is installed."""
    zstandard = _module("zstandard")
    if zstandard is not None:
        return _zstandard_frames(zstandard, body, limit)
    zstd = _module("compression.zstd")
    if zstd is None:
        return None
    out = bytearray()
    while body and len(out) < limit:
        decoder = zstd.ZstdDecompressor()
        while len(out) < limit and not decoder.eof:
            produced = decoder.decompress(body, min(STEP, limit - len(out)))
            out += produced
            body = b""
            if not produced and decoder.needs_input:
                break
        body = decoder.unused_data if decoder.eof else b""
    return bytes(out)


def _zstandard_frames(zstandard: Any, body: bytes, limit: int) -> bytes:
    """Return what the `zstandard` package reads out of the frames, up to where they end or were cut."""
    out = bytearray()
    with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
        while len(out) < limit:
            piece = reader.read(min(STEP, limit - len(out)))
            if not piece:
                break
            out += piece
    return bytes(out)


def _module(name: str) -> Any:
    """Return an optional module, None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _decoder_errors() -> tuple[type[Exception], ...]:
    """Return what the installed decoders raise on a body that is not theirs."""
    errors: list[type[Exception]] = [zlib.error]
    for module, name in (("brotli", "error"), ("zstandard", "ZstdError"), ("compression.zstd", "ZstdError")):
        found = getattr(_module(module), name, None)
        if found is not None:
            errors.append(found)
    return tuple(errors)
