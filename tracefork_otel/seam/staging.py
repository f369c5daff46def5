"""What answers a request while the seam plays: a recorded exchange, a fork's live call, or a drift."""

from __future__ import annotations

import asyncio
import builtins
import http.client
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..draws.blaming import after_draws
from ..exchange import Exchange
from ..play.answers import Live, Miss, Served
from ..play.retries import at_once
from ..play.tools import GRACE_S
from ..session.housekeeping import renewing
from .exchange import SeamExchange
from .holding import Held, asleep
from .noting import at
from .recording import start, value_of

if TYPE_CHECKING:
    from ..play.answers import Answer
    from ..play.match import Explanation
    from ..session.session import Session

Refusing = Callable[[str], BaseException]
"""Makes an error of the client's own out of what is to be said: SDKs take it for a failed connection."""


def staged(session: Session, request: Any, body: bytes, refusing: Refusing) -> Staged | Live:
    """Return the open exchange and what answers it, or how to go live; else raise the drift."""
    value = value_of(session, request, body)
    player = session.player
    assert player is not None
    answer: Answer | None = None
    why = ""
    try:
        answer = player.answer(value)
        if session.draws is not None:
            answer = session.draws.seen(answer)
    except Exception as error:
        session.lost("answer of a tape", error)
        why = f"the tape gave no answer: {error}"
    if isinstance(answer, Live) and answer.step is not None:
        player.order.passed(answer.step)
    elif isinstance(answer, Live | Miss):
        player.order.free()
    if isinstance(answer, Live):
        if player.leave.wait(answer.sent(value)):
            return answer
        why = "it was not sent, as the budget has no room for it"
    served = answer if isinstance(answer, Served) else None
    if served is not None and served.asked is not None:
        value = served.asked
    exchange = start(session, request, value, replayed=served is not None)
    if answer is not None and answer.phase is not None:
        exchange.belongs_to(answer.phase, None if served is None else served.label)
    if served is not None:
        exchange.served_span_id = None if served.changed else served.exchange.span_id
        exchange.not_compared(served.uncompared)
    exchange.open(complete=True)
    if served is not None:
        waits = session.settings.timing == "recorded"
        held = None
        if not waits and player.order.has_others(served.step):
            held = Held(player.order, served.step)
            player.order.begun(served.step)
        recorded = served.exchange
        if served.retried and not waits and recorded.response is not None:
            recorded = replace(recorded, response=at_once(recorded.response))
        return Staged(exchange, recorded, waits=waits, held=held)
    if isinstance(answer, Miss):
        explanation = _advised(session, answer.explanation)
        exchange.attributes["tracefork.drift"] = explanation.to_json()
        why = explanation.text()
        player.tell(explanation)
    exchange.error_type = "tracefork_otel.Drift"
    error = refusing(f"tracefork {session.settings.mode}: {why}")
    exchange.fail(error)
    raise error


def unheard(
    session: Session, request: Any, body: bytes, error: BaseException, *, complete: bool
) -> BaseException:
    """Return the error by which nobody listens there, once it is written down as the exchange's end."""
    exchange = start(session, request, value_of(session, request, body), replayed=False)
    exchange.open(complete=complete)
    exchange.fail(error)
    return error


def _advised(session: Session, explanation: Explanation) -> Explanation:
    """Return the explanation with advice that helps where this process is the reason."""
    if session.paused is None:
        return after_draws(explanation) if session.player and session.player.drew else explanation
    advice = (
        f"it is made where the recording is off, by uninstrument(){at(session.paused)}: leave that out, and "
        "record anew"
    )
    return replace(explanation, advice=advice)


@dataclass(slots=True)
class Staged:
    """A recorded exchange that answers the open one."""

    exchange: SeamExchange
    recorded: Exchange
    waits: bool
    """Whether it takes the time that it took."""
    held: Held | None = None
    """Its place in the order of ends, where others overlap with it."""

    def hold(self) -> None:
        """Wait for whatever ended before this in the recording; this has ended then."""
        if self.held is not None:
            self.held.wait(self.left_until_the_end() + GRACE_S)
            self.held.over()

    def came(self, number: int) -> None:
        """Note that this chunk is given, for streams that wait for it."""
        if self.held is not None:
            self.held.came(number)

    async def apart(self, number: int) -> None:
        """Wait, in an event loop, for what came of other streams before this chunk did."""
        if self.held is not None:
            await self.held.part(number, self.left_until_the_end() + GRACE_S)

    async def ahold(self) -> None:
        """Do what `hold` does, in an event loop."""
        if self.held is not None:
            try:
                await self.held.turn(self.left_until_the_end() + GRACE_S)
            finally:
                self.held.over()

    async def hang(self) -> None:
        """Wait to be cancelled as in the recording; raise the cancellation if nobody does."""
        try:
            await asleep(self.left_until_the_end() + GRACE_S)
        finally:
            self.leave()
        raise asyncio.CancelledError

    def leave(self) -> None:
        """Let nobody wait for this end."""
        if self.held is not None:
            self.held.over()

    def chunks(self) -> Iterator[tuple[int, float, bytes, bool]]:
        """Yield each recorded chunk: number, seconds in which it is due, bytes, whether it is the last."""
        response = self.recorded.response
        assert response is not None
        offsets = response.chunk_offsets_us if self.waits else ()
        # What came in over OTLP without its cuts is served in one piece.
        pieces = response.chunks() or ((response.body,) if response.body else ())
        for number, piece in enumerate(pieces):
            due_ns = offsets[number] * 1000 if number < len(offsets) else 0
            due_s = max(0.0, (self.exchange.started + due_ns - perf_counter_ns()) / 1e9)
            yield number, due_s, piece, number == len(pieces) - 1
        if not pieces:
            yield 0, 0.0, b"", True

    def left_until_the_end(self) -> float:
        """Return the seconds until the recorded exchange was over, counted from this one's start."""
        length_ns = (self.recorded.ended_ns or self.recorded.started_ns) - self.recorded.started_ns
        return max(0.0, (self.exchange.started + length_ns - perf_counter_ns()) / 1e9)

    @property
    def ends_well(self) -> bool:
        """Whether the recorded body was read to its end."""
        return self.recorded.outcome == "complete"

    def ending(self) -> str:
        """Return why the recording of this exchange ends where it does, if nothing else is known of it."""
        recorded = self.recorded
        what = recorded.error_message or f"the recording of this exchange ends here ({recorded.outcome})"
        return f"{recorded.error_type}: {what}" if recorded.error_type else what


@contextmanager
def leaving(live: Live) -> Iterator[None]:
    """Let the request leave this machine, where a fork asks for a key before its change."""
    token = renewing.set(live.phase == "prefix")
    try:
        yield
    finally:
        renewing.reset(token)


_HOMES = {"asyncio.exceptions": builtins} | {
    module.__name__: module for module in (builtins, http.client, socket, ssl)
}
"""Modules of the errors by which a connection ends that are no client's own."""
_ENDS = (OSError, EOFError, ValueError, RuntimeError, http.client.HTTPException)
_NUMBERED = re.compile(r"\[Errno (-?\d+)\] (.*)", re.DOTALL)


def pythons_error(recorded: Exchange) -> BaseException | None:
    """Return the recorded error, made anew, where it is one of Python's; None where it is a client's own."""
    home, _, name = (recorded.error_type or "").rpartition(".")
    cls: Any = getattr(_HOMES.get(home), name, None)
    if not (isinstance(cls, type) and issubclass(cls, _ENDS)):
        return None
    try:
        return made_anew(cls, recorded.error_message or "")
    except TypeError:  # it is made of more than words
        return None


def made_anew(cls: Any, message: str) -> BaseException:
    """Return an error of this class that says the same; TypeError where it is made of something else."""
    numbered = _NUMBERED.fullmatch(message)
    if numbered is not None and issubclass(cls, OSError):
        return cls(int(numbered[1]), numbered[2])
    return cls(message) if message else cls()


def moved_to(session: Session, url: Any) -> str | None:
    """Return where the address is by now, without a path of its own; None where it is where it was."""
    moved = dict(session.settings.moved or ())
    place = f"{url.scheme}://{urlsplit(str(url)).netloc}".lower()
    found = moved.get(place)
    return None if found is None else found.rstrip("/")
