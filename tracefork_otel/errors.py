"""Every error this project raises, as one tree.

TraceforkError
├── UsageError          a wrong reference, flag or value: the caller can mend it            exit 2
│   └── UnknownRun      no run, or more than one, goes by that name
├── StoreError          a store, WAL, segment or manifest that cannot be read or written    exit 2
├── TapeError           a tape that cannot be read, or does not hold what it claims         exit 2
│   └── TruncatedBody   a body is missing bytes or does not match its digest
├── Drift               a replay differs from its tape                                      exit 1
├── ToolFailed          a tool failed in the recording, by an exception that is not here    exit 3
└── AgentFailed         the agent could not be imported, crashed, or ran out of time        exit 3

A message says what happened, where, and what to do.
"""

from __future__ import annotations


class TraceforkError(Exception):
    """The root of the tree: catch it to catch all of them."""

    exit_status = 3


class UsageError(TraceforkError):
    """A reference, flag or value that does not exist or does not fit; the caller can mend it."""

    exit_status = 2


class UnknownRun(UsageError):
    """A name that no run goes by, or more than one."""


class StoreError(TraceforkError):
    """A file of the store that cannot be read or written; the message names it."""

    exit_status = 2


class TapeError(TraceforkError):
    """A tape that cannot be read, or does not hold what it claims."""

    exit_status = 2


class TruncatedBody(TapeError):
    """A body that lacks bytes or does not match its digest, so that its run cannot be replayed."""


class Drift(TraceforkError):
    """A difference between a replay and its tape; the message is the explanation."""

    exit_status = 1


class AgentFailed(TraceforkError):
    """An agent that could not be started, crashed, or ran out of time."""

    exit_status = 3


class ToolFailed(TraceforkError):
    """Stand-in for a tool's recorded exception whose type is not loaded here."""

    exit_status = 3

    def __init__(self, message: str, *, kind: str = "") -> None:
        """Create the error; `kind` is the recorded type's name with its module."""
        super().__init__(f"{kind}: {message}" if kind else message)
        self.kind = kind


def newer_format(where: object, what: str, found: int, known: int) -> str:
    """Return what is said of a file that a newer version wrote."""
    newest = f"{what} format {found} is newer than {known}, the newest that this version reads"
    return f"{where}: {newest}; upgrade tracefork-otel"
