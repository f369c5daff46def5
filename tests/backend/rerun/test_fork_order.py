"""Forks of agents that work side by side: any step can be forked, back is where all is the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Desk, at_desk
from tracefork_backend.rerun.edits import resample, text
from tracefork_backend.rerun.forker import Forker
from tracefork_backend.rerun.forking import fork
from tracefork_backend.rerun.replaying import replay
from tracefork_backend.simulate.model import Call, Reply

POOL = """
    import concurrent.futures, threading

    def ask(word):
        return say(word, forget=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        print(*pool.map(ask, ["wait", "b", "c", "d"]), ask("sum"))
"""


def slow_first(call: Call) -> Reply:
    """Repeats the last message in capitals; `wait` takes so long that others are answered meanwhile."""
    return Reply(text=call.last.upper(), first_delay_s=0.6 if call.last == "wait" else 0.05)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose model takes longest of the first question."""
    with at_desk(tmp_path, monkeypatch, slow_first) as made:
        yield made


@pytest.mark.slow
def test_any_step_of_a_pool_can_be_forked_again_and_again(desk: Desk) -> None:
    """Served answers take no time, so a worker comes to other jobs than it did."""
    run = desk.recorded(POOL)
    with Forker(run) as forker:
        for step in range(run.steps):
            made = forker.fork(step, text("X"))
            assert (made.problem, made.stdout.count("X")) == (None, 1)
        live = forker.fork(1, resample())
    assert live.problem is None
    below = fork(live.run, at=2, edit=text("Y"))
    assert (below.problem, below.stdout.count("Y")) == (None, 1)
    assert replay(below.run).passed


TASKS = """
    import asyncio

    async def main():
        two = asyncio.Semaphore(2)

        async def ask(word):
            async with two:
                return await asyncio.to_thread(say, word, forget=True)

        print(*await asyncio.gather(*map(ask, ["wait", "b", "c", "d"])))

    asyncio.run(main())
"""

PROCESSES = """
    import concurrent.futures, multiprocessing

    def ask(word):
        return say(word, forget=True)

    if __name__ == "__main__":
        how = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=how) as pool:
            print(*pool.map(ask, ["wait", "b", "c", "d"]))
"""

TESTED = """
    import pytest

    @pytest.mark.parametrize("word", ["wait", "b", "c", "d"])
    def test_says(word):
        said = say(word, forget=True)
        with open("said.txt", "a") as file:
            print(said, file=file)

    if __name__ == "__main__":
        open("said.txt", "w").close()
        pytest.main(["-q", "-n", "2", "-p", "no:cacheprovider", "agent.py"])
        print(open("said.txt").read())
"""


@pytest.mark.slow
@pytest.mark.parametrize("body", [TASKS, PROCESSES, TESTED], ids=["tasks", "processes", "xdist"])
def test_any_step_that_two_workers_share_can_be_forked(desk: Desk, body: str) -> None:
    """Whoever comes to it first; a fork of such a fork too."""
    run = desk.recorded(body)
    assert run.steps == 4
    with Forker(run) as forker:
        for step in range(run.steps):
            made = forker.fork(step, text("X"))
            assert (made.problem, made.steps) == (None, 4), made.problem
            assert made.stdout.split().count("X") == 1, made.stdout
    below = fork(made.run, at=2, edit=text("Y"))
    assert (below.problem, below.stdout.split().count("Y")) == (None, 1)


TRIO = """
    import trio

    url = os.environ["AGENT_URL"] + "/v1/messages"

    async def main():
        said, limit = {}, trio.CapacityLimiter(3)
        async with httpx2.AsyncClient() as client:
            async def ask(word):
                async with limit:
                    body = {"model": "claude-haiku-4-5", "max_tokens": 64}
                    body["messages"] = [{"role": "user", "content": word}]
                    answer = await client.post(url, json=body, timeout=20)
                    said[word] = answer.json()["content"][0]["text"]

            async with trio.open_nursery() as nursery:
                for word in WORDS:
                    nursery.start_soon(ask, word)
        print(*(said[word] for word in WORDS))

    WORDS = "abcdefgh"
    trio.run(main)
"""


@pytest.mark.slow
def test_any_step_of_tasks_in_a_shuffled_order_can_be_forked(desk: Desk) -> None:
    """Trio starts its tasks in another order each time."""
    pytest.importorskip("trio", reason="trio is not installed")
    run = desk.recorded(TRIO)
    assert run.steps == 8
    with Forker(run) as forker:
        for step in (0, 3, 7):
            made = forker.fork(step, text("new"))
            assert (made.problem, made.stdout.count("new"), made.steps) == (None, 1, 8)


@pytest.mark.slow
def test_it_is_back_where_all_later_requests_are_its_parents(desk: Desk) -> None:
    """Of two conversations one never left; the other still tells of the change, after it."""
    run = desk.recorded("""
        first = say("a", forget=True)
        print(say("other", forget=True), say("tell " + first, forget=True), say("bye", forget=True))
        print(say(first, forget=True))
    """)
    made = fork(run, at=0, edit=text("new"))
    assert (made.problem, made.steps, made.reconverged_at) == (None, 5, None)
    assert fork(run, at=0, edit=text("A")).reconverged_at == 1
