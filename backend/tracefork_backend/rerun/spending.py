"""What an agent spends while it runs, by what it records; it is ended where a budget has no room for more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tracefork_otel.errors import TraceforkError
from tracefork_otel.store.records import ExchangeEnded, ExchangeStarted
from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import OpenWal, joined
from tracefork_otel.wire.counted import paid_of

from ..store.prices import Given, Till
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


HasRoom: TypeAlias = Callable[[Spending], bool]
"""Whether an agent may go on that spent so much."""


class Tally:
    """What the processes of a store record of their calls, each record read once, each call priced once."""

    def __init__(self, store: Path, given: Given) -> None:
        self._store = store
        self._till = Till(given)
        self._wals: dict[Path, OpenWal] = {}
        self._open: dict[tuple[str, str], ExchangeStarted] = {}
        self._paid_for: set[tuple[str, str]] = set()
        """Those open calls that will have a price."""
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
        return Spending(
            usd=told.usd,
            running=len(self._paid_for),
            unpriced=told.unpriced - told.running,
            dearest_usd=told.dearest_usd,
        )

    def _begins(self, key: tuple[str, str], started: ExchangeStarted) -> None:
        self._open[key] = started
        if key in self._early:
            self._ends(key, self._early.pop(key))
            return
        call = joined(started, None, process_id=key[0])
        if went_live(call) and paid_of(call) is not None:
            self._paid_for.add(key)

    def _ends(self, key: tuple[str, str], ended: ExchangeEnded) -> None:
        started = self._open.pop(key, None)
        self._paid_for.discard(key)
        if started is None:
            self._early[key] = ended
            return
        call = joined(started, ended, process_id=key[0])
        if went_live(call):
            self._till.add(call)


class MoneyWatch(Watch):
    """Watches what one agent spends within a block, by what it recorded; ends it where there is no room."""

    def __init__(self, store: Path, has_room: HasRoom, given: Given, end: Callable[[], None]) -> None:
        self._tally = Tally(store, given)
        self._has_room = has_room
        self._end = end
        self._last: Spending | None = None
        super().__init__("tracefork-money")

    def _watch(self) -> None:
        while not self.over.wait(LOOK_S / 2):
            spent = self._tally.now()
            if spent == self._last:
                continue
            self._last = spent
            if not self._has_room(spent):
                self.ended = "it was ended at its next call, as the budget has no room for it"
                self._end()
                return
