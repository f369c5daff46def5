"""Services of the run's own processes on this machine: what is said to them is no step, and is never played.

A replay starts them again, on whatever port is free then. Linux tells who listens; elsewhere it is not known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from ..session.family import ancestors
from ..wire.hosts import is_loopback
from ..wire.registry import port_of, recognise
from .noting import note_once

if TYPE_CHECKING:
    from ..session.session import Session

Listener: TypeAlias = Literal["own", "other", "nobody"]

_PROC = Path("/proc")
_TABLES = ("net/tcp", "net/tcp6")
_LISTENING = "0A"
"""State of a socket in these tables."""


class Services:
    """Who listens on the ports of this machine, as far as this run asks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[int, Listener] = {}
        self._on_tape: frozenset[str] | None = None

    def asked(self, method: str, url: Any, body: bytes) -> Listener | None:
        """Return who listens where this request goes; None where it is a matter of the recording or the tape.

        What a model is asked always is, and in a replay whatever the tape has an address of.
        """
        if not is_loopback(url.host) or recognise(method, str(url), body) is not None:
            return None
        port = port_of(url)
        place = f"{url.host}:{port}"
        if place in self._of_tape():
            return None
        found = self.listener(port)
        if found == "own":
            note_once(self._session, "own", place, {"place": place})
        return None if found == "other" else found

    def listener(self, port: int) -> Listener:
        """Return who listens on this port of the machine."""
        found = self._known.get(port)
        if found is None:
            found = self._look(port)
            if found != "nobody":  # it may start yet
                self._known[port] = found
        return found

    def _look(self, port: int) -> Listener:
        sockets = set(_sockets(port))
        if not sockets:
            return "nobody"
        mark = f"TRACEPARENT=00-{self._session.launch_id}-".encode()
        for entry in os.listdir(_PROC):
            if entry.isdecimal() and _is_own(int(entry), mark):
                sockets -= set(_held(int(entry)))
                if not sockets:
                    return "own"
        return "other"

    def _of_tape(self) -> frozenset[str]:
        """Return the addresses of recorded exchanges that are no model calls."""
        if self._on_tape is None:
            tape = getattr(self._session.player, "tape", None)
            found = (
                [] if tape is None else [urlsplit(one.request.url) for one in tape.exchanges if is_plain(one)]
            )
            self._on_tape = frozenset(f"{url.hostname}:{port_of(url)}" for url in found)
        return self._on_tape


def known_services(session: Session) -> Services | None:
    """Return what knows the services of a command's processes; None where that cannot be known."""
    if session.services is None:
        known = session.launched and session.launch_id is not None and (_PROC / _TABLES[0]).exists()
        session.services = Services(session) if known else False
    return session.services or None


def is_plain(exchange: Any) -> bool:
    """Return whether the exchange is no model's call."""
    request = exchange.request
    return recognise(request.method, request.url, request.body) is None


def _sockets(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on the port."""
    end = f":{port:04X}"
    for table in _TABLES:
        with suppress(OSError):
            for line in (_PROC / table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENING and words[1].endswith(end):
                    yield words[9]


def _is_own(pid: int, mark: bytes) -> bool:
    """Return whether the process belongs to the command: it says so, or descends from this one."""
    with suppress(OSError):
        if mark in (_PROC / str(pid) / "environ").read_bytes():
            return True
    return pid == os.getpid() or os.getpid() in ancestors(pid)


def _held(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets that the process holds."""
    folder = _PROC / str(pid) / "fd"
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                target = os.readlink(folder / name)
                if target.startswith("socket:["):
                    yield target[8:-1]
