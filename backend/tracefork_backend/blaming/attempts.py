"""Requests that were refused and made again: each is one step with the attempt that was answered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise

from tracefork_otel.play.match import fingerprint
from tracefork_otel.play.retries import failed, over_before
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.registry import recognise


def attempts_of(tape: Tape) -> tuple[tuple[int, int], ...]:
    """Return (attempt, answer) of each model call that was refused, or broke, and was made again.

    The answer is what came of it in the end: the first attempt that was answered, else the last one.
    """
    asked: list[int] = []
    later: dict[str, int] = {}
    again: dict[int, int] = {}
    for step in reversed(range(tape.steps)):
        exchange = tape.exchanges[step]
        request = exchange.request
        if recognise(request.method, request.url, request.body) is None:
            continue
        asked.append(step)
        key = fingerprint(request)
        following = later.get(key)
        if following is not None and failed(exchange) and over_before(exchange, tape.exchanges[following]):
            again[step] = following
        later[key] = step
    asked.reverse()
    if not _at_once(tape, asked, again):
        # An agent that does one thing at a time, and did another meanwhile, had gone on from the error.
        next_of = dict(pairwise(asked))
        again = {step: following for step, following in again.items() if next_of[step] == following}
    answers: dict[int, int] = {}
    for step in sorted(again, reverse=True):
        answers[step] = answers.get(again[step], again[step])
    return tuple(sorted(answers.items()))


def _at_once(tape: Tape, asked: list[int], again: Mapping[int, int]) -> bool:
    """Return whether the agent has branches that ask at the same time, or try again in turns."""
    calls = sorted((tape.exchanges[step] for step in asked), key=lambda one: one.started_ns)
    over = accumulate((one.ended_ns or one.started_ns for one in calls), max)
    if any(ended > after.started_ns for ended, after in zip(over, calls[1:], strict=False)):
        return True
    open_until: list[int] = []
    for step, following in sorted(again.items()):
        while open_until and open_until[-1] <= step:
            open_until.pop()
        if open_until and open_until[-1] < following:
            return True
        open_until.append(following)
    return False
