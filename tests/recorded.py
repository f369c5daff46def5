"""What tests of the recorder share: reading a store's WALs, and both kinds of client behind one function."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tracefork_otel.exchange import Exchange
from tracefork_otel.store.records import Note, ProcessStarted, SpanRecord
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import exchanges_of, read_wal

REPOSITORY = Path(__file__).resolve().parent.parent
BOOT = REPOSITORY / "tracefork_otel" / "boot"


@dataclass(frozen=True, slots=True)
class Recorded:
    """Everything that the WALs of a store hold."""

    exchanges: list[Exchange]
    spans: list[SpanRecord]
    processes: list[ProcessStarted]
    notes: list[Note]

    def only(self) -> Exchange:
        """The one exchange there is."""
        assert len(self.exchanges) == 1, [exchange.name for exchange in self.exchanges]
        return self.exchanges[0]

    def in_order(self) -> list[Exchange]:
        """The exchanges as they began."""
        return sorted(self.exchanges, key=lambda exchange: (exchange.started_ns, exchange.seq))

    def span(self, name: str) -> SpanRecord:
        """The one span of that name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]


def read_store(store: Path) -> Recorded:
    """What the WALs of a store hold; none of them may be torn or damaged."""
    contents = [read_wal(path) for path in wal_files(store)]
    assert not any(content.torn_bytes or content.damage for content in contents)
    return Recorded(*exchanges_of(contents))


def fetch(
    module: ModuleType, kind: str, method: str, url: str, *, client: Mapping[str, Any] = {}, **sent: Any
) -> Any:
    """The response of one request by a fresh client, sync or async, its body read."""
    if kind == "sync":
        with module.Client(**client) as session:
            return session.request(method, url, **sent)

    async def call() -> Any:
        async with module.AsyncClient(**client) as session:
            return await session.request(method, url, **sent)

    return asyncio.run(call())


def stream(module: ModuleType, kind: str, url: str, *, take: int | None = None) -> list[bytes]:
    """The raw chunks of a streamed response; the stream is closed after `take` of them."""
    chunks: list[bytes] = []
    if kind == "sync":
        with module.Client() as session, session.stream("GET", url) as response:
            for chunk in response.iter_raw():
                chunks.append(chunk)
                if len(chunks) == take:
                    break
        return chunks

    async def call() -> None:
        async with module.AsyncClient() as session, session.stream("GET", url) as response:
            async for chunk in response.aiter_raw():
                chunks.append(chunk)
                if len(chunks) == take:
                    break

    asyncio.run(call())
    return chunks


def run_python(
    code: str | Sequence[str], *, store: Path, timeout: float = 60, check: bool = True, **env: str | None
) -> subprocess.CompletedProcess[str]:
    """A Python process that was waited for; `env` changes its environment, None takes a variable away."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACE"))
    }
    environment["TRACEFORK_STORE"] = str(store)
    environment["TRACEFORK_SEAL"] = "0"  # `read_store` reads WALs
    for name, value in env.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    argv = [sys.executable, "-c", code] if isinstance(code, str) else [sys.executable, *code]
    done = subprocess.run(
        argv,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def launched(**env: str) -> dict[str, str]:
    """The environment that `tracefork-otel run` gives its command."""
    return {"TRACEFORK_MODE": "record", "PYTHONPATH": str(BOOT), **env}
