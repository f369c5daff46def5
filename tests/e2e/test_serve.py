"""`serve` as a user types it: killed under load, behind a real Collector, fed by other languages."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import jaeger as jaegers
import pytest
from e2e.command import environment
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tracefork_backend.store import open_store

DEADLINE_S = 60.0


@contextmanager
def serving(store: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A receiver in a process of its own, ended with the block, and its address."""
    words = ["serve", "--no-page", "--otlp-port", "0", "--store", str(store)]
    command = [sys.executable, "-m", "tracefork_backend.cli", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        yield line.split("OTLP/HTTP on ")[1].split(",")[0], process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--host", "0.0.0.0"), ("--token",)])
def test_whom_other_hosts_reach_asks_for_its_token(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Its address is printed with one; without it no page is shown, to nobody."""
    command = [sys.executable, "-m", "tracefork_backend.cli", "serve", "--no-otlp", "--port", "0"]
    with subprocess.Popen(
        [*command, *words, "--store", str(tmp_path)], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split(" is at ")[1].split(" ")[0].replace("0.0.0.0", "127.0.0.1")
            bare, _, token = url.partition("?token=")
            assert len(token) >= 32
            assert httpx2.get(bare).status_code == 403
            assert httpx2.get(f"{bare}?token={token[:-1]}").status_code == 403
            with httpx2.Client(follow_redirects=True) as browser:
                assert "<h1" in browser.get(url).text
                assert browser.get(bare).status_code == 200
        finally:
            process.kill()


def batch(number: int, count: int = 50) -> bytes:
    """A request of so many spans, in a trace of its own."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for index in range(count):
        span = scope.spans.add()
        span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), secrets.token_bytes(8)
        span.name = f"{number}-{index}"
        span.start_time_unix_nano = span.end_time_unix_nano = time.time_ns()
    return request.SerializeToString()


@pytest.mark.slow
def test_kill_9_under_load_loses_nothing_answered(tmp_path: Path) -> None:
    """Every span of every batch that was answered 200 is in the store after kill -9 in the middle."""
    store = tmp_path / "store"
    answered: list[int] = []
    with serving(store) as (url, process):

        def send(first: int) -> None:
            with httpx2.Client(timeout=DEADLINE_S) as client:
                for number in range(first, first + 10_000):
                    try:
                        answer = client.post(
                            url + "/v1/traces",
                            content=batch(number),
                            headers={"content-type": "application/x-protobuf"},
                        )
                    except httpx2.RequestError:
                        return
                    if answer.status_code == 200:
                        answered.append(number)

        threads = [threading.Thread(target=send, args=(first * 100_000,)) for first in range(3)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + DEADLINE_S
        while len(answered) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert len(answered) >= 30
    with open_store(store) as opened:
        rows = opened.rows("select trace_id, count(*) as n from spans group by trace_id")
    stored = {int(row["trace_id"], 16) - 1: row["n"] for row in rows}
    assert {number: stored.get(number) for number in answered} == dict.fromkeys(answered, 50)


_COLLECTOR = """\
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlphttp]}}
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{batch: {{timeout: 100ms}}}}
exporters: {{otlphttp: {{endpoint: "{target}", compression: {compression}}}}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_behind_a_real_collector(tmp_path: Path, compression: str) -> None:
    """Spans that go through an OpenTelemetry Collector are in the store as they were sent."""
    program = jaegers.binary()
    if program is None:
        pytest.skip("no Jaeger binary, which is the Collector: run .ci/jaeger")
    store = tmp_path / "store"
    with serving(store) as (url, _):
        (port,) = jaegers.free_ports(1)
        config = tmp_path / "collector.yaml"
        config.write_text(_COLLECTOR.format(port=port, target=url, compression=compression))
        collector = subprocess.Popen(
            [program, "--config", config], stderr=subprocess.DEVNULL, env=environment()
        )
        try:
            _until_taken(f"http://127.0.0.1:{port}/v1/traces")
            deadline = time.monotonic() + DEADLINE_S
            count = 0
            while count < 50 and time.monotonic() < deadline:
                time.sleep(0.1)
                if (store / "wal").exists():
                    with open_store(store) as opened:
                        count = opened.rows("select count(*) as n from spans")[0]["n"]
        finally:
            collector.kill()
            collector.wait()
    assert count == 50


def _until_taken(url: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            answer = httpx2.post(url, content=batch(1), headers={"content-type": "application/x-protobuf"})
        except httpx2.ConnectError:
            assert time.monotonic() < deadline, "the Collector did not start"
            time.sleep(0.1)
            continue
        assert answer.status_code == 200
        return


_NODE = """
const {NodeTracerProvider, BatchSpanProcessor} = require("@opentelemetry/sdk-trace-node");
const {OTLPTraceExporter: Proto} = require("@opentelemetry/exporter-trace-otlp-proto");
const {OTLPTraceExporter: Json} = require("@opentelemetry/exporter-trace-otlp-http");
(async () => {
  const url = process.argv[2] + "/v1/traces";
  const exporters = [new Proto({url, compression: "gzip"}), new Json({url})];
  for (const [index, exporter] of exporters.entries()) {
    const provider = new NodeTracerProvider({spanProcessors: [new BatchSpanProcessor(exporter)]});
    const tracer = provider.getTracer("js");
    const root = tracer.startSpan("js-" + index); root.setAttribute("n", 7); root.end();
    await provider.shutdown();
  }
})();
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_javascript_exporters(tmp_path: Path) -> None:
    """Spans of the JavaScript SDK arrive through its protobuf and its JSON exporter."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    names = ("sdk-trace-node", "exporter-trace-otlp-proto", "exporter-trace-otlp-http", "api")
    packages = [f"@opentelemetry/{name}" for name in names]
    installed = subprocess.run(["npm", "install", "--silent", *packages], cwd=tmp_path, check=False)
    if installed.returncode:
        pytest.skip("npm cannot install the SDK here")
    (tmp_path / "send.js").write_text(_NODE)
    store = tmp_path / "store"
    with serving(store) as (url, _):
        subprocess.run(["node", "send.js", url], cwd=tmp_path, check=True, timeout=60, env=environment())
    with open_store(store) as opened:
        rows = opened.rows("select name, attributes->>'n' as n from spans order by name")
    assert [(row["name"], row["n"]) for row in rows] == [("js-0", "7"), ("js-1", "7")]


_GO = """
package main

import (
	"context"
	"os"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(os.Args[1]+"/v1/traces"),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		panic(err)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	_, span := provider.Tracer("go").Start(ctx, "go-0")
	span.SetAttributes(attribute.Int("n", 7))
	span.End()
	if err := provider.Shutdown(ctx); err != nil {
		panic(err)
	}
}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_go_exporter(tmp_path: Path) -> None:
    """A span of the Go SDK arrives through its HTTP exporter."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    (tmp_path / "main.go").write_text(_GO)
    for words in (["mod", "init", "send"], ["mod", "tidy"], ["build", "-o", "send", "."]):
        if subprocess.run([go, *words], cwd=tmp_path, capture_output=True, check=False).returncode:
            pytest.skip("the Go SDK cannot be installed here")
    store = tmp_path / "store"
    with serving(store) as (url, _):
        subprocess.run([tmp_path / "send", url], check=True, timeout=60, env=environment())
    with open_store(store) as opened:
        rows = opened.rows("select name, attributes->>'n' as n from spans")
    assert [(row["name"], row["n"]) for row in rows] == [("go-0", "7")]
