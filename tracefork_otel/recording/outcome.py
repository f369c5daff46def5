"""How exchanges end: the words for it, and which of them are failures."""

from __future__ import annotations

from ..exchange import Outcome

_BROKEN = (
    "RemoteProtocolError",
    "ReadError",
    "CloseError",
    "WriteError",
    "ProtocolError",
    "IncompleteRead",
    "ClientPayloadError",
    "ClientOSError",
    "ServerDisconnectedError",
)
"""Errors of the client libraries that mean that the connection ended in mid-body."""
_CANCELLED = ("CancelledError", "Cancelled")
"""asyncio's and trio's."""
_FAILURES: tuple[Outcome, ...] = ("cut", "failed", "no_response")
"""Leaving a stream early is no failure."""
_FAILED_STATUS = 400


def outcome_of(error: BaseException, *, answered: bool) -> Outcome:
    """Return the outcome of an exchange that this error ends; `answered` if a response's head had come."""
    kind = type(error).__name__
    if kind in _CANCELLED:
        return "cancelled"
    if not answered:
        return "no_response"
    if kind in _BROKEN or isinstance(error, ConnectionError | EOFError):
        return "cut"
    return "failed"


def is_failure(outcome: Outcome, status: int | None) -> bool:
    """Return whether an exchange that ended so failed; `status` is that of its response, if one came."""
    return outcome in _FAILURES or (status is not None and status >= _FAILED_STATUS)


def qualified(cls: type[BaseException]) -> str:
    """Return the class's name with its module, as `httpx2.ReadTimeout`."""
    return f"{cls.__module__}.{cls.__qualname__}"
