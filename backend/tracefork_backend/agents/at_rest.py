"""What the processes of a command are at: whether they compute, sleep for long, or wait for somebody.

Linux alone says so, of processes of the same user, in `/proc`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHORT_MS = 2000
"""Servers look up at least as often from their wait for somebody who asks."""
_TICKS_S = os.sysconf("SC_CLK_TCK")
_LISTENS, _CONNECTED = "0A", "01"
_ENDLESS = (1 << 64) - 1, (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Waits:
    """The numbers of a kind of machine's system calls in which a thread waits."""

    endless: frozenset[int]
    """read, accept, accept4, wait4, waitid, pause, rt_sigtimedwait, rt_sigsuspend: for somebody else."""
    timed: Mapping[int, int]
    """poll, epoll_wait, epoll_pwait: for somebody, at most as many milliseconds as this argument says."""
    answers: frozenset[int]
    """recvfrom, recvmsg: for the other side of a connection."""
    hidden: Mapping[int, int | None]
    """For how long is not to be seen. select, pselect6, ppoll, futex: the argument that is 0 for a sleep, or
    for an endless wait; nanosleep, clock_nanosleep: none."""


_SELECT, _FUTEX = 1, 3
_WAITS: Mapping[str, _Waits] = {
    "x86_64": _Waits(
        endless=frozenset({0, 43, 288, 61, 247, 34, 128, 130}),
        timed={7: 2, 232: 3, 281: 3},
        answers=frozenset({45, 47}),
        hidden={23: _SELECT, 270: _SELECT, 271: 0, 202: _FUTEX, 35: None, 230: None},
    ),
    "aarch64": _Waits(
        endless=frozenset({63, 202, 242, 260, 95, 137, 133}),
        timed={22: 3},
        answers=frozenset({207, 212}),
        hidden={72: _SELECT, 73: 0, 98: _FUTEX, 101: None, 115: None},
    ),
}


@dataclass(frozen=True, slots=True)
class AtRest:
    """What a tree of processes is at, at one moment."""

    cpu_s: float
    """What it has computed so far."""
    switches: Mapping[int, int]
    """Of each thread that sleeps for a time that is not to be seen: how often it has gone to sleep."""
    waits: bool
    """Whether every thread sleeps or waits."""
    answers: bool
    """Whether one of them waits for the other side of a connection."""
    longest_s: float
    """The longest that one of them waits for somebody and says for how long; 0 if none does for long."""
    listens: bool
    """Whether one of the processes takes connections."""
    connected: bool
    """Whether a connection of one of the processes is open."""

    @property
    def expects(self) -> bool:
        """Whether one of them may wait for an answer."""
        return self.answers or self.longest_s > 0

    def is_beating(self, before: AtRest) -> bool:
        """Return whether each thread that sleeps for a time that is not to be seen woke up twice since."""
        return all(
            thread in before.switches and count >= before.switches[thread] + 2
            for thread, count in self.switches.items()
        )


def at_rest(command: int) -> AtRest | None:
    """Return what the tree of the command with this process id is at; None where nobody can see that."""
    kind = platform.machine()
    if kind not in _WAITS:
        return None
    try:
        processes = list(tree(parent_of(command)))
        cpu = sum(_cpu_ticks(process) for process in processes) / _TICKS_S
        switches: dict[int, int] = {}
        waits, answers, longest_s = bool(processes), False, 0.0
        for process in processes:
            for task in Path(f"/proc/{process}/task").iterdir():
                number, *arguments = (task / "syscall").read_text().split()
                if not number.lstrip("-").isdigit():  # it runs
                    waits = False
                elif _sleeps(_WAITS[kind], int(number), arguments):
                    switches[int(task.name)] = _switches(task)
                elif int(number) in _WAITS[kind].answers:
                    answers = True
                else:
                    longest_s = max(longest_s, _says_s(_WAITS[kind], int(number), arguments))
                    waits = waits and _waits(_WAITS[kind], int(number))
        states = set(_connections(processes))
    except (OSError, ValueError, IndexError):  # a process that just ended, or one that may not be seen
        return None
    return AtRest(
        cpu_s=cpu,
        switches=switches,
        waits=waits,
        answers=answers,
        longest_s=longest_s,
        listens=_LISTENS in states,
        connected=_CONNECTED in states,
    )


def _sleeps(known: _Waits, call: int, arguments: list[str]) -> bool:
    """Return whether a thread may be asleep for long, without waiting for anybody."""
    if call not in known.hidden:
        return False
    place = known.hidden[call]
    return place is None or (int(arguments[place], 16) != 0) == (place == _FUTEX)


def _says_s(known: _Waits, call: int, arguments: list[str]) -> float:
    """Return for how long a thread says that it waits for somebody, if that is for long; else 0."""
    if call not in known.timed:
        return 0.0
    time_ms = int(arguments[known.timed[call]], 16)
    return 0.0 if time_ms in _ENDLESS or time_ms <= SHORT_MS else time_ms / 1000


def _waits(known: _Waits, call: int) -> bool:
    return call in known.timed or call in known.endless or call in known.hidden


def _stat(process: int) -> list[bytes]:
    raw = Path(f"/proc/{process}/stat").read_bytes()
    return raw[raw.rindex(b")") + 2 :].split()


def parent_of(process: int) -> int:
    """Return the process that started it, or took it over."""
    return int(_stat(process)[1])


def _cpu_ticks(process: int) -> int:
    return sum(map(int, _stat(process)[11:13]))


def tree(top: int) -> Iterator[int]:
    """Yield the living processes below the one at the top."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                state, parent = _stat(int(name))[:2]
                if state != b"Z":
                    children.setdefault(int(parent), []).append(int(name))
    queue = [top]
    while queue:
        below = children.get(queue.pop(), [])
        yield from below
        queue += below


def _switches(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _connections(processes: Iterable[int]) -> Iterator[str]:
    """Yield the states of the TCP connections of these processes, as the kernel spells them."""
    for process in processes:
        own: set[str] = set()
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                own.add(os.readlink(file))
        for family in ("tcp", "tcp6"):
            with suppress(FileNotFoundError):
                for line in Path(f"/proc/{process}/net/{family}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if f"socket:[{fields[9]}]" in own:
                        yield fields[3]
