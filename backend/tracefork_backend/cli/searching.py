"""What `blame` and `repair` show while they search, and how they end where nothing could be graded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .output import FAILED, live, say

if TYPE_CHECKING:
    from ..blaming.journal import TrialRecord

_Progress = TypeVar("_Progress")


@contextlib.contextmanager
def progress(line: Callable[[_Progress], Any]) -> Iterator[Callable[[_Progress], None] | None]:
    """Give what shows a search on a terminal by a line; None where standard error is none."""
    if not sys.stderr.isatty():
        yield None
        return
    begin = "replaying the run, to see that it still does what was recorded …"
    with live(begin, per_second=4) as shown:
        yield lambda progress: shown.update(line(progress))


def status_of(stop_reason: str | None, trials: Sequence[TrialRecord], problem: str | None) -> int:
    """Return the exit status of a search that ended so: FAILED, and say why, if no fork was graded."""
    if stop_reason not in ("aborted", "budget") or any(one.outcome is not None for one in trials):
        return 0
    why = f"no fork could be graded: {problem or 'the oracle could not tell'}"
    say(f"error: {why if trials else 'no fork was made: --budget has no room for the first'}")
    return FAILED
