"""Added time per call, with the server in another process: bare, stock instrumentation, ours, both; and time to first byte.

The four kinds take turns in blocks, each in an agent process of its own, so that drift of the machine falls on all alike.
"""

from __future__ import annotations

import statistics

from asking import agents, ask
from report import Figure, report

KINDS = ("bare", "stock", "ours", "both")
ROUNDS, BLOCK = 15, 60

AGENT = r"""
import json, sys, time
kind, url, store = sys.argv[1:4]
import httpx2
if kind != "bare":
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider())
if kind in ("stock", "both"):
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
    HTTPX2ClientInstrumentor().instrument()
if kind in ("ours", "both"):
    from tracefork_otel import TraceforkInstrumentor
    TraceforkInstrumentor().instrument(store=store, http_spans=False)
client = httpx2.Client()
body = json.dumps({"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "x" * 2000}]}).encode()
head = {"content-type": "application/json", "x-api-key": "k"}
def call():
    client.post(url + "/raw/echo", content=body, headers=head)
def first_byte():
    started = time.perf_counter_ns()
    with client.stream("GET", url + "/raw/sse?events=44&delay_ms=20") as response:
        for _ in response.iter_raw():
            return time.perf_counter_ns() - started
for _ in range(30):
    call()
for line in sys.stdin:
    if line.strip() == "call":
        times = []
        for _ in range(BLOCK):
            started = time.perf_counter_ns(); call(); times.append(time.perf_counter_ns() - started)
    else:
        times = [first_byte() for _ in range(4)]
    print(json.dumps(times), flush=True)
""".replace("BLOCK", str(BLOCK))


def main() -> None:
    with agents(AGENT, KINDS) as running:
        calls = {kind: [] for kind in KINDS}
        firsts = {kind: [] for kind in KINDS}
        for _ in range(ROUNDS):
            for kind in KINDS:
                calls[kind] += ask(running[kind], "call")
        for _ in range(ROUNDS):
            for kind in ("bare", "ours"):
                firsts[kind] += ask(running[kind], "first")
    us = {kind: statistics.median(times) / 1e3 for kind, times in calls.items()}
    ttfb = {kind: statistics.median(firsts[kind]) / 1e6 for kind in ("bare", "ours")}
    note = ", ".join(f"{kind} {us[kind]:.0f} µs" for kind in KINDS)
    report(
        "overhead",
        [
            Figure("time per call, ours over bare", us["ours"] / us["bare"], "×", 1.35, note=note),
            Figure("time per call, stock and ours over stock", us["both"] / us["stock"], "×", 1.20),
            Figure("first byte of a stream, ours after bare", ttfb["ours"] - ttfb["bare"], "ms", 5),
        ],
    )


if __name__ == "__main__":
    main()
