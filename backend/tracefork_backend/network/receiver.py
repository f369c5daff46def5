"""The OTLP/HTTP receiver: spans of any SDK or Collector into the store, answered when they are safe there."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from socket import socket

from tracefork_otel.errors import StoreError, UsageError
from tracefork_otel.recording.named import Named
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction import redact
from tracefork_otel.settings import Settings
from tracefork_otel.store import sealing
from tracefork_otel.store.records import ExchangeStarted
from tracefork_otel.store.wal import Wal

from .addresses import LOOPBACK
from .asgi import ClientLeft, NoRoom, Receive, Room, Scope, Send, TooLarge, answer, header, is_foreign
from .connections import FOR_CLIENTS, share_of_files
from .otlp import (
    MAX_COMPRESSED,
    MAX_PLAIN,
    Form,
    Refused,
    answer_of,
    decompressed,
    error_of,
    form_of,
    parse,
    spans_of,
)
from .received import records_of
from .server import Server

LOG = logging.getLogger("tracefork_backend")
MAX_WAITING = 64 * 1024 * 1024
"""Bytes of requests, half-sent ones too; whoever sends more at once is asked to try again."""
_REMEMBERED = 65_536
"""Spans whose ids are kept: an exporter that missed our answer sends its batch again within minutes."""
_GRACE_S = 2.0
_RETRY = ((b"retry-after", b"1"),)
_TYPES: dict[Form, str] = {"protobuf": "application/x-protobuf", "json": "application/json"}
_OTHERS = ("/v1/metrics", "/v1/logs", "/v1development/profiles")


class Receiver(Server):
    """Writes spans into a WAL of its own."""

    def __init__(
        self,
        listener: socket,
        *,
        store: Path,
        host: str = LOOPBACK,
        max_compressed: int = MAX_COMPRESSED,
        max_plain: int = MAX_PLAIN,
        max_waiting: int = MAX_WAITING,
        settings: Settings | None = None,
    ) -> None:
        if find_spec("opentelemetry.proto") is None:
            raise UsageError(
                'receiving OTLP needs opentelemetry-proto: pip install "tracefork-otel[backend]"'
            )
        super().__init__(self._app, [listener], grace_s=_GRACE_S)
        settings = settings or Settings.from_env()
        self.port = int(listener.getsockname()[1])
        self.spans = 0
        self.exchanges = 0
        self._host = host
        self._max_compressed, self._max_plain = max_compressed, max_plain
        self._room = Room(max_waiting, share_of_files(FOR_CLIENTS))
        self._store = store
        self._redactor = redact.of(settings)
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._names = Named()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="tracefork-otlp")
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="tracefork-seal")
        self._wal = Wal(
            store,
            process_started(mode="record", via="otlp", service="tracefork"),
            sync=settings.sync,
            rotate_bytes=settings.rotate_bytes,
            on_rotated=lambda path: self._sealer.submit(self._seal, path) and None,
        )

    def ended(self) -> None:
        """Close the WAL too, after all was written."""
        super().ended()
        self._writer.shutdown()
        self._wal.close()
        self._sealer.shutdown()

    def _seal(self, path: Path) -> None:
        try:
            sealing.seal(self._store, [path])
        except Exception as error:
            # The WAL stays, and whoever opens the store next tries again.
            LOG.warning("tracefork could not seal %s: %s", path, error)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        form: Form = "json"
        try:
            if is_foreign(scope, self._host):
                raise Refused(421, "this receiver answers to loopback names only")
            _check_place(scope)
            form = form_of(header(scope, b"content-type"))
            await self._take(scope, receive, send, form)
        except ClientLeft:
            return
        except TooLarge:
            why = (
                f"the request has more than {self._max_compressed} bytes: make the exporter's batches smaller"
            )
            await answer(send, 413, error_of(form, why), _TYPES[form])
        except NoRoom:
            await answer(
                send, 429, error_of(form, "too much waits to be written: try again"), _TYPES[form], _RETRY
            )
        except Refused as refused:
            extra = _RETRY if refused.status == 503 else ()
            await answer(send, refused.status, error_of(form, str(refused)), _TYPES[form], extra)

    async def _take(self, scope: Scope, receive: Receive, send: Send, form: Form) -> None:
        async with self._room.body(scope, receive, self._max_compressed) as body:
            encoding = header(scope, b"content-encoding")
            loop = asyncio.get_running_loop()
            rejected, why = await loop.run_in_executor(self._writer, self._write, body, encoding, form)
        await answer(send, 200, answer_of(form, rejected, why), _TYPES[form])

    def _write(self, body: bytes, encoding: str | None, form: Form) -> tuple[int, str]:
        """Write the spans, and return how many were not taken and why the first was not."""
        message = parse(decompressed(body, encoding, limit=self._max_plain), form)
        rejected, first = 0, ""
        for span, about in spans_of(message):
            if isinstance(span, str):
                rejected, first = rejected + 1, first or span
                continue
            key = span.trace_id, span.span_id
            if key in self._seen:
                continue
            try:
                for record in records_of(span, self._redactor):
                    self._wal.append(record)
                    self.exchanges += isinstance(record, ExchangeStarted)
                named = self._names.note(span.trace_id, span.attributes, about)
                if named is not None:
                    self._wal.append(replace(named, attributes=self._redactor.attributes(named.attributes)))
            except StoreError as error:
                raise Refused(503, f"the store cannot be written now: {error}") from error
            self.spans += 1
            self._seen[key] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        return rejected, first


def _check_place(scope: Scope) -> None:
    path = scope["path"]
    if path in _OTHERS:
        raise Refused(404, f"{path}: only traces are received here, at /v1/traces")
    if path != "/v1/traces":
        raise Refused(404, f"{path}: traces are received at /v1/traces")
    if scope["method"] != "POST":
        raise Refused(405, f"{scope['method']}: traces are received by POST")
