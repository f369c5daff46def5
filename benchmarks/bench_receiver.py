"""Receiver: spans and bytes a second, each batch answered when it is safe, and whether memory stays flat."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from report import Figure, report

SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
SPANS = 512
"""What a BatchSpanProcessor sends at once."""
SENDERS = 2


def batch() -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    trace = secrets.token_bytes(16)
    for number in range(SPANS):
        span = scope.spans.add()
        span.trace_id, span.span_id = trace, secrets.token_bytes(8)
        span.name = f"GET /things/{number % 20}"
        span.start_time_unix_nano = time.time_ns()
        span.end_time_unix_nano = span.start_time_unix_nano + 1_000_000
        for key in (
            "http.route",
            "server.address",
            "code.function.name",
            "thread.name",
            "user_agent.original",
        ):
            pair = span.attributes.add()
            pair.key, pair.value.string_value = key, f"value of {key}"
    return request.SerializeToString()


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        command = [
            sys.executable,
            "-m",
            "tracefork_backend.cli",
            "serve",
            "--no-page",
            "--otlp-port",
            "0",
            "--store",
            str(store),
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        url = process.stderr.readline().split("OTLP/HTTP on ")[1].split(",")[0] + "/v1/traces"
        done: list[int] = []
        end = time.monotonic() + SECONDS

        def send() -> None:
            with httpx2.Client(timeout=60) as client:
                while time.monotonic() < end:
                    body = batch()
                    answer = client.post(
                        url, content=body, headers={"content-type": "application/x-protobuf"}
                    )
                    if answer.status_code == 200:
                        done.append(len(body))

        memory: list[float] = []
        threads = [threading.Thread(target=send) for _ in range(SENDERS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(SECONDS / 20)
            memory.append(resident_mb(process.pid))
        took = time.monotonic() - began
        process.kill()
        process.wait()
    half = len(memory) // 2
    report(
        "receiver",
        [
            Figure(
                "receiver, spans answered 200",
                len(done) * SPANS / took,
                "spans/s",
                2000,
                at_least=True,
                note=f"for {took:.0f} s, {SENDERS} senders on the same cores",
            ),
            Figure("receiver, OTLP bytes", sum(done) / took / 1e6, "MB/s", 0.5, at_least=True),
            Figure(
                "receiver, peak memory of the second half over the first",
                max(memory[half:]) / max(memory[:half]),
                "×",
                1.25,
                note=f"peak {max(memory):.0f} MB",
            ),
        ],
    )


if __name__ == "__main__":
    main()
