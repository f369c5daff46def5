"""A page that many look at while its store grows, and whose budget several ask for at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from stored import Recorder, answered, asked, trace
from tracefork_backend.page.permits import Ledger
from tracefork_backend.page.server import PageServer

from tracefork_otel.errors import UsageError

Serve = Callable[..., PageServer]
TABS = 40
RUNS = 400


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_look_while_the_store_grows(page: Serve, tmp_path: Path) -> None:
    """Every page is whole whoever else asks, and what was recorded meanwhile is on the list."""
    made = page(tmp_path)
    recorder = Recorder(tmp_path)
    first = trace()
    recorder.root(first)
    recorder.exchange(first, asked("book"), answered("booked"))
    grown = threading.Event()

    def grow() -> None:
        for number in range(RUNS):
            run_id = trace()
            recorder.root(run_id)
            recorder.exchange(run_id, asked(f"trip {number}"), answered("booked"))
        grown.set()

    def look(tab: int) -> list[int]:
        paths = (
            "/",
            f"/run/{first}",
            f"/run/{first}/step/0",
            "/sql?q=select+count(*)+from+exchanges",
            "/doctor",
        )
        seen: list[int] = []
        with httpx2.Client(base_url=f"http://127.0.0.1:{made.port}", timeout=120) as client:
            while len(seen) < len(paths) or not grown.is_set():
                seen.append(client.get(paths[(tab + len(seen)) % len(paths)]).status_code)
        return seen

    # Connections on which nobody asks anything hold up nobody who does.
    silent = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(200)]
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with ThreadPoolExecutor(TABS) as tabs:
            seen = [status for statuses in tabs.map(look, range(TABS)) for status in statuses]
    finally:
        writer.join()
        recorder.close()
        for one in silent:
            one.close()
    assert len(seen) >= 5 * TABS
    assert set(seen) == {200}
    text = httpx2.get(f"http://127.0.0.1:{made.port}/sql?q=select+count(*)+from+exchanges", timeout=120).text
    assert str(RUNS + 1) in text


def test_two_that_ask_at_once_share_one_budget() -> None:
    """What is set aside for running jobs is never more than there is, in whatever order they ask and end."""
    ledger = Ledger(1.0)
    most: list[float] = []

    def start(job: int) -> bool:
        try:
            ledger.hold(str(job), 0.3)
        except UsageError:
            return False
        most.append(ledger.held_usd)
        ledger.settle(str(job), 0.3 if job % 2 else 0.0)
        return True

    with ThreadPoolExecutor(8) as tabs:
        begun = sum(tabs.map(start, range(200)))
    assert begun > 3
    assert max(most) <= 1.0 + 1e-9
    assert 0.7 < ledger.spent_usd <= 1.0 + 1e-9
