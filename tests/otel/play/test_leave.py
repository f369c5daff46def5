"""Agents ask before they send, and go on once they are told so."""

from __future__ import annotations

import threading
from pathlib import Path

from tracefork_otel.exchange import Request
from tracefork_otel.play.leave import Leave, Leaves

ASKED = Request(method="POST", url="https://x.example/v1", headers=(("a", "b"),), body=b"\xff\n{}")


def test_nobody_waits_where_nobody_listens(tmp_path: Path) -> None:
    """In a replay, in a fork without a budget, and once the director is gone."""
    Leave().wait(ASKED)
    Leave(tmp_path).wait(ASKED)
    Leaves(tmp_path).close()
    Leave(tmp_path).wait(ASKED)


def test_a_request_waits_until_it_may_go(tmp_path: Path) -> None:
    """Many ask at once, each is told for itself, byte for byte what it asked for, and nothing is left."""
    leaves, gone, many = Leaves(tmp_path), threading.Semaphore(0), 8

    told: list[bool] = []

    def ask() -> None:
        told.append(Leave(tmp_path).wait(ASKED))
        gone.release()

    threads = [threading.Thread(target=ask) for _ in range(many)]
    for thread in threads:
        thread.start()
    names: list[str] = []
    while len(names) < many:
        names += leaves.wait(60)
    assert not gone.acquire(blocking=False), "one went before it was told"
    for at, name in enumerate(names):
        assert leaves.request(name) == ASKED
        (leaves.give if at % 2 else leaves.refuse)(name)
        assert gone.acquire(timeout=60)
    assert told == [False, True] * (many // 2)
    for thread in threads:
        thread.join()
    leaves.wake()
    assert leaves.wait(60) == []
    leaves.close()
    assert [one.name for one in tmp_path.iterdir()] == ["leave"]


def test_who_waits_goes_on_when_the_director_dies(tmp_path: Path) -> None:
    """It is ended otherwise, or by nobody."""
    leaves = Leaves(tmp_path)
    thread = threading.Thread(target=Leave(tmp_path).wait, args=[ASKED])
    thread.start()
    assert leaves.wait(60)
    leaves.close()
    thread.join(60)
    assert not thread.is_alive()
