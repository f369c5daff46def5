"""Overlapping answers end in the recorded order, in tasks and in threads, whatever order asks for them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from growth_guard import soon

from tracefork_otel import Tape, launch
from tracefork_otel.exchange import Exchange, Outcome, Request, Response
from tracefork_otel.play.answers import Served
from tracefork_otel.play.claims import Claims
from tracefork_otel.play.order import Order
from tracefork_otel.play.player import Player
from tracefork_otel.seam import resting, staging
from tracefork_otel.settings import Settings

URL = "https://model.example/ask/"
MS = 10**6


def exchange(name: str, start: int, end: int, *, outcome: Outcome = "complete", chunks: int = 1) -> Exchange:
    """An exchange of that name, open from one millisecond to another, its body in so many cuts."""
    cuts = tuple(f"{name}{number};".encode() for number in range(chunks))
    offsets = tuple((end - start) * 1000 * (number + 1) // chunks for number in range(chunks))
    response = Response(
        status=200, body=b"".join(cuts), chunk_sizes=tuple(map(len, cuts)), chunk_offsets_us=offsets
    )
    return Exchange(
        trace_id="1" * 32,
        span_id=f"{start:08x}{end:08x}",
        parent_span_id=None,
        process_id="p",
        seq=start,
        started_ns=10**18 + start * MS,
        ended_ns=10**18 + end * MS,
        request=Request(method="GET", url=URL + name),
        response=None if outcome == "cancelled" else response,
        outcome=outcome,
    )


@contextmanager
def replaying(exchanges: Sequence[Exchange], folder: Path) -> Iterator[None]:
    """Inside the block this process replays these."""
    tape = folder / "run.tape"
    Tape(run_id="1" * 32, exchanges=tuple(exchanges)).dump(tape)
    with launch.playing(Settings(mode="replay", tape=tape, store=folder / "replay", seal=False)):
        yield


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still to come is waited for on any machine."""
    monkeypatch.setattr(staging, "GRACE_S", 30)


THREE = (exchange("a", 0, 600), exchange("b", 1, 300), exchange("c", 2, 30))
"""Asked for in one order, answered in the other."""


async def ask(name: str, client: httpx2.AsyncClient) -> str:
    """The first word of an answer."""
    return (await client.get(URL + name)).text[:1]


@pytest.mark.parametrize("asked", ["abc", "cab", "bca"])
def test_as_completed(asked: str, tmp_path: Path) -> None:
    """Tasks end as they did."""

    async def main() -> list[str]:
        async with httpx2.AsyncClient() as client:
            tasks = [asyncio.ensure_future(ask(name, client)) for name in asked]
            return [await one for one in asyncio.as_completed(tasks)]

    with replaying(THREE, tmp_path):
        assert asyncio.run(main()) == ["c", "b", "a"]


def work() -> None:
    """Takes some tenths of a second, in which other threads work too."""
    for _ in range(3_000_000):
        pass


@pytest.mark.parametrize("busy", ["after", "before"])
def test_threads(busy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do threads, each of which gives on what it was given, however long it or who asks works first."""
    monkeypatch.setattr(resting, "_most_s", 30)

    def asked(name: str) -> str:
        found = client.get(URL + name).text[:1]
        if busy == "after":
            work()
        return found

    with (
        replaying(THREE, tmp_path),
        httpx2.Client() as client,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        futures = [pool.submit(asked, name) for name in "abc"]
        if busy == "before":
            work()
        assert [one.result() for one in concurrent.futures.as_completed(futures)] == ["c", "b", "a"]


def test_who_had_all_of_it_last() -> None:
    """A thread that has the last bytes may read their end after another: it is that which counts.

    Not so in a stream out of which something else was asked for.
    """
    slow, quick = exchange("slow", 0, 100), exchange("quick", 1, 150)
    assert slow.ended_ns is not None
    slow = replace(slow, ended_ns=slow.ended_ns + 100 * MS)
    assert _ends([slow, quick]) == [1, 0]
    inner = exchange("inner", 160, 170)
    assert _ends([slow, quick, inner]) == [1, 2, 0]
    assert slow.response is not None
    stream = replace(slow, response=replace(slow.response, headers=(("content-type", "text/event-stream"),)))
    assert _ends([stream, quick]) == [1, 0]
    assert _ends([stream, quick, inner])[0] == 0


def _ends(exchanges: Sequence[Exchange]) -> list[int]:
    """The steps in the order in which they may end, once all have begun."""
    order = Order(exchanges, range(len(exchanges)))
    left = [step for step in range(len(exchanges)) if order.has_others(step)]
    for step in left:
        order.begun(step)
    found: list[int] = []
    while left:
        step = next(one for one in left if order.may_end(one))
        order.ended(step)
        left.remove(step)
        found.append(step)
    return found


def test_a_thread_that_never_rests_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it hold up the answers for ever."""
    monkeypatch.setattr(resting, "_most_s", 0.05)
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    worker = threading.Thread(target=spin)
    worker.start()
    try:
        with (
            replaying(THREE, tmp_path),
            httpx2.Client() as client,
            concurrent.futures.ThreadPoolExecutor(3) as pool,
        ):
            found = pool.map(lambda name: client.get(URL + name).text[:1], "abc")
            assert list(found) == ["a", "b", "c"]
    finally:
        over.set()
        worker.join()
    assert getattr(resting, "_most_s") == getattr(resting, "_AGAIN_S")  # noqa: B009


def test_the_first_is_acted_on(tmp_path: Path) -> None:
    """What an agent asks for because one has ended comes before the others end."""
    recorded = (*THREE, exchange("c-next", 40, 50), exchange("b-next", 310, 320))

    async def main() -> list[list[str]]:
        async with httpx2.AsyncClient() as client:
            waiting = {asyncio.ensure_future(ask(name, client)) for name in "abc"}
            found: list[list[str]] = []
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                found.append(sorted(one.result() for one in done))
                if found[-1] != ["a"]:
                    await client.get(f"{URL}{found[-1][0]}-next")
            return found

    with replaying(recorded, tmp_path):
        assert asyncio.run(main()) == [["c"], ["b"], ["a"]]


def test_a_race_with_a_time_limit(tmp_path: Path) -> None:
    """A call that was cancelled in time is over before one that took longer."""
    recorded = (exchange("slow", 0, 50, outcome="cancelled"), exchange("long", 1, 200))
    said: list[str] = []

    async def limited(client: httpx2.AsyncClient) -> None:
        try:
            await asyncio.wait_for(ask("slow", client), 0.05)
        except TimeoutError:
            said.append("limit")

    async def main() -> None:
        async with httpx2.AsyncClient() as client, asyncio.TaskGroup() as group:
            group.create_task(limited(client))
            said.append(await group.create_task(ask("long", client)))

    with replaying(recorded, tmp_path):
        asyncio.run(main())
    assert said == ["limit", "l"]


def test_streams_are_held_at_their_last_cut(tmp_path: Path) -> None:
    """What an agent asks for out of the middle of a stream is asked for while that goes on."""
    recorded = (exchange("stream", 0, 300, chunks=3), exchange("inner", 120, 150))

    async def main() -> list[str]:
        found: list[str] = []
        async with httpx2.AsyncClient() as client, client.stream("GET", URL + "stream") as response:
            inner: asyncio.Future[str] | None = None
            async for text in response.aiter_text():
                found.append(text)
                if inner is None:
                    inner = asyncio.ensure_future(ask("inner", client))
                    inner.add_done_callback(lambda one: found.append(one.result()))
        return found

    with replaying(recorded, tmp_path):
        assert asyncio.run(main()) == ["stream0;", "stream1;", "i", "stream2;"]


def test_an_agent_that_changed_is_not_held_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no longer asks for what overlapped gets its answers: at once after a drift."""

    async def main() -> str:
        async with httpx2.AsyncClient() as client:
            task = asyncio.ensure_future(ask("a", client))
            await asyncio.sleep(0)
            with pytest.raises(httpx2.ConnectError):
                await ask("another", client)
            return await task

    with replaying(THREE, tmp_path):
        assert asyncio.run(main()) == "a"
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(staging, "GRACE_S", 0.1)
    with replaying([exchange("a", 0, 20), exchange("b", 1, 10)], tmp_path / "again"):
        assert httpx2.get(URL + "a").text == "a0;"


@pytest.mark.parametrize(
    ("begun", "ended", "may"),
    [("", "", ""), ("b", "", ""), ("abc", "", "c"), ("abc", "c", "bc"), ("abc", "cb", "abc")],
)
def test_what_may_end(begun: str, ended: str, may: str) -> None:
    """Each once all that came before it has come; one alone is never held."""
    order = Order((*THREE, exchange("alone", 700, 800)), range(4))
    for name in begun:
        order.begun("abc".index(name))
    for name in ended:
        order.ended("abc".index(name))
    assert "".join(name for step, name in enumerate("abc") if order.may_end(step)) == may
    assert not order.has_others(3)
    order.free()
    assert all(map(order.may_end, range(3)))


@pytest.mark.slow
def test_many_take_as_many_steps() -> None:
    """What waits is woken once each, in the recorded order, whatever the number of those that overlap."""
    count = 10_000
    order = Order([exchange(str(step), step, 3 * count - step) for step in range(count)], range(count))
    woken: list[int] = []
    with soon(0.3), ExitStack() as waiting:
        for step in range(count):
            waiting.enter_context(order.waking(step, lambda step=step: woken.append(step)))
            order.begun(step)
        for step in reversed(range(count)):
            assert woken[-1:] == [step]
            order.ended(step)
    assert woken == [*reversed(range(count))]


def test_two_that_ended_at_once() -> None:
    """None of them waits for the other for ever."""
    order = Order([exchange("a", 0, 9), exchange("b", 1, 9)], range(2))
    order.begun(0)
    order.begun(1)
    assert [order.may_end(0), order.may_end(1)] == [True, False]
    order.ended(0)
    assert order.may_end(1)


def test_what_another_process_took_is_not_waited_for(tmp_path: Path) -> None:
    """It never begins here."""
    tape = Tape(run_id="1" * 32, exchanges=THREE)
    here, there = Player(tape, claim=Claims(tmp_path)), Player(tape, claim=Claims(tmp_path))
    for one in THREE[1:]:
        there.answer(one.request)
    assert isinstance(here.answer(THREE[0].request), Served)
    here.order.begun(0)
    assert not here.order.may_end(0)
    woken: list[int] = []
    with here.order.waking(0, lambda: woken.append(0)):
        here.order.look(0)
    assert woken == [0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_another_process_takes_while_one_waits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is given then, and not after the time that it took."""
    given_up: list[int] = []
    monkeypatch.setattr(Order, "give_up", lambda self, step: given_up.append(step))
    claims = tmp_path / "run.tape.claims"
    claims.mkdir()
    there = Player(Tape(run_id="1" * 32, exchanges=THREE), claim=Claims(claims))

    def take() -> None:
        for one in THREE[1:]:
            there.answer(one.request)

    async def main() -> str:
        async with httpx2.AsyncClient() as client:
            return await ask("a", client)

    later = threading.Timer(0.05, take)
    with replaying(THREE, tmp_path):
        later.start()
        assert (httpx2.get(URL + "a").text[:1] if kind == "sync" else asyncio.run(main())) == "a"
    later.join()
    assert not given_up


def test_nobody_waits_twice_for_what_does_not_come() -> None:
    """One that waited in vain has the others not wait for the same."""
    order = Order((*THREE, exchange("d", 3, 700)), range(4))
    for step in (0, 2, 3):
        order.begun(step)
    order.give_up(2)
    assert order.may_end(2)
    assert not order.may_end(0)
    order.ended(2)
    order.give_up(0)
    assert [order.may_end(step) for step in (0, 3)] == [True, False]
    order.ended(0)
    assert order.may_end(3)
