"""What an agent spends while it runs, by what it records; it is ended where a budget has no room for more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from tracefork_otel.errors import TraceforkError
from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.play.leave import Leaves
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import OpenWal, joined
from tracefork_otel.wire.counted import paid_of

from ..store.prices import Given, Till
from .most import most_usd
from .records import went_live
from .watch import LOOK_S, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What an agent's live calls took so far."""

    usd: float
    """What those cost that ended, as far as their prices are known."""
    running: int = 0
    """How many are being answered."""
    unpriced: int = 0
    """How many ended, and have no price."""
    dearest_usd: float = 0.0
    """What the dearest of them cost."""
    most_usd: tuple[float | None, ...] = ()
    """What each of those that are being answered can cost at most; None where its request does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What is set aside for one trial, as told where nobody can be asked for more; see `budget.Purse`."""

    reserved_usd: float
    call_usd: float
    most_usd: float | None = None
    at_once: int = 1


class Room(Protocol):
    """What a budget has for one trial."""

    @property
    def share(self) -> Share:
        """What is set aside for it by now."""
        ...

    def has_room(self, spent: Spending) -> bool:
        """Return whether the agent may go on that spent so much."""
        ...


class Tally:
    """What the processes of a store record of their calls, each record read once, each call priced once."""

    def __init__(self, store: Path, given: Given) -> None:
        self._store = store
        self._till = Till(given)
        self._wals: dict[Path, OpenWal] = {}
        self._open: dict[tuple[str, str], ExchangeStarted] = {}
        self._given = given
        self._paid_for: dict[tuple[str, str], float | None] = {}
        """Those open calls that will have a price, and what each can cost at most."""
        self._let_go: list[float | None] = []
        """What calls can cost at most that may go, and have not begun."""
        self._early: dict[tuple[str, str], ExchangeEnded] = {}
        """Ends that stand before their starts."""

    def now(self) -> Spending:
        """Return what was spent, with what was recorded since this was asked last."""
        for path in wal_files(self._store):
            with contextlib.suppress(OSError, TraceforkError):  # a file that is just being made
                wal = self._wals[path] = self._wals.get(path) or OpenWal(path)
                for record in wal.more():
                    if isinstance(record, ExchangeStarted):
                        self._begins((wal.process_id, record.span_id), record)
                    elif isinstance(record, ExchangeEnded):
                        self._ends((wal.process_id, record.span_id), record)
        told = self._till.bill()
        running = (*self._paid_for.values(), *self._let_go)
        return Spending(
            usd=told.usd,
            running=len(running),
            unpriced=told.unpriced - told.running,
            dearest_usd=told.dearest_usd,
            most_usd=running,
        )

    def with_call(self, request: Request) -> Spending | None:
        """Return what was spent, and this call with it, which may begin; None where it is not paid for."""
        call = Exchange(
            trace_id="",
            span_id="",
            parent_span_id=None,
            process_id="",
            seq=0,
            started_ns=0,
            ended_ns=None,
            request=request,
        )
        found = paid_of(call)
        if found is None:
            return None
        self._let_go.append(most_usd(call, found, given=self._given))
        return self.now()

    def stays(self) -> None:
        """Take in that there is no room for the call that was asked for last."""
        self._let_go.pop()

    def _begins(self, key: tuple[str, str], started: ExchangeStarted) -> None:
        self._open[key] = started
        if key in self._early:
            self._ends(key, self._early.pop(key))
            return
        call = joined(started, None, process_id=key[0])
        if went_live(call) and (found := paid_of(call)) is not None:
            most = most_usd(call, found, given=self._given)
            if most in self._let_go:
                self._let_go.remove(most)
            elif self._let_go:  # it is asked for with a body that is written down once it was sent
                most = self._let_go.pop(0)
            self._paid_for[key] = most

    def _ends(self, key: tuple[str, str], ended: ExchangeEnded) -> None:
        started = self._open.pop(key, None)
        self._paid_for.pop(key, None)
        if started is None:
            self._early[key] = ended
            return
        call = joined(started, ended, process_id=key[0])
        if went_live(call):
            self._till.add(call)


class MoneyWatch(Watch):
    """Watches what one agent spends within a block; lets its calls go, and ends it where there is no room.

    An agent asks before each call. One that does not is seen to have made it by what it recorded. A function
    of this process cannot be ended: from the first call on for which there is no room, each is refused.
    """

    def __init__(
        self, folder: Path, store: Path, room: Room, given: Given, end: Callable[[], None] | None
    ) -> None:
        """`folder` is that of the fork's files, `store` where the agent records; `end` is None in place."""
        self._leaves = Leaves(folder)
        self._tally = Tally(store, given)
        self._room = room
        self._end = end
        self._last: Spending | None = None
        super().__init__("tracefork-money")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._leaves.wake()
        super().__exit__(kind, error, trace)
        self._leaves.close()
        self._goes_on(self._tally.now())  # which of its calls were cut short is known by now

    def _goes_on(self, spent: Spending) -> bool:
        if spent == self._last:
            return True
        self._last = spent
        return self._room.has_room(spent)

    def _may_go(self, name: str) -> bool:
        """Return whether there is room for what somebody asks for; let it go then."""
        asked = self._leaves.request(name)
        spent = None if asked is None else self._tally.with_call(asked)
        if spent is not None and not self._goes_on(spent):
            self._tally.stays()
            return False
        self._leaves.give(name)
        return True

    def _watch(self) -> None:
        while not self.over.is_set():
            asking = self._leaves.wait(LOOK_S / 2)
            if self.over.is_set():
                return
            if self._end is None:
                self._refuse_beyond(asking)
            elif not (all(map(self._may_go, asking)) and self._goes_on(self._tally.now())):
                self.ended = "it was ended before its next call, as the budget has no room for it"
                self._end()
                return

    def _refuse_beyond(self, asking: list[str]) -> None:
        for name in asking:
            if self.ended is not None or not self._may_go(name):
                self.ended = "its next call was refused, as the budget has no room for it"
                self._leaves.refuse(name)
