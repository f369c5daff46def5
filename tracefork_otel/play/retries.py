"""Calls that were refused and made again: which these are, and how a client need not wait for the next."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from ..exchange import Exchange, Response
from ..tape.tape import Tape
from .match import fingerprint

_AGAIN = (408, 409, 425, 429)
"""Statuses that bid a client try again, beside 500 and above; after others it goes on from the error."""
_SERVERS = 500
_WAIT, _WAIT_MS = "retry-after", "retry-after-ms"
_KEPT_S = 60.0
"""Longer waits are not kept by the clients of model providers: some give up instead."""
_AT_ONCE_MS = "1"
"""0 is taken for no wait told, after which clients wait as long as they think fit."""


def failed(exchange: Exchange) -> bool:
    """Return whether the call got no answer, only a part of one, or an error that may pass."""
    return exchange.outcome not in ("complete", "closed") or _refused(exchange)


def _refused(exchange: Exchange) -> bool:
    status = 0 if exchange.response is None else exchange.response.status
    return status in _AGAIN or status >= _SERVERS


def over_before(exchange: Exchange, again: Exchange) -> bool:
    """Return whether the call was over when it was made again: another branch's is a call of its own."""
    return exchange.ended_ns is not None and exchange.ended_ns <= again.started_ns


def made_again(tape: Tape, step: int, among: AbstractSet[int]) -> bool:
    """Return whether the step was refused, and one of these is the same call, made again after it."""
    refused = tape.exchanges[step]
    if not _refused(refused):
        return False
    key = fingerprint(refused.request)
    return any(
        other > step
        and over_before(refused, tape.exchanges[other])
        and fingerprint(tape.exchanges[other].request) == key
        for other in among
    )


def at_once(response: Response) -> Response:
    """Return the refusal with leave to try again at once, in the words that providers' clients read.

    One that bids wait longer than they do is returned as it is.
    """
    try:
        told = float(response.header(_WAIT_MS) or 0) / 1000 or float(response.header(_WAIT) or 0)
    except ValueError:  # a date, which is over when it is played
        told = 0.0
    if not told <= _KEPT_S:
        return response
    kept = tuple((name, value) for name, value in response.headers if name.lower() != _WAIT_MS)
    return replace(response, headers=(*kept, (_WAIT_MS, _AT_ONCE_MS)))
