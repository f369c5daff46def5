"""Content codings undone and made again, as far as a body goes and never past a limit."""

from __future__ import annotations

import zlib
from typing import Any

MAX_PLAIN = 64 * 1024 * 1024
"""More than any model answers; a compressed body can claim to be larger without limit."""
_GZIP, _ZLIB = 31, 15
_PIECE = 1024
"""Of zstd, what is undone before the limit is looked at: a byte can stand for some 25,000."""


class Unreadable(Exception):
    """A body cannot be looked into."""


def unpacked(body: bytes, coding: str) -> tuple[bytes, bool]:
    """The body without its coding, and whether that came to its end; raises Unreadable saying why not."""
    if not coding:
        return body, True
    try:
        if coding in ("gzip", "x-gzip", "deflate"):
            return _inflated(body, coding)
        if coding == "br":
            import brotli

            decoder = brotli.Decompressor()
            plain = decoder.process(body, output_buffer_limit=MAX_PLAIN)
            return _within(plain, more=not decoder.can_accept_more_data()), decoder.is_finished()
        if coding == "zstd":
            import zstandard

            return _unzstd(zstandard.ZstdDecompressor().decompressobj(), body)
    except ImportError as error:
        raise Unreadable(f"it is encoded as {coding}, and {error.name} is not installed") from error
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"it is not what its content-encoding {coding} says: {error}") from error
    raise Unreadable(f"its content-encoding {coding} is unknown")


def _inflated(body: bytes, coding: str) -> tuple[bytes, bool]:
    unpacker = zlib.decompressobj(_ZLIB if coding == "deflate" else _GZIP)
    try:
        plain = unpacker.decompress(body, MAX_PLAIN)
    except zlib.error:
        if coding != "deflate":
            raise
        unpacker = zlib.decompressobj(-_ZLIB)  # what many servers mean by deflate
        plain = unpacker.decompress(body, MAX_PLAIN)
    if unpacker.unused_data.strip(b"\0"):
        raise Unreadable("more follows its compressed data")
    return _within(plain, more=bool(unpacker.unconsumed_tail)), unpacker.eof


def _unzstd(unpacker: Any, body: bytes) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    length = 0
    for at in range(0, len(body), _PIECE):
        if unpacker.eof:
            raise Unreadable("more follows its compressed data")
        parts.append(unpacker.decompress(body[at : at + _PIECE]))
        length += len(parts[-1])
        if length > MAX_PLAIN:
            break
    if unpacker.unused_data:
        raise Unreadable("more follows its compressed data")
    return _within(b"".join(parts), more=False), unpacker.eof


def _within(plain: bytes, *, more: bool) -> bytes:
    if more or len(plain) > MAX_PLAIN:
        raise Unreadable(f"it has more than {MAX_PLAIN} bytes once it is decompressed")
    return plain


def packed(plain: bytes, coding: str, *, whole: bool) -> bytes:
    """The body in its coding again; one that was cut off is cut off again."""
    if coding == "br":
        import brotli

        packer = brotli.Compressor()
        return packer.process(plain) + (packer.finish() if whole else packer.flush())
    if coding == "zstd":
        import zstandard

        zstd = zstandard.ZstdCompressor().compressobj()
        flush = zstandard.COMPRESSOBJ_FLUSH_FINISH if whole else zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return zstd.compress(plain) + zstd.flush(flush)
    made = zlib.compressobj(wbits=_ZLIB if coding == "deflate" else _GZIP)
    return made.compress(plain) + made.flush(zlib.Z_FINISH if whole else zlib.Z_SYNC_FLUSH)
