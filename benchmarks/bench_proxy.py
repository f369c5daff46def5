"""Proxy: what it adds to a call and to the first byte, and how many streams a second pass through it."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from report import Figure, report

REPEATS = 300
STREAMS = 300
AT_ONCE = 16
SIMULATOR = "import sys\nfrom tracefork_backend.simulate import ModelServer\nwith ModelServer() as s:\n    print(s.url, flush=True)\n    sys.stdin.read()"


def started(command: list[str], stream: str) -> tuple[subprocess.Popen[str], str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACEFORK_")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    pipe = process.stdout if stream == "stdout" else process.stderr
    assert pipe is not None
    line = pipe.readline()
    return process, next(word for word in line.split() if word.startswith("http"))


def first_byte_and_call_ms(client: httpx2.Client, url: str) -> tuple[float, float]:
    began = time.perf_counter()
    with client.stream("GET", url) as response:
        chunks = response.iter_raw()
        next(chunks)
        first = time.perf_counter()
        for _ in chunks:
            pass
    return (first - began) * 1e3, (time.perf_counter() - began) * 1e3


async def streams_a_second(url: str) -> float:
    async with httpx2.AsyncClient(timeout=60) as client:
        left = iter(range(STREAMS))

        async def work() -> None:
            for _ in left:
                await client.get(url)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return STREAMS / (time.perf_counter() - began)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        model, direct = started([sys.executable, "-c", SIMULATOR], "stdout")
        command = [sys.executable, "-m", "tracefork_backend.cli", "proxy", "--upstream", direct]
        proxy, passed = started([*command, "--port", "0", "--store", str(Path(name) / "store")], "stderr")
        try:
            path = "/raw/sse?events=20"
            times: dict[str, list[tuple[float, float]]] = {direct: [], passed: []}
            with httpx2.Client() as client:
                for _ in range(REPEATS):  # by turns, so that what else the machine does hits both alike
                    for base in times:
                        times[base].append(first_byte_and_call_ms(client, base + path))
            kept = {base: list(zip(*rows[20:], strict=True)) for base, rows in times.items()}
            first, call = (
                statistics.median(kept[passed][at]) - statistics.median(kept[direct][at]) for at in (0, 1)
            )
            rate = asyncio.run(streams_a_second(passed + path))
            alone = asyncio.run(streams_a_second(direct + path))
        finally:
            for process in (proxy, model):
                process.kill()
                process.wait()
    report(
        "proxy",
        [
            Figure("proxy, added to the first byte", first, "ms", 5),
            Figure("proxy, added to a whole streamed call of 20 events", call, "ms", 10),
            Figure(
                "proxy, streams of 20 events",
                rate,
                "streams/s",
                50,
                at_least=True,
                note=f"{alone:.0f} direct",
            ),
        ],
    )


if __name__ == "__main__":
    main()
