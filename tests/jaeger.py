"""A real Jaeger for tests: one process with its storage in memory, and its query API.

Jaeger is also a real OpenTelemetry Collector. Tests in `e2e` have the fixture `jaeger`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

BINARY = "TRACEFORK_JAEGER_BINARY"
_BUILDER = Path(__file__).resolve().parent.parent / ".ci" / "jaeger"
_READY_S = 30.0
_WAIT_S = 20.0
"""How long a span may take from an exporter to the query API, on a machine that does much else."""
_ATTEMPTS = 3
"""Between choosing a free port and listening on it somebody else can take it."""
_CONFIG = """\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 10000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: "127.0.0.1:{query}"}}
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{otlp_http}"}}
      grpc: {{endpoint: "127.0.0.1:{otlp_grpc}"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JaegerSpan:
    """A span as Jaeger's query API tells it."""

    span_id: str
    name: str
    service: str
    parent_span_id: str | None
    links: tuple[tuple[str, str], ...]
    """(trace id, span id) of each."""
    started_us: int
    duration_us: int
    tags: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    """The fields of each, its name as `event`."""
    types: Mapping[str, str]
    """How each event's fields are typed, by name: `string`, `binary`, …"""

    @property
    def ended_us(self) -> int:
        """When it ended, as a person reads it off the page."""
        return self.started_us + self.duration_us


@dataclass(frozen=True, slots=True)
class JaegerTrace:
    """A trace as Jaeger's query API tells it."""

    trace_id: str
    spans: tuple[JaegerSpan, ...]

    @property
    def duration_us(self) -> int:
        """The length that the page shows: from the first start to the last end."""
        return max(span.ended_us for span in self.spans) - min(span.started_us for span in self.spans)

    def named(self, name: str) -> list[JaegerSpan]:
        """The spans of that name, by start."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.started_us)

    def span(self, span_id: str) -> JaegerSpan:
        """The one span of that id."""
        (found,) = (span for span in self.spans if span.span_id == span_id)
        return found


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger that runs, by the addresses of its ports."""

    query: str
    otlp_http: str
    otlp_grpc: str

    def services(self) -> set[str]:
        """The services of which it has spans."""
        return set(self._ask("services"))

    def trace(self, trace_id: str, ready: Callable[[JaegerTrace], object]) -> JaegerTrace:
        """The trace, once `ready` holds of it; fails with the spans that are there if it never does."""
        deadline = time.monotonic() + _WAIT_S
        while True:
            try:
                found = _trace(self._ask(f"traces/{trace_id}")[0])
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                found = JaegerTrace(trace_id, ())
            if ready(found):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"after {_WAIT_S} s: {sorted(span.name for span in found.spans)}")
            time.sleep(0.1)

    def find(self, service: str, tags: Mapping[str, str]) -> dict[str, JaegerTrace]:
        """The traces with a span of that service that has all of the tags, by trace id."""
        found = self._ask("traces", service=service, tags=json.dumps(tags), limit="100", lookback="1h")
        return {trace.trace_id: trace for trace in map(_trace, found or ())}

    def _ask(self, path: str, **params: str) -> Any:
        url = f"{self.query}/api/{path}" + (f"?{urlencode(params)}" if params else "")
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]


def _trace(data: Mapping[str, Any]) -> JaegerTrace:
    processes = data["processes"]
    return JaegerTrace(data["traceID"], tuple(_span(span, processes) for span in data["spans"]))


def _span(data: Mapping[str, Any], processes: Mapping[str, Any]) -> JaegerSpan:
    links: list[tuple[str, str]] = []
    parent = None
    for reference in data["references"]:
        if reference["refType"] == "CHILD_OF":
            parent = reference["spanID"]
        else:
            links.append((reference["traceID"], reference["spanID"]))
    return JaegerSpan(
        span_id=data["spanID"],
        name=data["operationName"],
        service=processes[data["processID"]]["serviceName"],
        parent_span_id=parent,
        links=tuple(links),
        started_us=data["startTime"],
        duration_us=data["duration"],
        tags={tag["key"]: tag["value"] for tag in data["tags"]},
        events=tuple({field["key"]: field["value"] for field in log["fields"]} for log in data["logs"]),
        types={field["key"]: field["type"] for log in data["logs"] for field in log["fields"]},
    )


def binary() -> Path | None:
    """The Jaeger that the environment names, or that `.ci/jaeger` has built; None if there is none."""
    named = os.environ.get(BINARY)
    if named:
        return Path(named)
    # The version stands in the script alone.
    version = re.search(r"^version=(\S+)$", _BUILDER.read_text(), re.MULTILINE)
    assert version is not None, f"{_BUILDER} names no version"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = cache / "tracefork-otel" / f"jaeger-{version[1]}" / "jaeger"
    return built if built.exists() else None


def free_ports(count: int) -> list[int]:
    """That many ports of loopback on which nobody listens, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def started(program: Path, folder: Path) -> Iterator[Jaeger]:
    """A Jaeger of one's own that answers, and is ended with the block."""
    for attempt in range(_ATTEMPTS):
        query, query_grpc, otlp_http, otlp_grpc = free_ports(4)
        config = folder / f"jaeger-{attempt}.yaml"
        config.write_text(
            _CONFIG.format(query=query, query_grpc=query_grpc, otlp_http=otlp_http, otlp_grpc=otlp_grpc)
        )
        log = folder / f"jaeger-{attempt}.log"
        # Variables for the agents under test are not for the Collector itself.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "--config", config], stdout=output, stderr=output, env=environment
            )
        server = Jaeger(
            f"http://127.0.0.1:{query}", f"http://127.0.0.1:{otlp_http}", f"http://127.0.0.1:{otlp_grpc}"
        )
        try:
            if _ready(server, process, (otlp_http, otlp_grpc)):
                yield server
                return
        finally:
            # Asked politely it waits 10 s for open connections, and there is nothing to save.
            process.kill()
            process.wait()
        if "address already in use" not in log.read_text():
            break
    raise AssertionError(f"{program} did not start:\n{log.read_text()[-2000:]}")


def _ready(server: Jaeger, process: subprocess.Popen[bytes], ports: tuple[int, ...]) -> bool:
    """Whether it answers in time on every port; False as soon as it has ended."""
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{server.query}/api/services", timeout=5):
                pass
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger for all tests of a worker; without a binary the test is skipped, in CI it fails."""
    program = binary()
    if program is None or not os.access(program, os.X_OK):
        reason = f"no Jaeger binary ({program or 'none in the cache'}): run .ci/jaeger, or set {BINARY}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with started(program, tmp_path_factory.mktemp("jaeger")) as server:
        yield server
