"""A gate: whether forks pass often enough, said by the interval of their rate and not by the rate alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tracefork_otel.errors import UsageError

from ..spelling import counted, run_name
from ..statistics import wilson
from .cells import Cell

_ASKED = re.compile(r"\s*pass_rate\s*>=\s*(\d*\.?\d+)\s*")
_MOST = 100_000
"""More forks than this nobody makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """What a gate says of one cell."""

    name: str
    end: Literal["passes", "fails", "not shown"]
    text: str
    """One line for a person: rate, interval, and how many more forks would settle what is not shown."""

    def row(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "end": self.end, "text": self.text}


@dataclass(frozen=True, slots=True)
class Gate:
    """A rate of success that each cell has to be shown to have."""

    least: float

    @classmethod
    def asked(cls, text: str) -> Gate:
        """Return the gate of this text; raise UsageError where it is none."""
        found = _ASKED.fullmatch(text)
        if found is None or not 0 < float(found[1]) < 1:
            raise UsageError(
                f'--gate {text!r}: write a rate between 0 and 1, such as --gate "pass_rate >= 0.8"'
            )
        return cls(float(found[1]))

    def of(self, cells: Iterable[Cell]) -> tuple[Gated, ...]:
        """Return what it says of each cell."""
        return tuple(map(self._of, cells))

    def _of(self, cell: Cell) -> Gated:
        name = f"{run_name(cell.run_id)}@{cell.step} {cell.variant}"
        graded, made = cell.passed + cell.failed, len(cell.forks)
        if not graded:
            return Gated(name=name, end="not shown", text=f"{name}: no fork was graded")
        # A fork that was not graded may have been either: a gate holds whichever it was.
        low, high = wilson(cell.passed, made)[0], wilson(cell.passed + cell.undefined, made)[1]
        rate = f"pass rate {cell.passed / graded:.2f} ({low:.2f} to {high:.2f}, {counted(made, 'fork')})"
        if low >= self.least:
            return Gated(name=name, end="passes", text=f"{name}: {rate}: shown to be at least {self.least:g}")
        if high < self.least:
            return Gated(name=name, end="fails", text=f"{name}: {rate}: shown to be below {self.least:g}")
        told = f"{name}: {rate}: not shown to be at least {self.least:g}; {self._more(cell.passed, graded)}"
        return Gated(name=name, end="not shown", text=told)

    def _more(self, passed: int, graded: int) -> str:
        """Return how many further forks of this rate would settle it."""
        rate = passed / graded
        low, high = graded, graded
        while high < _MOST and not self._settled(rate, high):
            low, high = high, high * 2
        if not self._settled(rate, high):
            return f"a rate this near to {self.least:g} is settled by no number of forks that can be made"
        while low < high:  # by halves: the interval of one rate only shrinks
            middle = (low + high) // 2
            low, high = (low, middle) if self._settled(rate, middle) else (middle + 1, high)
        more = counted(max(1, high - graded), "more fork")
        return f"about {more} of this rate would settle it (--times {high})"

    def _settled(self, rate: float, forks: int) -> bool:
        low, high = wilson(round(rate * forks), forks)
        return low >= self.least or high < self.least
