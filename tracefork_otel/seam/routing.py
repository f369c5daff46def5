"""What is done with a request of a client that is captured: one decision for all clients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from ..session.housekeeping import asking, only_tells
from ..session.session import Session
from ..session.telemetry import sender_above
from ..wire.hosts import is_loopback
from ..wire.registry import port_of, recognise
from .exchange import sent_here
from .kept import stays
from .noting import at, caller, note_once, note_skipped
from .services import known_services

Way: TypeAlias = Literal[
    "record",
    "play",
    "refuse",  # as this machine would: nobody listens there, and the tape has no such address
    "aside",  # it is housekeeping
    "kept",  # it is somebody's telemetry in a replay: a plain success is answered, and nothing sent
    "own",  # it is said to a service of the run's own, or a client above has it already
    "paused",  # the agent turned the recording off
]


def routed(session: Session, request: Any, body: Callable[[], bytes]) -> tuple[Way, str]:
    """Return what is done with the request; and who makes what is left aside: empty for the user's word."""
    if _is_below(session, request):
        return "own", ""
    sender = sender_above(sys._getframe(1))
    if sender is not None:
        return ("kept" if stays(session, sender) else "own"), sender.package
    who = _housekeeper(session, request, body)
    if who is not None:
        tells = session.player is not None and only_tells(who, request.method, request.url.path)
        return ("kept" if tells else "aside"), who
    listener = None
    if is_loopback(request.url.host) and (services := known_services(session)) is not None:
        listener = services.asked(request.method, request.url, body())
    if listener == "own":
        return "own", ""
    if session.player is None:
        return ("record" if session.paused is None else "paused"), ""
    return ("refuse" if listener == "nobody" and session.player.watching else "play"), ""


def _is_below(session: Session, request: Any) -> bool:
    """Return whether this is a client's transport, which sends what that client has been asked for."""
    above = sent_here.get()
    if above is None or above.done or above.status is not None or above.session is not session:
        return False
    if session.settings.moved:
        return True  # to another address by now
    url, asked = request.url, above.request
    here = (request.method, url.host, unquote(url.path) or "/")
    return here == (asked.method, above.host, unquote(urlsplit(asked.url).path) or "/")


def _housekeeper(session: Session, request: Any, body: Callable[[], bytes]) -> str | None:
    """Return who makes the request beside what the agent does, empty where the user said so; else None."""
    url = request.url
    if not session.housekeeping.has(url.host):
        return None
    who = session.housekeeping.of(url.host, url.path, port_of(url))
    asks_model = who is not None and recognise(request.method, str(url), body())
    return None if asks_model else who


@contextmanager
def aside(session: Session, url: Any, who: str) -> Iterator[None]:
    """Have what connects within the block be housekeeping too; a replay says that it was asked."""
    if session.player is not None:
        note_skipped(session, url.host, port_of(url), who)
    token = asking.set(who)
    try:
        yield
    finally:
        asking.reset(token)


def note_missed(session: Session, host: str) -> None:
    """Note that there was a call which is not recorded, as the agent turned the recording off."""
    called_at = caller()
    why = (
        f"a call of {host}{at(called_at)} was made while the recording was off, by uninstrument()"
        f"{at(session.paused)}: it is not recorded"
    )
    note_once(session, "incomplete", f"{host} {called_at}", {"host": host, "why": why})
