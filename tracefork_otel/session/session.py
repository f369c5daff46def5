"""What one process records, and into which WAL: one session a process, made anew in a forked child."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from ..log import LOG
from ..recording.named import Named
from ..recording.process import new_process_id, process_started
from ..redaction import redact
from ..store.records import Note, ProcessStarted, Record
from ..tape.key import own_key
from .housekeeping import Housekeeping
from .process import remote_parent, service_name, start_attributes, versions
from .runs import Runs
from .sealer import Sealer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from ..exchange import Outcome
    from ..play.answers import Answer
    from ..play.loading import Unplayable
    from ..play.match import Explanation
    from ..play.player import Player
    from ..settings import Settings
    from .own_span import OwnSpan, Parent

LOOKUPS = 2
"""How often the run of a parent process is looked for: at the start, and before the first root, as the parent
may have begun it in between."""


class Sink(Protocol):
    """Where records go: a `Wal`, or anything else with `append`."""

    def append(self, record: Record) -> None:
        """Write the record down; it is safe when this returns."""


class Draws(Protocol):
    """What the agent reads from clocks and randomness, as it is recorded and served."""

    def flush(self, trace_id: str | None = None) -> None:
        """Write down what was drawn so far."""

    def forked(self) -> None:
        """Begin anew in a forked child."""

    def seen(self, answer: Answer | None) -> Answer | None:
        """Return the tape's answer; where it has none, with the draws that the difference follows from."""

    def explained(self, explanation: Explanation) -> Explanation:
        """Return the explanation with the draws quoted that the difference follows from."""
        ...

    def enter_tool(self, name: str) -> Callable[[], None]:
        """Keep what a tool draws apart, until the returned function is called."""
        ...

    def include(self, modules: Iterable[str]) -> None:
        """Count draws of these modules as the agent's own from now on."""

    def stop(self) -> None:
        """Put every clock back."""


class Open(Protocol):
    """An exchange that goes on."""

    host: str
    seen: Any
    """Its ended span as other processors left it."""

    def finish(
        self, outcome: Outcome, error: BaseException | None = None, *, ended_ns: int | None = None
    ) -> None:
        """Write down how it ended; only the first call counts."""


class Session:
    """Settings, WAL, open exchanges and losses of this process; no method raises into the application."""

    def __init__(
        self,
        settings: Settings,
        *,
        via: str,
        remote: tuple[int, int, int] | None = None,
        sink: Sink | None = None,
    ) -> None:
        """Create a session; `remote` is (trace id, span id, flags) of the parent of this process's root."""
        self.settings = settings
        self.via = via
        self.redactor = redact.of(settings, key=partial(own_key, make=settings.mode == "record"))
        self.housekeeping = Housekeeping(settings.skip_hosts)
        self.remote = remote
        self.joined = False
        """Whether `remote` is the run of a parent process, not a command of ours."""
        self.service = service_name()
        self.launched = False
        """Whether the environment is ours: a `run`, a replay or a fork started this process."""
        self.capturing = False
        """Whether the HTTP clients are watched; an exporter alone only needs the store."""
        self.services: Any = None
        """What knows the services of the command's own processes, once asked; False where nothing does."""
        self.paused: str | None = None
        """Where the agent turned the recording off for a while, in a process that a command started."""
        self.player: Player | Unplayable | None = None
        self.draws: Draws | None = None
        """What the agent reads from clocks and randomness, if that is recorded or served."""
        self.sealer: Sealer | None = None
        self.allowed: tuple[tuple[str, int | None], ...] = ()
        """(host, port or None) that a replay may connect to."""
        self.root: OwnSpan | None = None
        """The span made for exchanges without a parent; a forked child keeps its parent's."""
        self.root_pid = 0
        """The process that ends it."""
        self.leaving = False
        """Whether the process is at its exit, and its root has ended."""
        self.files: Mapping[str, object] = {}
        """What is known of the files that the agent keeps, as attributes."""
        self.files_now: Mapping[str, object] = {}
        """The same of those that were kept last, for a call of an agent."""
        self.seen: object = None
        """What they were seen to be then."""
        self.called: deque[int] = deque(maxlen=64)
        """The traces in which an agent was called last: what is called inside is a part of that."""
        self.kept: ExitStack | None = None
        """What holds them in the store."""
        self.runs = Runs(None if settings.mode == "record" else self.launch_id)
        self._given = sink
        self._fresh()

    def _fresh(self) -> None:
        self.process_id = new_process_id()
        self.open: dict[int, Open] = {}
        """Open exchanges by span id."""
        self.work: dict[int, Callable[[], Parent | None]] = {}
        """Pieces of work that are open: spans without a parent here, by their ids; None once over."""
        self.requests: dict[int, Callable[[Parent | None], OwnSpan | None]] = {}
        """What opens the span of each request that a web application is answering."""
        self.roots: WeakValueDictionary[int, ReadableSpan] = WeakValueDictionary()
        """Open spans of adopted providers that have no parent, by their traces."""
        self.names = Named()
        self.told: set[int] = set()
        """Open spans whose start record, with how the process was started, is in the WAL."""
        self.abandoned: SimpleQueue[tuple[Open, int]] = SimpleQueue()
        self._seq = itertools.count()
        self.is_idle = True
        """Whether nothing was exchanged yet."""
        self.said_why = False
        """Whether the log says already why nothing may be captured."""
        self.sink: Sink | None = self._given
        """Where records go, once there was one."""
        self._sink_lock = threading.Lock()
        self.root_lock = threading.Lock()
        self._losses: dict[str, int] = {}
        self._unreported = 0
        self._extras: dict[str, object] | None = None
        self._lookups = 0

    def after_fork(self) -> None:
        """Begin anew in a forked child: a WAL, a process id and locks of its own, nothing open."""
        self._fresh()
        self.runs.after_fork()
        if self.sealer is not None:
            self.sealer = Sealer()
        if self.draws is not None:
            self.draws.forked()

    def adjust(self, changes: Mapping[str, Any]) -> None:
        """Replace the given settings and keep the others."""
        self.settings = replace(self.settings, **changes)
        self.redactor = redact.of(self.settings, key=partial(own_key, make=self.settings.mode == "record"))
        self.housekeeping = Housekeeping(self.settings.skip_hosts)
        self._extras = None

    @property
    def launch_id(self) -> str | None:
        """The trace of the command that started this process, or None."""
        return None if self.remote is None or self.joined else f"{self.remote[0]:032x}"

    def handed_down(self) -> dict[str, str]:
        """Return the variables by which a child records, or is played to, as this process is."""
        ours = replace(self.settings, state=(), imported=None).to_env()  # both are the first process's
        if self.remote is not None:
            trace_id, span_id, flags = self.remote
            ours["TRACEPARENT"] = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
        return ours

    def join(self) -> None:
        """Look for the run of the process that started this one, for the root of this one to be part of."""
        if self.remote is None and self._lookups < LOOKUPS and self.capturing and self.via != "backend":
            self._lookups += 1
            try:
                from . import family

                self.remote = remote_parent()
                if self.remote is None and (found := family.open_run(self.settings.store)) is not None:
                    self.remote, run_id = found
                    self.runs.apart(self.remote[0], run_id)
                    self.runs.own = self.runs.own or run_id
                self.joined = self.remote is not None
            except Exception as error:
                self.lost("search for the parent's run", error)

    def next_seq(self) -> int:
        """Return the next exchange's place in this process, 0-based."""
        self.is_idle = False
        return next(self._seq)

    def append(self, record: Record) -> bool:
        """Write the record into the WAL and return True; where that fails, count and log the loss."""
        try:
            sink = self.sink or self._open()
            sink.append(record)
        except Exception as error:
            self.lost(type(record).__name__, error)
            return False
        if self._unreported:
            with suppress(Exception):
                self._report()
        return True

    def _open(self) -> Sink:
        with self._sink_lock:
            if self.sink is None:
                from ..store.wal import Wal

                self.sink = Wal(
                    self.settings.store,
                    self.process(),
                    sync=self.settings.sync,
                    rotate_bytes=self.settings.rotate_bytes,
                    on_rotated=None if self.sealer is None else self.sealer.seal_later,
                )
                if self.redactor.unreadable is not None:
                    why = {"why": self.redactor.unreadable}
                    self.sink.append(Note(kind="incomplete", time_ns=time_ns(), attributes=why))
            return self.sink

    def process(self) -> ProcessStarted:
        """Return how this process describes itself at the head of its WAL."""
        return process_started(
            process_id=self.process_id,
            argv=self.redactor.command(sys.orig_argv),
            mode=self.settings.mode,
            via=self.via,
            launch_id=self.launch_id,
            attributes={
                "host": os.uname().nodename,
                "python": sys.version.split()[0],
                "service": self.service,
            },
        )

    def lost(self, where: str, error: BaseException) -> None:
        """Count the loss, log the first of its kind, and note it in the WAL once that can be written."""
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        kind = f"{where}: {getattr(cause, 'strerror', None) or type(error).__name__}"
        count = self._losses.get(kind, 0) + 1
        self._losses[kind] = count
        self._unreported += 1
        if count == 1:
            with suppress(Exception):  # a log handler of the application's may raise as well
                LOG.warning(
                    "tracefork could not record (%s): %s."
                    " The application goes on; the run is marked incomplete.",
                    where,
                    error,
                )
            with suppress(Exception):
                # At once: a note is small and may fit where a body did not; later not even that may.
                self._report()

    def _report(self) -> None:
        pending, self._unreported = self._unreported, 0
        sink = self.sink
        if not pending or sink is None:
            return
        why = "; ".join(f"{kind} x{count}" for kind, count in self._losses.items())
        try:
            sink.append(Note(kind="lost", time_ns=time_ns(), attributes={"count": pending, "why": why}))
        except Exception:
            self._unreported += pending

    def note(self, kind: str, attributes: Mapping[str, object], trace_id: str | None = None) -> None:
        """Write a note into the WAL."""
        self.append(Note(kind=kind, time_ns=time_ns(), trace_id=trace_id, attributes=attributes))

    def name_run(self, run_id: str, *sources: Mapping[str, Any] | None) -> None:
        """Write down which session and conversation the run is part of, where these attributes say so."""
        note = self.names.note(run_id, *sources)
        if note is not None:
            self.append(replace(note, attributes=self.redactor.attributes(note.attributes)))

    def reap(self) -> None:
        """End the exchanges whose response was dropped unread, as of the time at which it was dropped."""
        while not self.abandoned.empty():
            with suppress(Empty):  # another thread may reap as well
                exchange, when = self.abandoned.get_nowait()
                exchange.finish("abandoned", ended_ns=when)

    def flush(self) -> None:
        """Write what is known so far into the WAL."""
        self.reap()
        self.flush_draws()
        self._report()

    def flush_draws(self, trace_id: str | None = None) -> None:
        """Write what the agent drew so far into the WAL, as part of that trace's run if one is given."""
        if self.draws is not None:
            try:
                self.draws.flush(None if trace_id is None else self.runs.of(int(trace_id, 16)))
            except Exception as error:
                self.lost("draws", error)

    def close(self) -> None:
        """Close the WAL, so that anyone may seal it."""
        self.flush()
        if self.sealer is not None:
            self.sealer.stop()
        if self.kept is not None:
            self.kept.close()
        close = getattr(self.sink, "close", None)
        if close is not None:
            with suppress(Exception):
                close()

    def prepare(self) -> None:
        """Do what the first exchange would wait for: load the WAL's code, find out how we were started."""
        from ..store import wal  # noqa: F401

        own_key(make=True)
        self._extras = start_attributes(self.settings.mode, self.redactor)

    def run_attributes(self) -> dict[str, object]:
        """Return how this process was started, for the store's record of a root span; no exporter sees it."""
        if self._extras is None:
            self._extras = start_attributes(self.settings.mode, self.redactor)
        return {**self._extras, **self.files, **versions()}
