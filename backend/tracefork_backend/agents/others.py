"""Programs below a command that are no Python, as they run: which they are, and where they connect to.

Nothing plays to them, so what they ask goes out. Linux alone says so, in `/proc`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self, TypeAlias

from tracefork_otel.seam.lines import INTERPRETERS
from tracefork_otel.seam.noting import addresses
from tracefork_otel.session.interpreter import is_python

from .at_rest import parent_of, tree
from .left import Left

Place: TypeAlias = tuple[str, int]

_EVERY_S = 0.02
"""How often is looked: an answer of a model takes many times as long."""
_PROC = Path("/proc")
_LISTENING, _GOING_OUT = "0A", ("01", "02", "08")
"""States of a socket: established, being connected, and closed by the other side alone."""
_LOOKUPS = 53


class Others:
    """Looks, within a block, at what is no Python below the commands."""

    def __init__(
        self,
        commands: Callable[[], Sequence[int]],
        *,
        recorded: Collection[int] = (),
        allowed: Sequence[str] = (),
    ) -> None:
        """Of this machine's own ports the `recorded` ones count; programs, or hosts, may be allowed."""
        self._commands = commands
        self._recorded = frozenset(recorded)
        self._allowed = tuple(name.lower() for name in allowed)
        self._over = Event()
        self._thread = Thread(target=self._watch, name="tracefork-others", daemon=True)
        self._ran: dict[str, None] = {}
        self._left: dict[str, Left] = {}

    def __enter__(self) -> Self:
        if (_PROC / "self").exists():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def left(self) -> tuple[Left, ...]:
        """The programs that were seen to connect to somebody."""
        return tuple(self._left.values())

    @property
    def ran(self) -> tuple[str, ...]:
        """The known interpreters that were seen to run, whatever they connected to."""
        return tuple(self._ran)

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            for command in self._commands():
                with suppress(OSError, ValueError):  # it has just ended
                    for process in tree(parent_of(command)):
                        self._look(process)

    def _look(self, process: int) -> None:
        with suppress(OSError):  # another user's, or it has just ended
            folder = _PROC / str(process)
            program = os.path.basename(os.readlink(folder / "exe")).removesuffix(" (deleted)")
            if is_python(program) or program.lower() in self._allowed:
                return
            if program in INTERPRETERS:
                self._ran[program] = None
            if program in self._left:
                return
            for host, port in _connected(folder):
                if self._is_away(host, port):
                    what = f"the program {program} connected to {host}:{port}"
                    self._left[program] = Left(program=program, what=what, is_python=False, ran=True)

    def _is_away(self, host: str, port: int) -> bool:
        if port == _LOOKUPS or any(host in addresses(name) for name in self._allowed):
            return False
        return not ip_address(host).is_loopback or port in self._recorded


def _connected(folder: Path) -> Iterator[Place]:
    """Yield whom the process connected to; who connected to it is not among them."""
    own: set[str] = set()
    for file in (folder / "fd").iterdir():
        with suppress(OSError):
            own.add(os.readlink(file))
    if not any(one.startswith("socket:") for one in own):
        return
    for family in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            rows = [line.split() for line in (folder / "net" / family).read_text().splitlines()[1:]]
            served = {row[1].partition(":")[2] for row in rows if row[3] == _LISTENING}
            for row in rows:
                mine = f"socket:[{row[9]}]" in own and row[3] in _GOING_OUT
                if mine and row[1].partition(":")[2] not in served:
                    host, _, port = row[2].partition(":")
                    yield _address(host), int(port, 16)


def _address(digits: str) -> str:
    """Return the address that the kernel spells as words of the machine's own byte order."""
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return str(IPv4Address(raw))
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)
