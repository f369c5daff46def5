"""Refusals of the tape that a fork serves before the same call's next attempt."""

from __future__ import annotations

import json

import pytest

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.play.answers import Served
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.player import Player
from tracefork_otel.play.retries import at_once
from tracefork_otel.tape.tape import Tape


def tape(*steps: tuple[str, int]) -> Tape:
    """A tape of (what is asked, status), one after the other."""
    return Tape(
        run_id="ab" * 16,
        exchanges=tuple(
            Exchange(
                trace_id="ab" * 16,
                span_id=f"{at:016x}",
                parent_span_id=None,
                process_id="p",
                seq=at,
                started_ns=2 * at,
                ended_ns=2 * at + 1,
                request=asked(text),
                response=Response(status=status),
                outcome="complete",
            )
            for at, (text, status) in enumerate(steps)
        ),
    )


def asked(text: str) -> Request:
    """A request with that text."""
    return Request(method="POST", url="https://api.openai.com/v1/x", body=json.dumps(text).encode())


@pytest.mark.parametrize(
    ("steps", "retried"),
    [
        ([("a", 529), ("a", 529), ("a", 200), ("b", 200)], [True, True, False]),
        ([("a", 503), ("c", 200), ("b", 200)], [False, False]),  # the agent went on from the error
        ([("a", 400), ("a", 200), ("b", 200)], [False, False]),  # it is the agent that tries again
        ([("a", 200), ("a", 200), ("b", 200)], [False, False]),
    ],
)
def test_a_fork_knows_which_refusals_were_tried_again(
    steps: list[tuple[str, int]], retried: list[bool]
) -> None:
    """By the same request later on its tape; a replay says it of none, and gives what was recorded."""
    played = tape(*steps)
    noop = Intervention(kind="noop", step=len(steps) - 1, label="noop")
    for player, wanted in ((Player(played, intervention=noop), retried), (Player(played), [False] * 9)):
        for (text, _), told in zip(steps[:-1], wanted, strict=False):
            answer = player.answer(asked(text))
            assert isinstance(answer, Served)
            assert answer.retried == told


def test_what_the_change_makes_is_not_hurried() -> None:
    """The attempt that is forked is answered as the fork has it, and what comes after is no prefix."""
    player = Player(
        tape(("a", 429), ("a", 200)), intervention=Intervention(kind="noop", step=0, label="noop")
    )
    answer = player.answer(asked("a"))
    assert isinstance(answer, Served)
    assert not answer.retried


@pytest.mark.parametrize(
    ("told", "then"),
    [
        ({}, "1"),
        ({"retry-after": "20"}, "1"),
        ({"Retry-After-Ms": "20000", "retry-after": "20"}, "1"),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, "1"),
        ({"retry-after": "3600"}, None),  # clients give up there, and it is the agent that tries again
        ({"retry-after-ms": "3600000"}, "3600000"),
    ],
)
def test_clients_are_told_to_try_again_at_once(told: dict[str, str], then: str | None) -> None:
    """Where they would wait as long as they were told, or as they think fit; the rest is as recorded."""
    headers = tuple(told.items())
    response = at_once(Response(status=429, headers=headers, body=b"slow down"))
    assert response.header("retry-after-ms") == then
    assert sum(name.lower() == "retry-after-ms" for name, _ in response.headers) == (then is not None)
    assert (response.status, response.body, response.header("retry-after")) == (
        429,
        b"slow down",
        told.get("retry-after"),
    )
