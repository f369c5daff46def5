"""What passes the proxy, written down: one run a session, or one for each name that the client gives."""

from __future__ import annotations

import itertools
import json
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import time_ns
from urllib.parse import urlsplit

from tracefork_otel.errors import StoreError
from tracefork_otel.exchange import Request
from tracefork_otel.recording.exchange import Ids, OpenExchange, named
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction import redact
from tracefork_otel.settings import Settings
from tracefork_otel.store.records import Note, Record, SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.key import own_key
from tracefork_otel.tape.marks import marked

LOG = logging.getLogger("tracefork_backend")
RUN_HEADER = "x-tracefork-run"
SCOPE = "tracefork"
MOST_RUNS = 4096
"""Runs that are open at once: where clients name more, the one that was asked for least recently ends."""
_NAME = 200
"""Characters of a run's name, which a client gives."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")


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
        """Open a WAL of its own; with `launch` (trace and span id) all belongs to that command's run."""
        self.redactor = redact.of(settings, key=partial(own_key, make=settings.mode == "record"))
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
        self._roots: OrderedDict[str, SpanRecord] = OrderedDict()
        self._seq = itertools.count()
        self._lock = Lock()
        self._wal = Wal(
            store,
            process_started(
                mode=settings.mode,
                via="proxy",
                launch_id=None if launch is None else launch[0],
                service=name,
            ),
            sync=settings.sync,
            rotate_bytes=settings.rotate_bytes,
        )

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that have an open root here, in the order in which they were asked for last."""
        return tuple(self._roots)

    def note(self, kind: str, attributes: Mapping[str, object]) -> None:
        """Write the note down."""
        self.append(Note(kind=kind, time_ns=time_ns(), attributes=attributes))

    def begin(self, request: Request, headers: Mapping[str, str], *, replayed: bool = False) -> OpenExchange:
        """Write the request down, in the run that its headers name."""
        trace_id, parent = self._run_of(headers)
        name, attributes = named(request, urlsplit(request.url).hostname or "")
        ids = Ids(trace_id, secrets.token_hex(8), parent)
        exchange = OpenExchange(
            self, ids, request, name=name, started_ns=time_ns(), replayed=replayed, attributes=attributes
        )
        self.exchanges += 1
        exchange.begin(seq=next(self._seq), service=self._name)
        return exchange

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
                name=name[:_NAME],
                kind="INTERNAL",
                started_ns=time_ns(),
                service=self._name,
                scope=SCOPE,
                attributes=marked(trace_id, {"tracefork.run.kind": self._mode, **self._attributes}),
            )
            self.append(root)
            if len(self._roots) > MOST_RUNS:
                _, ended = self._roots.popitem(last=False)
                self.append(replace(ended, ended_ns=time_ns()))
        self._roots.move_to_end(trace_id)
        return root.span_id

    def append(self, record: Record) -> None:
        """Write the record down; what cannot be written is counted."""
        try:
            self._wal.append(record)
        except StoreError as error:
            with self._lock:
                self.lost += 1
            if self.lost == 1:
                LOG.error("tracefork: what passes is not recorded: %s. Requests go on.", error)

    def close(self) -> None:
        """End the roots, say what was lost, and close the WAL, which can be sealed then."""
        if self.lost:
            self.note("lost", {"count": self.lost, "why": "the store could not be written"})
        for root in self._roots.values():
            self.append(replace(root, ended_ns=time_ns()))
        self._wal.close()
