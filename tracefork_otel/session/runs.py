"""Which run each trace of this process is part of."""

from __future__ import annotations

import threading

_REMEMBERED = 8192
"""Traces whose run is known: what goes on after a span has ended is part of the same run."""


class Runs:
    """The run of each trace in which something was asked, and that which further traces become part of."""

    def __init__(self, whole: str | None = None) -> None:
        """`whole` is the run that all of this is part of, in a process that a replay or a fork started."""
        self.is_whole = whole is not None
        self.own: str | None = whole
        """The run of this process; None until something was asked in it."""
        self.serves = False
        """Whether an application is served here, each piece of whose work is a run by itself."""
        self._of: dict[int, str] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Go on with what is known, and with a lock that nobody holds."""
        self._lock = threading.Lock()

    def known(self, trace_id: int) -> str | None:
        """Return the run of a trace; None where that is not decided."""
        return self._of.get(trace_id)

    def of(self, trace_id: int) -> str:
        """Return the run of a trace as far as that is decided, else the trace itself."""
        return self._of.get(trace_id) or f"{trace_id:032x}"

    def share(self, trace_id: int) -> str:
        """Return the run of a trace: that of this process, which the trace begins if there is none yet."""
        with self._lock:
            if trace_id not in self._of:
                self.own = self.own or f"{trace_id:032x}"
                self._keep(trace_id, self.own)
            return self._of[trace_id]

    def apart(self, trace_id: int, run_id: str | None = None) -> str:
        """Return the run of a trace: unless that is decided, `run_id`, or the trace itself."""
        with self._lock:
            if trace_id not in self._of:
                self._keep(trace_id, run_id or f"{trace_id:032x}")
            return self._of[trace_id]

    def called(self, trace_id: int) -> None:
        """Have a trace in which an agent is called be a run by itself, and nothing else be part of it.

        One that is part of another run already stays so.
        """
        if self.is_whole:
            return
        if self.apart(trace_id) == self.own == f"{trace_id:032x}":
            self.own = None

    def ended(self) -> None:
        """Have what is asked next begin a run: the piece of work that this one was is over."""
        if not self.is_whole:
            self.own = None

    def _keep(self, trace_id: int, run_id: str) -> None:
        while len(self._of) >= _REMEMBERED:
            del self._of[next(iter(self._of))]
        self._of[trace_id] = run_id
