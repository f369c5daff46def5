"""The player serves each recorded exchange once, to whoever asks for it first."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from growth_guard import soon

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play.answers import Miss, Served
from tracefork_otel.play.claims import claims_beside
from tracefork_otel.play.player import Player
from tracefork_otel.tape.tape import Tape

URL = "https://api.anthropic.com/v1/messages"


def request(content: object = "hi", **members: object) -> Request:
    """An Anthropic request with that content as its only message."""
    body = {"model": "claude-x", "messages": [{"role": "user", "content": content}], **members}
    return Request(method="POST", url=URL, body=json.dumps(body).encode())


def tape(*requests: Request) -> Tape:
    """A tape whose step n answers `n`."""
    return Tape(
        run_id="ab" * 16,
        exchanges=tuple(
            Exchange(
                trace_id="ab" * 16,
                span_id=f"{step:016x}",
                parent_span_id=None,
                process_id="1-00000000",
                seq=step,
                started_ns=step,
                ended_ns=step + 1,
                request=one,
                response=Response(status=200, body=str(step).encode(), chunk_sizes=(len(str(step)),)),
                outcome="complete",
            )
            for step, one in enumerate(requests)
        ),
    )


def test_serves_equal_requests_in_recorded_order() -> None:
    """Equal requests (a retry after 429) get their answers in the order in which they were recorded."""
    player = Player(tape(request("a"), request("b"), request("a")))
    steps = [answer.step for answer in map(player.answer, (request("a"), request("a"), request("b")))]
    assert steps == [0, 2, 1]
    assert isinstance(player.answer(request("b")), Miss)


def test_answers_fan_out_in_any_order() -> None:
    """Requests are matched by content, so the order of a fan-out does not matter."""
    player = Player(tape(*(request(f"q{n}") for n in range(6))))
    for n in (3, 1, 5, 0, 2):
        answer = player.answer(request(f"q{n}"))
        assert isinstance(answer, Served)
        assert answer.exchange.response is not None
        assert answer.exchange.response.body == str(n).encode()


def test_a_retried_miss_counts_once() -> None:
    """An SDK that retries a request that is not on the tape gets one explanation, whatever came between."""
    player = Player(tape(request("a")))
    first = player.answer(request("z"))
    assert isinstance(first, Miss)
    assert isinstance(player.answer(request("a")), Served)
    assert player.answer(request("z")) == first


def test_one_call_more_is_extra() -> None:
    """A recorded request that comes once more than recorded is a miss with cause `extra`."""
    player = Player(tape(request("a"), request("b")))
    player.answer(request("a"))
    answer = player.answer(request("a"))
    assert isinstance(answer, Miss)
    assert (answer.explanation.cause, answer.explanation.nearest, answer.explanation.step) == ("extra", 0, 1)


def test_each_exchange_is_claimed_once_by_threads() -> None:
    """Sixteen threads asking for the same request get every recorded answer exactly once."""
    player = Player(tape(*(request("same") for _ in range(800))))
    got: list[int] = []
    barrier = threading.Barrier(16)

    def ask() -> None:
        barrier.wait()
        for _ in range(50):
            answer = player.answer(request("same"))
            assert isinstance(answer, Served)
            got.append(answer.step)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(800))


def test_json_match_and_ignored_paths() -> None:
    """`json` looks past spelling; an ignored path may hold anything or be absent."""
    recorded = request("a", metadata={"user_id": "u1"})
    spelled = Request(method="POST", url=URL, body=json.dumps(json.loads(recorded.body), indent=1).encode())
    assert isinstance(Player(tape(recorded)).answer(spelled), Miss)
    assert isinstance(Player(tape(recorded), match="json").answer(spelled), Served)
    other = request("a", metadata={"user_id": "u2"})
    assert isinstance(Player(tape(recorded), match="json").answer(other), Miss)
    assert isinstance(Player(tape(recorded), ignore=["metadata.user_id"]).answer(other), Served)
    assert isinstance(Player(tape(recorded), ignore=["messages[*].content"]).answer(other), Miss)


def test_a_wrong_path_is_refused_at_once() -> None:
    """A path that is none is the caller's error, said before anything is replayed."""
    with pytest.raises(UsageError, match="messages\\[0"):
        Player(tape(request()), ignore=["messages[0"])


def test_claims_are_shared_between_players(tmp_path: Path) -> None:
    """Two processes' players with one folder of claims serve two equal recorded requests one each."""
    path = tmp_path / "run.tape"
    (tmp_path / "run.tape.claims").mkdir()
    recorded = tape(request("a"), request("a"))
    players = [Player(recorded, claim=claims_beside(path)) for _ in range(2)]
    steps = [answer.step for answer in (player.answer(request("a")) for player in players)]
    assert steps == [0, 1]
    assert isinstance(players[0].answer(request("a")), Miss)


def test_an_answer_costs_no_more_in_a_long_tape() -> None:
    """Answering all of 2,000 requests of 10 KB takes as many steps, not as many times as many."""
    requests = [request("x" * 10_000 + str(n)) for n in range(2_000)]
    players = [Player(tape(*requests)) for _ in range(2)]
    with soon(0.2):
        for player in players:
            for one in requests:
                assert isinstance(player.answer(one), Served)
