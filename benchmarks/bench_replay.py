"""Replay: exchanges a second through the raw httpx2 client, and through the anthropic SDK beside a bare mock transport."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filled import fill, process
from report import Figure, report
from tracefork_backend.rerun.reconstruct import reconstruct
from tracefork_backend.store import open_store
from workload import conversation

RAW = 2000
TURNS, REPEATS = 20, 25

AGENT = r"""
import json, sys, time
how, bodies = sys.argv[1:3]
pairs = [(a.encode(), b.encode()) for a, b in json.load(open(bodies))]
if how != "mock":
    from tracefork_otel import TraceforkInstrumentor
    TraceforkInstrumentor().instrument(http_spans=False)
import httpx2
if how == "raw":
    client = httpx2.Client()
    head = {"content-type": "application/json"}
    started = time.perf_counter()
    for request, _ in pairs:
        client.post("https://api.anthropic.com/v1/messages", content=request, headers=head)
else:
    import anthropic
    answers = iter([b for _, b in pairs])
    def answer(request):
        return httpx2.Response(200, content=next(answers), headers={"content-type": "application/json"})
    http = httpx2.Client(transport=httpx2.MockTransport(answer)) if how == "mock" else None
    client = anthropic.Anthropic(api_key="k", base_url="https://api.anthropic.com", http_client=http, max_retries=0)
    asked = [json.loads(a) for a, _ in pairs]
    started = time.perf_counter()
    for body in asked:
        client.messages.create(**body)
print(json.dumps(time.perf_counter() - started))
"""


def tape_of(folder: Path, bodies: list[tuple[bytes, bytes]]) -> Path:
    wal = process(folder)
    run_id, _ = fill(wal, bodies)
    wal.close()
    with open_store(folder) as store:
        reconstruct(store, store.run(run_id)).dump(folder / "run.tape.jsonl")
    return folder / "run.tape.jsonl"


def seconds(how: str, folder: Path, bodies: list[tuple[bytes, bytes]], tape: Path | None) -> float:
    listed = folder / "bodies.json"
    listed.write_text(json.dumps([(a.decode(), b.decode()) for a, b in bodies]))
    env = dict(os.environ)
    if tape is not None:
        env |= {"TRACEFORK_MODE": "replay", "TRACEFORK_TAPE": str(tape), "TRACEFORK_SEAL": "0"}
        env["TRACEFORK_STORE"] = str(folder / f"replay-{time.monotonic_ns()}")
    done = subprocess.run(
        [sys.executable, "-c", AGENT, how, str(listed)], env=env, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def sdk_form(bodies: list[tuple[bytes, bytes]], folder: Path) -> list[tuple[bytes, bytes]]:
    """The same bodies with the requests as the SDK writes them, so that a tape of them matches."""
    import httpx2
    from anthropic import Anthropic

    sent: list[bytes] = []
    answers = iter([answer for _, answer in bodies])

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.read())
        return httpx2.Response(200, content=next(answers), headers={"content-type": "application/json"})

    client = Anthropic(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
    for request, _ in bodies:
        client.messages.create(**json.loads(request))
    return list(zip(sent, (answer for _, answer in bodies), strict=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        small = [pair for seed in range(RAW // 10) for pair in conversation(10, seed=seed, tool_bytes=2000)]
        tape = tape_of(root / "raw", small)
        rate = RAW / statistics.median(seconds("raw", root / "raw", small, tape) for _ in range(3))
        turns = [pair for seed in range(REPEATS) for pair in conversation(TURNS, seed=seed)]
        written = sdk_form(turns, root)
        sdk_tape = tape_of(root / "sdk", written)
        mock: list[float] = []
        ours: list[float] = []
        for _ in range(5):
            mock.append(seconds("mock", root / "sdk", written, None))
            ours.append(seconds("sdk", root / "sdk", written, sdk_tape))
        per_mock, per_ours = (statistics.median(times) / len(written) * 1e6 for times in (mock, ours))
        report(
            "replay",
            [
                Figure("replay, raw httpx2 client", rate, "exchanges/s", 3000, at_least=True),
                Figure(
                    "replay through the anthropic SDK over a bare mock transport",
                    per_ours / per_mock,
                    "×",
                    1.10,
                    note=f"20-turn conversations, {per_mock:.0f} and {per_ours:.0f} µs per exchange",
                ),
            ],
        )


if __name__ == "__main__":
    main()
