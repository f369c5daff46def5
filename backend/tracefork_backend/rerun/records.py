"""What the processes of a replay or a fork recorded, and what it says of how they were played to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.claims import Claims, result_of
from tracefork_otel.play.match import Cause, Explanation
from tracefork_otel.store.held import Held
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

from ..agents.left import Left, still_left
from ..grading.graded import NOTHING
from ..spelling import shown
from ..store.absent import Absent, absent_of
from ..store.lost import losses

REFUSED = "tracefork_otel.Drift"
"""The error type of a request that was refused here."""
_DRIFT = "tracefork.drift"
_MORE = re.compile(r"[-+| ]+$|\(?\s*(?:for|see) (?:more|further|help)|\(?\s*https?://\S+$|\^+$", re.I)
"""What libraries put below an error's own words."""
_ERROR = 400
_LISTED = 3
"""The first status that means an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One way in which a replay differs from its tape."""

    step: int
    cause: Cause
    text: str
    """One line for a person."""
    path: str = ""
    recorded: str | None = None
    got: str | None = None
    nearest: int | None = None
    differences: int = 0
    site: str | None = None
    """Where the agent's code asked for it, as `file:line function`; None where that is not known."""

    @classmethod
    def of(cls, refused: Exchange | SpanRecord) -> DriftReport:
        """Return how a request, or a call of a tool, that was refused differs from its tape."""
        one = _explanation(refused)
        return cls(
            step=one.step,
            cause=one.cause,
            text=one.text(),
            path=one.path,
            recorded=one.recorded,
            got=one.got,
            nearest=one.nearest,
            differences=one.differences,
            site=refused.site if isinstance(refused, Exchange) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A connection that went round the seam, or a program that may have made some."""

    host: str
    port: int | None
    """None where `host` is a program, which ran out of reach."""
    caller: str

    @property
    def text(self) -> str:
        """One line for a person."""
        meant = f"if that is meant: --allow-host {quote(self.host)}"
        if self.port is None:
            return f"{self.caller}: what it asks is not served from the tape; {meant}"
        return f"{self.host}:{self.port} by {self.caller}: not served from the tape; {meant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Everything that the processes of one replay or fork recorded."""

    exchanges: Sequence[Exchange]
    """In order of their start."""
    spans: Sequence[SpanRecord]
    processes: Sequence[ProcessStarted]
    notes: Sequence[Note]
    absent: Sequence[Absent] = ()
    """Pythons that were reached, and have not what records and plays."""
    left: Sequence[Left] = ()
    """Programs that the agent's command itself starts out of reach."""
    ran: Sequence[str] = ()
    """Known interpreters of other languages that were seen to run."""
    changed: Sequence[str] = ()
    """Files of the user's that have a copy here, and were changed meanwhile nevertheless."""

    @classmethod
    def read(cls, store: Path, *, allowed: Sequence[str] = ()) -> Records:
        """Return what the WALs of this store hold; programs that are `allowed` may run unseen."""
        held = Held()
        contents = [read_wal(path, keep=held.keep) for path in wal_files(store)]
        exchanges, spans, processes, notes = exchanges_of(contents)
        exchanges.sort(key=lambda one: (one.started_ns, one.span_id))
        absent = [one for one in absent_of(store) if one.program not in allowed]
        return cls(exchanges=exchanges, spans=spans, processes=processes, notes=notes, absent=absent)

    def refused(self) -> list[Exchange | SpanRecord]:
        """Return the requests, and calls of tools, that were refused, the first one first."""
        found = (one for one in (*self.exchanges, *self.spans) if _DRIFT in one.attributes)
        return sorted(found, key=lambda one: one.started_ns)

    def drifts(self) -> tuple[DriftReport, ...]:
        """Return why requests and calls were refused, each reason once however often it was tried again."""
        found: dict[str, DriftReport] = {}
        for one in self.refused():
            found.setdefault(_explanation(one).fingerprint, DriftReport.of(one))
        return tuple(found.values())

    def leaks(self) -> tuple[Leak, ...]:
        """Return the connections and programs that went round the seam, each once."""
        found: dict[Leak, None] = {}
        for note in self.notes:
            if note.kind == "leak":
                port = note.attributes.get("port")
                host, caller = (str(note.attributes.get(name, "?")) for name in ("host", "caller"))
                found.setdefault(Leak(host=host, port=port if isinstance(port, int) else None, caller=caller))
        for one in (*map(Left.of, self.absent), *still_left(self.left, self.processes)):
            found.setdefault(Leak(host=one.program, port=None, caller=one.what))
        return tuple(found)

    def programs(self) -> tuple[str, ...]:
        """Return what is said of programs that may have asked whom they want, and were not seen to."""
        started: dict[str, str] = {}
        for note in self.notes:
            if note.kind == "program":
                program, caller = (str(note.attributes.get(name, "")) for name in ("program", "caller"))
                started.setdefault(program, f"the program {program}, which was started{caller},")
        for program in self.ran:
            started.setdefault(program, f"the program {program}, which was started below the command,")
        leaks = {leak.host for leak in self.leaks()}
        return tuple(
            f"{what} is not played to: what it asks goes out, and no connection of it was seen; "
            "run --proxy records what such a program asks"
            for program, what in started.items()
            if program not in leaks
        )

    def telemetry(self) -> tuple[str, ...]:
        """Return whose telemetry went to whom or would have, which is no part of the run, each once."""
        found: dict[str, None] = {}
        for note in self.notes:
            if note.kind == "telemetry":
                client, host, port = (note.attributes.get(name, "?") for name in ("client", "host", "port"))
                what = f"telemetry of {client} to {host}:{port}" if client else f"{host}:{port} (--skip-host)"
                was = "went out: it is no part of the run" if _was_sent(note) else "was not sent"
                found[f"{what} {was}"] = None
        return tuple(found)

    @property
    def went_out(self) -> bool:
        """Whether somebody's telemetry, or what the user left out, was asked over the network."""
        return any(note.kind == "telemetry" and _was_sent(note) for note in self.notes)

    def at_import(self) -> tuple[str, ...]:
        """Return what is said of calls that the agent's module made while it was imported."""
        found = (str(note.attributes.get("why")) for note in self.notes if note.kind == "import")
        return tuple(dict.fromkeys(found))

    def written(self) -> tuple[str, ...]:
        """Say what the agent wrote to outside of its copies, and what it had copies of that was not kept."""
        said: list[str] = []
        if paths := [shown(path) for path in self.changed]:
            said.append(
                f"{_listed(paths)} changed while the agent ran on a copy: a program or library that opens "
                "files by itself did so, or somebody else; name a kept file to a program by an argument of "
                "its own, or start it in a folder that is kept (docs/state.md)"
            )
        if paths := self._paths("database"):
            said.append(
                f"the agent worked on a copy of {_listed(paths)} as it is now, and left the original alone: "
                f"where it goes on from what is there, record it with {_flags(paths)}"
            )
        as_they_are = dict(self._told("as it is"))
        for path, why in as_they_are.items():
            said.append(f"the agent worked on the database {path} itself, not on a copy: {why}")
        if paths := [path for path in self._paths("written") if path not in as_they_are]:
            said.append(
                f"the agent opened {_listed(paths)} for writing, and not in a copy: where it goes on from "
                f"what is there, record it with {_flags(paths)}"
            )
        for path in self._paths("cache"):
            said.append(
                f"the cache at {path} was another one here, empty at first: if it answered in the recording, "
                f"record with --state {quote(path)}"
            )
        return tuple(said)

    def _paths(self, kind: str) -> list[str]:
        return list(dict.fromkeys(path for path, _ in self._told(kind)))

    def _told(self, kind: str) -> list[tuple[str, str]]:
        found = (note.attributes for note in self.notes if note.kind == kind)
        return [(shown(str(one.get("path", "?"))), shown(str(one.get("why", "")))) for one in found]

    def losses(self) -> tuple[str, ...]:
        """Return why something is not recorded, once a process."""
        return tuple(loss.why for loss in losses(self.notes))

    def result(self) -> object:
        """Return what the agent function returned, from the first span of one that says so."""
        first = self._returned()
        return None if first is None else first.attributes["tracefork.result"]

    def whole_result(self, claims: Claims) -> tuple[object, int]:
        """Return the same, all of it where that stands beside, and how many bytes of it are left out."""
        first = self._returned()
        if first is None:
            return None, 0
        left_out = int(str(first.attributes.get("tracefork.result.left_out", 0)))
        whole = claims.said(result_of(first.span_id)) if left_out else ""
        return (whole, 0) if whole else (first.attributes["tracefork.result"], left_out)

    def _returned(self) -> SpanRecord | None:
        found = [span for span in self.spans if "tracefork.result" in span.attributes]
        first = min(found, key=lambda span: span.started_ns, default=None)
        return None if first is None or first.attributes["tracefork.result"] == NOTHING else first


def _was_sent(note: Note) -> bool:
    return bool(note.attributes.get("sent", True))


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more


def _flags(paths: Sequence[str]) -> str:
    return " ".join(f"--state {quote(path)}" for path in paths[:_LISTED])


def _explanation(refused: Exchange | SpanRecord) -> Explanation:
    return Explanation.from_json(str(refused.attributes[_DRIFT]))


def phase_of(one: Exchange | SpanRecord) -> Any:
    """Return the phase of a fork in which it was made, as the seam wrote it; None if it never ended."""
    return one.attributes.get("tracefork.phase")


def is_error(exchange: Exchange) -> bool:
    """Return whether the response is an error: of a model's call, the model did not answer."""
    return exchange.response is not None and exchange.response.status >= _ERROR


def went_live(exchange: Exchange) -> bool:
    """Return whether it went over the network."""
    return not exchange.replayed and exchange.error_type != REFUSED


def last_line(text: str) -> str:
    """Return the last line that says something: of a traceback the error, not where more of it is told."""
    # An exception group is drawn in boxes.
    lines = [line.strip(" |\t") for line in reversed(text.splitlines()) if line.strip(" |\t")]
    return next((line for line in lines if not _MORE.match(line)), next(iter(lines), ""))
