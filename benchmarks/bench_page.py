"""Page: what a browser waits for over a store of ten thousand runs, and in a run of large prompts.

Processor seconds of the process that serves, which asks itself; the store was opened before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
from filled import fill, process
from report import Figure, least_cpu_ms, report
from tracefork_backend.network.addresses import bind
from tracefork_backend.page.permits import Permits
from tracefork_backend.page.server import PageServer
from workload import conversation

from tracefork_otel.store.sealing import seal_dead

RUNS, STEPS = 10_000, 4
LARGE_STEPS, NEW_BYTES = 300, 3_400
"""The last prompt of such a run has 1 MB."""
MOST_BYTES = 1_000_000


def filled(folder: Path) -> tuple[str, str]:
    """Two runs of large prompts among ten thousand small ones."""
    began = 1_780_000_000 * 10**9
    large: list[str] = []
    small = list(conversation(STEPS, tool_bytes=0))
    wal = process(folder, rotate_bytes=1 << 40)
    for number in range(RUNS):
        fill(wal, small, at=began + number * 10**11)
    for seed in range(2):
        bodies = conversation(LARGE_STEPS, seed=seed, turn=NEW_BYTES, tool_bytes=0)
        large.append(fill(wal, bodies, at=began + (RUNS + seed) * 10**11)[0])
    wal.close()
    seal_dead(folder)
    return large[0], large[1]


def figures(folder: Path) -> Iterator[Figure]:
    """What each page takes, and how much it sends."""
    a, b = filled(folder)
    with (
        PageServer(bind(), store=folder, permits=Permits()) as page,
        httpx2.Client(base_url=f"http://127.0.0.1:{page.port}", timeout=300) as browser,
    ):
        most = 0

        def get(path: str) -> None:
            nonlocal most
            answer = browser.get(path)
            assert answer.status_code == 200, answer.text
            most = max(most, len(answer.content))

        get("/")
        for what, path, ms in (
            ("the list of 10,000 runs", "/", 300),
            ("the list, filtered by a text", "/?text=book", 300),
            ("a run of 300 steps with prompts up to 1 MB", f"/run/{a}", 1000),
            ("its last step", f"/run/{a}?step={LARGE_STEPS - 1}", 1000),
        ):
            yield Figure(
                f"{what}, opened again", least_cpu_ms(lambda path=path: get(path), repeats=5), "ms", ms
            )
        began = time.process_time()
        get(f"/diff/{a}/{b}")
        yield Figure("two such runs beside each other, the first time", time.process_time() - began, "s", 10)
        yield Figure("the largest of these pages", most / MOST_BYTES, "MB", 1)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        report("page", figures(Path(name)))


if __name__ == "__main__":
    main()
