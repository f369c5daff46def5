"""How far a recording goes: to its agent's end, or less far, and why; in words too."""

from __future__ import annotations

import signal
from collections.abc import Collection, Mapping
from itertools import pairwise

from tracefork_otel.tape.file import CutShort
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..store import Store

_SIGNALLED = 128
_INTERRUPTED = _SIGNALLED + signal.SIGINT
"""The status of a command that Ctrl-C ended."""
_SIGNALS = range(_SIGNALLED + 1, _SIGNALLED + signal.NSIG)
"""Those of commands that a signal ended."""
_STATUS: Mapping[str, CutShort] = {"running": "running", "part": "running", "killed": "killed"}
_SPARE_S = 5.0
"""A process that starts up beside others may take as much longer than it did."""
_WHY: Mapping[CutShort, str] = {
    "running": "the run still went on",
    "killed": "its process was killed",
    "interrupted": "it was interrupted (Ctrl-C)",
}


def how_far(
    store: Store, run_ids: Collection[str], launch_id: str | None, start: HowStarted
) -> tuple[CutShort | None, int | None]:
    """Return why these runs, of one command if there is one, are cut short, and when the command ended.

    The first is None where they are not, the second where no process was still at work then.
    """
    found = store.ask("extent", run_ids=list(run_ids), launch_id=launch_id)[0]
    ended_ns: int | None = found["command_ended_ns"]
    left = ended_ns is not None and (found["at_work"] or found["last_ns"] > ended_ns)
    left_ns = ended_ns if left else None
    for status, why in _STATUS.items():
        if status in found["statuses"]:
            return why, left_ns
    if launch_id is not None and found["at_work"]:
        return "running", left_ns
    if found["interrupted"] or start.exit_status == _INTERRUPTED:
        return "interrupted", left_ns
    return ("killed" if start.exit_status in _SIGNALS else None), left_ns


def why_short(tape: Tape) -> str | None:
    """Return after which step the tape ends and why, in words; None if its agent came to its end."""
    if tape.cut_short is None:
        return None
    where = f"after step {tape.steps - 1}" if tape.steps else "before its first step"
    return f"the recording ends {where}: {_WHY[tape.cut_short]}"


def lingering(tape: Tape) -> float:
    """Return for how many seconds what the command leaves is waited for: as long as it was at work."""
    if tape.left_ns is None:
        return 0.0
    last_ns = max((one.ended_ns or one.started_ns for one in tape.exchanges), default=tape.left_ns)
    return max(0.0, (last_ns - tape.left_ns) / 1e9) + _SPARE_S


def longest_pause(tape: Tape) -> float:
    """Return the most seconds in which no exchange of a recording began or ended."""
    moments = sorted(at for one in tape.exchanges for at in (one.started_ns, one.ended_ns) if at is not None)
    return max((after - before for before, after in pairwise(moments)), default=0) / 1e9


def was_left(tape: Tape, started_ns: int) -> bool:
    """Return whether the exchange of that start was made by a process that its command had left."""
    return tape.left_ns is not None and started_ns > tape.left_ns
