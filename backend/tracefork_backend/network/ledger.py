"""What passes the proxy, written down: one run a session, or one for each name that the client gives."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import secrets
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import perf_counter_ns, time_ns
from urllib.parse import urlsplit

from tracefork_otel import __version__
from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Headers, Outcome, RedactedRequest, Request, Response
from tracefork_otel.redaction import redact
from tracefork_otel.session.events import qualified
from tracefork_otel.settings import Settings
from tracefork_otel.store.records import (
    ExchangeEnded,
    ExchangeStarted,
    Note,
    ProcessStarted,
    Record,
    SpanRecord,
)
from tracefork_otel.store.wal import Wal
from tracefork_otel.wire.registry import recognise

LOG = logging.getLogger("tracefork_backend")
RUN_HEADER = "x-tracefork-run"
SCOPE = "tracefork"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")
_ERRORS: tuple[Outcome, ...] = ("cut", "failed", "no_response")
_FAILED_STATUS = 400


class Ledger:
    """Writes exchanges and the roots of their runs; never raises, counts what it could not write."""

    def __init__(
        self,
        store: Path,
        *,
        settings: Settings,
        name: str,
        launch: tuple[str, str] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """With `launch` (trace and span id) all belongs to that command's run, whose root others write."""
        self.redactor = redact.of(settings)
        self.lost = 0
        self.exchanges = 0
        self._name = name
        self._launch = launch
        self._attributes = dict(attributes or {})
        if self.redactor.rules is not None:
            # A replay by another proxy has to replace the same.
            kept = {redact.RULES_VARIABLE: self.redactor.rules.source}
            self._attributes.setdefault("tracefork.environment", json.dumps(kept))
        self._mode = settings.mode
        self._session = secrets.token_hex(16)
        self._roots: dict[str, SpanRecord] = {}
        self._seq = itertools.count()
        self._lock = Lock()
        self._wal = Wal(
            store,
            ProcessStarted(
                process_id=f"{os.getpid()}-{secrets.token_hex(4)}",
                pid=os.getpid(),
                ppid=os.getppid(),
                started_ns=time_ns(),
                executable=sys.executable,
                argv=(),
                cwd=os.getcwd(),
                mode=settings.mode,
                via="proxy",
                launch_id=None if launch is None else launch[0],
                attributes={"service": name, "tracefork_otel": __version__},
            ),
            sync=settings.sync,
            rotate_bytes=settings.rotate_bytes,
        )

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that have a root here, in order of their start."""
        return tuple(self._roots)

    def note(self, kind: str, attributes: Mapping[str, object]) -> None:
        """The note is in the WAL."""
        self._append(Note(kind=kind, time_ns=time_ns(), attributes=attributes))

    def begin(self, request: Request, headers: Mapping[str, str], *, replayed: bool = False) -> Entry:
        """The request is in the WAL, in the run that its headers name."""
        trace_id, parent = self._run_of(headers)
        parts = urlsplit(request.url)
        call = recognise(request.method, request.url, request.body)
        name = f"{request.method} {parts.hostname}"
        attributes: dict[str, object] = {}
        if call is not None:
            name = f"{call.operation} {call.model}" if call.model else call.operation
            attributes = {"gen_ai.provider.name": call.provider, "gen_ai.operation.name": call.operation}
            if call.model:
                attributes["gen_ai.request.model"] = call.model
        entry = Entry(self, secrets.token_hex(8), name, attributes, replayed=replayed)
        if isinstance(request, RedactedRequest):
            entry.asked.update(request.counts)
            entry.withheld, request = request.withheld, request.recorded()
        self.exchanges += 1
        self._append(
            ExchangeStarted(
                trace_id=trace_id,
                span_id=entry.span_id,
                parent_span_id=parent,
                seq=next(self._seq),
                started_ns=entry.started_ns,
                request=request,
                name=name,
                service=self._name,
                replayed=replayed,
            )
        )
        return entry

    def _run_of(self, headers: Mapping[str, str]) -> tuple[str, str]:
        found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        if self._launch is not None:
            trace_id, span_id = self._launch
            return trace_id, found["span"] if found and found["trace"] == trace_id else span_id
        named = headers.get(RUN_HEADER)
        if named:
            trace_id = sha256(f"{self._session}\0{named}".encode("utf-8", "replace")).hexdigest()[:32]
            return trace_id, self._root(trace_id, named)
        if found and found["trace"].strip("0") and found["span"].strip("0"):
            return found["trace"], found["span"]
        return self._session, self._root(self._session, self._name)

    def _root(self, trace_id: str, name: str) -> str:
        root = self._roots.get(trace_id)
        if root is None:
            root = self._roots[trace_id] = SpanRecord(
                trace_id=trace_id,
                span_id=secrets.token_hex(8),
                parent_span_id=None,
                name=name,
                kind="INTERNAL",
                started_ns=time_ns(),
                service=self._name,
                scope=SCOPE,
                attributes={
                    "tracefork.run.kind": "record" if self._mode == "record" else self._mode,
                    **self._attributes,
                },
            )
            self._append(root)
        return root.span_id

    def _append(self, record: Record) -> None:
        try:
            self._wal.append(record)
        except StoreError as error:
            with self._lock:
                self.lost += 1
            if self.lost == 1:
                LOG.error("tracefork: what passes is not recorded: %s. Requests go on.", error)

    def close(self) -> None:
        """The roots have ended, what was lost is said, and the WAL can be sealed."""
        if self.lost:
            self.note("lost", {"count": self.lost, "why": "the store could not be written"})
        for root in self._roots.values():
            self._append(replace(root, ended_ns=time_ns()))
        self._wal.close()


class Entry:
    """One exchange while it passes; `end` writes it down, exactly once."""

    def __init__(
        self, ledger: Ledger, span_id: str, name: str, attributes: dict[str, object], *, replayed: bool
    ) -> None:
        self.span_id = span_id
        self.started_ns = time_ns()
        self.attributes = attributes
        self.intervention: str | None = None
        self.served_span_id: str | None = None
        self.done = False
        self.asked: Counter[str] = Counter()
        """How often the user's rules replaced something in the request, and below in the response."""
        self.replaced: Counter[str] = Counter()
        self.withheld: str | None = None
        self._ledger = ledger
        self._name = name
        self._replayed = replayed
        self._started = perf_counter_ns()
        self._head: tuple[int, Headers, str] | None = None
        self._chunks: list[bytes] = []
        self._offsets: list[int] = []

    @property
    def answered(self) -> bool:
        """Whether the head of a response has come."""
        return self._head is not None

    def head(self, status: int, headers: Headers, http_version: str) -> None:
        """The head of the response is known."""
        self._head = status, headers, http_version

    def chunk(self, data: bytes) -> None:
        """The chunk and its time are kept."""
        self._offsets.append((perf_counter_ns() - self._started) // 1000)
        self._chunks.append(data)

    def end(
        self,
        outcome: Outcome,
        *,
        error: BaseException | None = None,
        error_type: str | None = None,
        error_message: str | None = None,
    ) -> None:
        """The exchange is in the WAL, whole; only the first call counts."""
        if self.done:
            return
        self.done = True
        if error is not None:
            error_type, error_message = qualified(type(error)), str(error)
        response: Response | None = None
        if self._head is not None:
            status, headers, version = self._head
            response = Response(
                status=status,
                headers=headers,
                body=b"".join(self._chunks),
                chunk_sizes=tuple(map(len, self._chunks)),
                chunk_offsets_us=tuple(self._offsets),
                http_version=version,
            )
            if not self._replayed:
                response, why = self._ledger.redactor.response(response, self.replaced)
                self.withheld = self.withheld or why
        redact.told(self.attributes, self.asked, self.replaced, self.withheld)
        failed = outcome in _ERRORS or (response is not None and response.status >= _FAILED_STATUS)
        self._ledger._append(
            ExchangeEnded(
                span_id=self.span_id,
                ended_ns=self.started_ns + perf_counter_ns() - self._started,
                outcome=outcome,
                response=response,
                error_type=error_type,
                error_message=error_message,
                replayed=self._replayed,
                served_span_id=self.served_span_id,
                intervention=self.intervention,
                name=self._name,
                span_status="ERROR" if failed else "UNSET",
                attributes=self.attributes,
            )
        )
        self._chunks, self._offsets = [], []
