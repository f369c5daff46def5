"""The digest of a tape: a hash chain over its exchanges, computed from their bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from hashlib import sha256

from ..exchange import Exchange, Outcome

CHAIN_START = sha256(b"tracefork tape 1").digest()

# What the digest says of an ending: by which side, not by which of two racing clocks (whether a client that
# walks away is seen as closing, dropping or cancelling depends on the garbage collector and the scheduler).
_ENDING: Mapping[Outcome, str] = {
    "complete": "complete",
    "cut": "cut",
    "failed": "failed",
    "closed": "left",
    "abandoned": "left",
    "cancelled": "left",
    "no_response": "none",
    "in_flight": "none",
}


def digest_of(exchanges: Iterable[Exchange]) -> str:
    """Return the hash chain over exchanges in the given order, in hex.

    Link 0 is the sha256 of `tracefork tape 1`; each exchange makes the next link (see `chain`).
    """
    link = CHAIN_START
    for exchange in exchanges:
        link = chain(link, exchange)
    return link.hex()


def chain(previous: bytes, exchange: Exchange) -> bytes:
    """Return the next link: the sha256 of the link before and of what client and server gave each other.

    That is: method, URL, request body, status (empty without a response), response headers as JSON,
    response body, chunk sizes as JSON, and the ending (`complete`, `cut`, `failed`, `left` by the client,
    `none`); each preceded by its length as a big-endian u64.
    """
    response = exchange.response
    link = sha256(previous)
    for part in (
        exchange.request.method.encode("utf-8", "surrogatepass"),
        exchange.request.url.encode("utf-8", "surrogatepass"),
        exchange.request.body,
        str(response.status).encode() if response else b"",
        json.dumps(response.headers if response else []).encode(),
        response.body if response else b"",
        json.dumps(response.chunk_sizes if response else []).encode(),
        _ENDING[exchange.outcome].encode(),
    ):
        link.update(struct.pack(">Q", len(part)))
        link.update(part)
    return link.digest()
