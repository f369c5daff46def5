"""Connections that go round the seam, seen by Python's audit events: noted, and only telemetry's stopped."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections import deque
from typing import Any

from ..session import current
from ..session.housekeeping import asking, renewing
from ..session.session import Session
from ..session.telemetry import sender_above
from ..wire.hosts import is_loopback
from ..wire.registry import is_model_host
from . import unseen
from .kept import note_unsent, stays
from .lines import STARTED, commands_of, folder_of
from .noting import addresses, at, begin, caller, client, is_allowed, leaked, missed, note_once
from .programs import starting
from .services import known_services

_CONNECTING = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
_REMEMBERED = 4
"""How many looked-up host names are kept: a connection shows an address, a person wants the name."""

_installed = False
_inside = threading.local()
_recent: deque[str] = deque(maxlen=_REMEMBERED)


def watch(session: Session) -> None:
    """Watch the connections of this process from now on, as long as it has a session."""
    global _installed
    begin(session)
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)  # for good: audit hooks cannot be taken off


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every import, open and exec of the process comes by here, so anything else leaves at once.
    if event not in _CONNECTING and event not in STARTED:
        return
    session = current.session
    if session is None or getattr(_inside, "hook", False):
        return
    _inside.hook = True
    try:
        watching = session.player is not None and session.player.watching
        if event == "socket.getaddrinfo":
            _looked_up(session, args[0], watching)
        elif event == "socket.sendto":
            if session.player is not None:
                _refuse_senders(session, args[0], args[1])
        elif event == "socket.connect":
            if session.player is not None:
                _refuse_senders(session, args[0], args[1])
            if watching:
                _connecting(session, args[0], args[1])
            elif session.settings.mode == "record":
                unseen.connecting(session, args[0], args[1], _name_of)
                _inside.name = None
        else:
            starting(session, commands_of(event, args), folder_of(event, args), watching=watching)
    except ConnectionRefusedError:
        raise  # ours
    except Exception as error:
        session.lost("watch of connections", error)
    finally:
        _inside.hook = False


def _looked_up(session: Session, host: Any, watching: bool) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str):
        return
    _inside.name = name
    if name not in _recent:
        _recent.append(name)
    if not is_model_host(name):
        return
    if asking.get() is not None or sender_above(sys._getframe(1)) is not None:
        return  # its maker has models at the same host
    if watching and not any(name == allowed for allowed, _ in session.allowed):
        # What is served from the tape is never looked up; the connection itself may fail, here and now.
        leaked(session, name, 443, client(), caller())
    if session.settings.mode != "record":
        return
    if any(exchange.host == name for exchange in list(session.open.values())):
        return
    by, called_at = client(), caller()
    if name in unseen.expected and by in ("websockets", "aiohttp", "a client on asyncio"):
        return
    missed(session, name, by, called_at, f"{by} called {name}{at(called_at)}")


def _name_of(host: str) -> str:
    """Return the name that was looked up for a connection to this address: in this thread before it, or one
    of the last that any thread looked up, as asyncio has others do, if it has this address.
    """
    return getattr(_inside, "name", None) or _name_at(host)


def _name_at(host: str) -> str:
    return next((name for name in reversed([*_recent]) if host == name or host in addresses(name)), host)


def _refuse_senders(session: Session, sock: Any, address: Any) -> None:
    """Have somebody's telemetry hear that nobody listens there, where what it sends is to stay here.

    Its client is none that is captured, or an answer would have been made.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or asking.get() is not None:
        return
    sender = sender_above(sys._getframe(1))
    if sender is not None and stays(session, sender):
        note_unsent(session, _name_at(str(address[0])), int(address[1]), sender.package)
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def _connecting(session: Session, sock: Any, address: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not sock.type & socket.SOCK_STREAM:
        return  # a datagram socket's connect sends nothing: it is how programs learn their own address
    host, port = str(address[0]), int(address[1])
    if renewing.get() or is_allowed(session, host, port) or _is_own_service(session, host, port):
        return
    name = _name_at(host)
    above = sender_above(sys._getframe(1))
    sender = asking.get() if above is None else above.package
    if sender is None and not is_model_host(name):
        sender = session.housekeeping.of(name, None, port)
    if sender is not None:
        attributes = {"host": name, "port": port, "client": sender, "address": host}
        note_once(session, "telemetry", f"{name}:{port}", attributes)
        return
    leaked(session, name, port, client(), caller(), address=host)


def _is_own_service(session: Session, host: str, port: int) -> bool:
    """Return whether one of the run's own processes listens there, or nobody does: then nothing leaves."""
    services = known_services(session) if is_loopback(host) else None
    return services is not None and services.listener(port) != "other"
