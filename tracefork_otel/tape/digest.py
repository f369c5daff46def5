"""The digest of a tape: a hash chain over its exchanges, computed from their bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from itertools import accumulate

from ..exchange import Exchange, Outcome

FORMAT = 2
"""How a tape that is made now is digested; a file says which format its own is."""
FORMATS = tuple(range(1, FORMAT + 1))

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


class _Last:
    """The exchanges whose links were asked for last: a tape's digest is asked for again and again."""

    links: tuple[tuple[Exchange, ...], int, tuple[bytes, ...]] = ((), FORMAT, ())


def digest_of(exchanges: Iterable[Exchange], form: int = FORMAT) -> str:
    """Return the hash chain of that format over exchanges in the given order, in hex.

    Link 0 is the sha256 of `tracefork tape` and the format; each exchange makes the next link (see `chain`).
    """
    return (chain_start(form), *links_of(tuple(exchanges), form))[-1].hex()


def digest_like(known: str, exchanges: Iterable[Exchange]) -> str | None:
    """Return the digest if the exchanges have it in any format, else None."""
    made = tuple(exchanges)
    return known if known in (digest_of(made, form) for form in FORMATS) else None


def links_of(exchanges: tuple[Exchange, ...], form: int) -> tuple[bytes, ...]:
    """Return the link after each exchange; computed once while the same exchanges are asked for."""
    known, known_form, links = _Last.links
    if known is not exchanges or known_form != form:
        added = partial(chain, form=form)
        links = tuple(accumulate(exchanges, added, initial=chain_start(form)))[1:]
        remember(exchanges, form, links)
    return links


def remember(exchanges: tuple[Exchange, ...], form: int, links: tuple[bytes, ...]) -> None:
    """Keep links that were just computed of these exchanges."""
    _Last.links = exchanges, form, links


def chain_start(form: int) -> bytes:
    """Return the link before the first exchange."""
    return sha256(b"tracefork tape %d" % form).digest()


def chain(previous: bytes, exchange: Exchange, form: int = FORMAT) -> bytes:
    """Return the next link: the sha256 of the link before and of what client and server gave each other.

    That is: method, URL, the sha256 of the request body (format 1: the body), status (empty without a
    response), response headers as JSON, response body, chunk sizes as JSON, and the ending (`complete`,
    `cut`, `failed`, `left` by the client, `none`); each preceded by its length as a big-endian u64.
    """
    response = exchange.response
    # The requests of a conversation begin alike: their own digests share that work, a link's cannot.
    asked = exchange.request.body if form == 1 else bytes.fromhex(exchange.request.sha256)
    link = sha256(previous)
    for part in (
        exchange.request.method.encode("utf-8", "surrogatepass"),
        exchange.request.url.encode("utf-8", "surrogatepass"),
        asked,
        str(response.status).encode() if response else b"",
        json.dumps(response.headers if response else []).encode(),
        response.body if response else b"",
        json.dumps(response.chunk_sizes if response else []).encode(),
        # An outcome that no version writes, out of a store that others made, stands for itself.
        _ENDING.get(exchange.outcome, exchange.outcome).encode("utf-8", "surrogatepass"),
    ):
        link.update(struct.pack(">Q", len(part)))
        link.update(part)
    return link.digest()
