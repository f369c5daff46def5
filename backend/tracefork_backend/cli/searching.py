"""What `blame` and `repair` show while they search, and how they end where nothing could be graded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from .output import FAILED, growing, say

if TYPE_CHECKING:
    from ..blaming.journal import TrialRecord

_Progress = TypeVar("_Progress")


@contextlib.contextmanager
def progress(line: Callable[[_Progress], str]) -> Iterator[Callable[[_Progress], None]]:
    """Give what shows a search by its line."""
    with growing("replaying the run, to see that it still does what was recorded …") as tell:
        yield lambda progress: tell(line(progress))


@contextlib.contextmanager
def resumable(verb: str, begun: Callable[[], Sequence[str]], resumed: str | None) -> Iterator[None]:
    """Say, where the block is interrupted, by which name its experiment is gone on with; `begun` gives all.

    Where it is interrupted before it began one, no other is named in its place.
    """
    before = {*begun()}
    try:
        yield
    except KeyboardInterrupt:
        ours = resumed or next((one for one in begun() if one not in before), None)
        if ours is None:
            say("interrupted before it began: there is nothing to go on with")
        else:
            say(f"interrupted; what was paid for is kept: tracefork-otel {verb} resume {ours[:8]}")
        raise


def status_of(stop_reason: str | None, trials: Sequence[TrialRecord], problem: str | None) -> int:
    """Return the exit status of a search that ended so: FAILED, and say why, if no fork was graded."""
    if stop_reason not in ("aborted", "budget") or any(one.outcome is not None for one in trials):
        return 0
    why = f"no fork could be graded: {problem or 'the oracle could not tell'}"
    say(f"error: {why if trials else 'no fork was made: --budget has no room for the first'}")
    return FAILED
