"""What an agent says by clients that are not captured: noted while recording, with name and count.

Nobody knows whether a model answered, so such a run is as complete as before, and says what is beside it.
"""

from __future__ import annotations

import atexit
import socket
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from ..recording.unseen import connected
from ..session import current
from ..session.imports import when_imported
from ..session.session import Session
from ..session.telemetry import sender_above
from ..undo import Undo
from ..wire.registry import is_model_host
from .kept import Unsent, keep_compiled, kept_here
from .noting import HTTP_CLIENTS, at, caller, is_own_code, leaked, note_once, run_here

_CAPTURED = ("anyio", "httpcore", "httpcore2", "httpx", "httpx2")
"""Packages below which the seam stands; tasks of anyio connect for them."""
_SEAMS = {
    "urllib3": "pooled",
    "aiohttp": "connected",
    "aiohappyeyeballs": "connected",
    "websockets": "socketed",
}
"""The same, where a seam may have left them alone: tasks of aiohappyeyeballs connect for aiohttp."""
_BESIDE = ("websockets.legacy",)
"""Clients in those packages that have a protocol of their own, which is not captured."""
expected: set[str] = set()
"""Hosts of websockets that are captured: asyncio has them looked up where nobody sees for whom."""
_CHANNELS = ("insecure_channel", "secure_channel")


class _Place(NamedTuple):
    """Who connected where, in which process."""

    process_id: str
    client: str
    host: str
    port: int


_counts: dict[_Place, int] = {}
_told: dict[_Place, int] = {}
_callers: dict[_Place, str] = {}


def watch(undo: Undo) -> None:
    """Have gRPC's channels noted too, which connect where no audit hook sees it."""
    undo.add(when_imported("grpc", lambda module: _on_grpc(module, undo)))
    undo.add(when_imported("grpc.aio", lambda module: _on_grpc(module, undo)))
    keep_compiled(undo)
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def connecting(session: Session, sock: Any, address: Any, name_of: Callable[[str], str]) -> None:
    """Note a connection that a client makes which speaks HTTP and is not captured, by the address's name."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not sock.type & socket.SOCK_STREAM:
        return
    client = _client(sys._getframe(1))
    if client is None or sender_above(sys._getframe(1)) is not None:
        return
    host, port = str(address[0]), int(address[1])
    _note(session, client, name_of(host), port, host)


def summary(session: Session) -> list[str]:
    """Return what this process said by clients that are not captured, a sentence part for each of them."""
    return [
        connected(place.client, place.host, place.port, _callers[place], count=count)
        for place, count in _counts.items()
        if place.process_id == session.process_id
    ]


def noted(session: Session, client: str, host: str, port: int) -> None:
    """Note a connection that is not captured of a client that is: a websocket's."""
    if session.settings.mode == "record" and sender_above(sys._getframe(1)) is None:
        _note(session, client, host, port, host)


def _note(session: Session, client: str, host: str, port: int, address: str) -> None:
    names = (host, address)
    if any(name in names and only in (None, port) for name, only in session.allowed):
        return
    if is_model_host(host) or session.housekeeping.of(host, None, port) is not None:
        return  # of the one the run says that it is incomplete, the other is no part of it
    if any(exchange.host in names for exchange in list(session.open.values())):
        return  # a transport of the application's below a client that is captured
    place = _Place(session.process_id, client, host, port)
    _counts[place] = _counts.get(place, 0) + 1
    if place not in _callers:
        _callers[place] = caller() or "a place of its own"
        _tell(session, place)


def _tell(session: Session, place: _Place) -> None:
    _told[place] = _counts[place]
    said = {"client": place.client, "host": place.host, "port": place.port}
    said |= {"caller": _callers[place], "count": _counts[place]}
    session.note("unseen", said, run_here(session))


def _at_exit() -> None:
    # Each was noted at once; how often it was is known now.
    session = current.session
    for place, count in list(_counts.items()):
        if session is not None and place.process_id == session.process_id and _told.get(place) != count:
            _tell(session, place)
    patch = sys.modules.get("tracefork_otel.seam.patch")  # it loads OpenTelemetry, and may not be needed
    if patch is None or session is None or session.player is not None:
        return
    _say_taken_out(session, patch.taken_out(), "later calls", "; call instrument() after that library's own")


def put_back() -> None:
    """Capture again where another library ended that; a run is incomplete by what it may have missed."""
    patch, session = sys.modules.get("tracefork_otel.seam.patch"), current.session
    if patch is None or session is None or session.player is not None:
        return
    _say_taken_out(session, patch.put_back(), f"calls before instrument() ran again{at(caller())}")


def _say_taken_out(session: Session, gone: list[str], missed: str, remedy: str = "") -> None:
    for name in gone:
        why = (
            f"what records {name} was taken out of it by another library, which put back what it had found:"
            f" {missed} are not recorded{remedy}"
        )
        note_once(session, "incomplete", f"{name} {missed}", {"host": name, "client": name, "why": why})


def _client(frame: FrameType | None) -> str | None:
    """Return the client that connects here, by the name that the agent's code called; None for any other."""
    found: str | None = None
    for module, file in _modules(frame):
        package = module.partition(".")[0]
        if found is None and (package in _CAPTURED or _has_seam(package)) and not module.startswith(_BESIDE):
            return None
        if package in HTTP_CLIENTS:
            found = package
        elif package == "aiohappyeyeballs":  # in a task of its own
            found = "aiohttp"
        elif found is not None and is_own_code(file):
            break
    return found


def _has_seam(package: str) -> bool:
    seam = sys.modules.get(f"tracefork_otel.seam.{_SEAMS.get(package)}")
    return seam is not None and seam.is_captured()


def _modules(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    while frame is not None:
        yield str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        frame = frame.f_back


def _on_grpc(module: ModuleType, undo: Undo) -> None:
    for name in _CHANNELS:
        original = getattr(module, name, None)
        if original is not None:
            undo.replace(module, name, _noting(original, is_async=module.__name__ == "grpc.aio"))


def _noting(original: Any, *, is_async: bool) -> Any:
    @wraps(original)
    def channel(target: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None:
            return original(target, *args, **kwargs)
        try:
            here = None if is_async else kept_here()
            if here is not None:
                return Unsent(*(_place_of(str(target)) or (str(target), 0)), here[1].package)
            if sender_above(sys._getframe(1)) is None:
                _channel(session, str(target))
        except Exception as error:
            session.lost("watch of connections", error)
        return original(target, *args, **kwargs)

    return channel


def _channel(session: Session, target: str) -> None:
    place = _place_of(target)
    if place is None:
        return
    host, number = place
    if session.player is not None and session.player.watching:
        if not any(name == host and only in (None, number) for name, only in session.allowed):
            leaked(session, host, number, "grpc", caller())
    elif session.settings.mode == "record":
        _note(session, "grpc", host, number, host)


def _place_of(target: str) -> tuple[str, int] | None:
    """Return host and port of a channel's target (`dns:///host:port`); None for a socket in a file."""
    place = target.rpartition("://")[2].rpartition("/")[2]
    if target.startswith("unix:") or place.startswith("unix:"):
        return None
    host, _, port = place.removeprefix("ipv4:").removeprefix("dns:").rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() and host else (place, 443)
