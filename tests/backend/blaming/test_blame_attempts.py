"""Which exchanges of a tape are attempts at one call, and what came of it."""

from __future__ import annotations

import json

import httpx2
import pytest
import tracefork_backend as tf
from conftest import Capture
from tracefork_backend.blaming import changes
from tracefork_backend.blaming.attempts import attempts_of
from tracefork_backend.simulate import ModelServer
from tracefork_backend.simulate.model import Call, Reply
from tracefork_backend.store import open_store

import tracefork_otel
from tracefork_otel.exchange import Exchange, Outcome, Request, Response
from tracefork_otel.tape.tape import Tape

MODEL = "https://api.anthropic.com/v1/messages"


def tape(*steps: tuple[str, int | Outcome, int, int], url: str = MODEL) -> Tape:
    """A tape of (what is asked, status or how it ended, from, to)."""
    exchanges: list[Exchange] = []
    for at, (asked, ended, began, over) in enumerate(steps):
        body = {"model": "claude-x", "messages": [{"role": "user", "content": asked}]}
        status = ended if isinstance(ended, int) else 200
        exchanges.append(
            Exchange(
                trace_id="ab" * 16,
                span_id=f"{at:016x}",
                parent_span_id=None,
                process_id="p",
                seq=at,
                started_ns=began,
                ended_ns=over,
                request=Request(method="POST", url=url, body=json.dumps(body).encode()),
                response=None if ended == "no_response" else Response(status=status, body=b"{}"),
                outcome="complete" if isinstance(ended, int) else ended,
            )
        )
    return Tape(run_id="ab" * 16, exchanges=tuple(exchanges))


@pytest.mark.parametrize(
    ("steps", "attempts"),
    [
        ([("a", 200, 0, 1), ("b", 429, 2, 3), ("b", 200, 4, 5)], [(1, 2)]),
        (
            [("a", 529, 0, 1), ("a", "no_response", 2, 3), ("a", "cut", 4, 5), ("a", 200, 6, 7)],
            [(0, 3), (1, 3), (2, 3)],
        ),
        ([("a", 429, 0, 1), ("a", 429, 2, 3)], [(0, 1)]),  # given up: the last is what the agent went on from
        ([("a", 200, 0, 1), ("a", 200, 2, 3)], []),  # asked twice, and answered twice
        ([("a", 429, 0, 9), ("a", 200, 2, 3)], []),  # another branch's, while the first was not over
        ([("a", 429, 0, 1), ("b", 200, 2, 3)], []),  # another request: a step of the agent's own
        ([("a", 429, 0, 1), ("b", 429, 2, 3), ("a", 200, 4, 5), ("b", 200, 6, 7)], [(0, 2), (1, 3)]),
        (
            [("a", 429, 0, 2), ("b", 200, 1, 3), ("c", 200, 4, 5), ("a", 200, 6, 7)],
            [(0, 3)],
        ),  # another branch
        ([("a", 400, 0, 1), ("a", 200, 2, 3)], []),  # it says what is wrong: no reason to try again
        ([("a", 400, 0, 1), ("b", 200, 2, 3), ("c", 200, 4, 5), ("a", 200, 6, 7)], []),
        ([("a", 503, 0, 1), ("b", 200, 2, 3), ("a", 200, 4, 5)], []),  # the agent had gone on without it
        ([("a", 503, 0, 1), ("b", 200, 2, 3), ("a", 408, 4, 5), ("a", 200, 6, 7)], [(2, 3)]),
        ([("a", 409, 0, 1), ("a", 425, 2, 3), ("a", 404, 4, 5), ("a", 200, 6, 7)], [(0, 2), (1, 2)]),
    ],
)
def test_what_was_refused_and_made_again(
    steps: list[tuple[str, int | Outcome, int, int]], attempts: list[tuple[int, int]]
) -> None:
    """By the same request, once the refused one was over."""
    assert list(attempts_of(tape(*steps))) == attempts


def test_other_requests_are_steps_of_their_own() -> None:
    """A tool's service that refuses may have acted all the same."""
    assert attempts_of(tape(("a", 429, 0, 1), ("a", 200, 2, 3), url="https://tools.example/book")) == ()


@pytest.mark.slow
def test_a_rate_limit_is_never_the_cause(capture: Capture) -> None:
    """A refused attempt at the graded answer, put right by whoever asked again, is no step by itself."""
    refused = iter([True])

    def answers(call: Call) -> Reply:
        if len(call.messages) > 1 and next(refused, False):
            return Reply(status=429)
        return Reply(text="BROKEN" if "garbage" in call.prompt else "SUCCESS")

    with ModelServer(answers) as server:
        capture.on()
        assert tracefork_otel.agent(twice)(server.url) == "SUCCESS"
        capture.off()
        (run,) = open_store(capture.store).runs("record")
        assert [one.response and one.response.status for one in run.exchanges] == [200, 429, 200]
        found = tf.blame(
            run,
            oracle=tf.regex(success="SUCCESS"),
            change=changes.ablate("garbage"),
            agent=lambda: twice(server.url),
            max_trials=30,
        )
    verdicts = [effect.verdict for effect in found.findings.effects]
    assert verdicts[1:] == ["not_intervenable", "output"]
    assert tf.open_store(capture.store).rows("SELECT count(*) AS n FROM blame_effects")[0]["n"] == 3


def twice(url: str) -> str:
    """An agent that asks twice, each time until it is answered."""
    messages = [{"role": "user", "content": "check"}]
    said = ""
    for _ in range(2):
        body = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": messages}
        answer = httpx2.post(f"{url}/v1/messages", json=body)
        if answer.status_code == 429:
            answer = httpx2.post(f"{url}/v1/messages", json=body)
        said = answer.json()["content"][0]["text"]
        messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": "on"}]
    return said
