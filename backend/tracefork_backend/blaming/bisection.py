"""Probabilistic bisection: which step is the drop at, given noisy outcomes at some prefixes?"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

# Rates before and after the drop that are held possible (research 3.6); a drop is at least _LEAST_DROP.
_HIGH = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_LOW = (0.005, 0.05, 0.12, 0.2)
_LEAST_DROP = 0.1

# A step that was tested in vain keeps this share of its prior, so it can come back if everything else is
# worse.
_DISCOUNT = 1e-6


@dataclass(frozen=True, slots=True)
class Grid:
    """The pairs of rates held possible, as logs of p and 1 - p before and after the drop."""

    pairs: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def _of(cls, lows: Sequence[float]) -> Grid:
        return cls(
            tuple(
                (math.log(high), math.log1p(-high), math.log(low), math.log1p(-low))
                for high in _HIGH
                for low in lows
                if high >= low + _LEAST_DROP - 1e-9
            )
        )

    @classmethod
    def whole(cls) -> Grid:
        """Return the grid for a loss that is total at the end."""
        return cls._of(_LOW)

    @classmethod
    def above(cls, rate: float) -> Grid:
        """Return the grid for a part of the run, at whose end the rate is about `rate`."""
        middle = min(max(rate, 0.02), 0.85)
        return cls._of((middle * 0.7, middle, min(middle * 1.3, 0.88)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the drop most likely is, and the prefix whose outcome would tell most."""

    step: int
    chance: float
    probe: int


def locate(
    grid: Grid, counts: Sequence[tuple[int, int, int]], *, first: int, last: int, excluded: Set[int]
) -> Place:
    """Return the posterior's place of the drop among steps `first` to `last`.

    Model: V is high before the drop's step is kept and low after it, each step alike likely. `counts` are
    (prefix, flips, others), prefixes ascending from `first` - 1. Between two probed prefixes all steps are
    equally likely, so the work grows with the probed prefixes, not with the steps.
    """
    segments = _segments(grid, counts, first, last)
    masses: list[tuple[int, int, float]] = []
    for begin, end, weight in segments:
        inside = [step for step in excluded if begin <= step <= end]
        masses.append((begin, end, weight * (end - begin + 1 - len(inside) * (1 - _DISCOUNT))))
    total = math.fsum(mass for _, _, mass in masses)
    best = max(
        (segment for segment in masses),
        key=lambda m: m[2] / (m[1] - m[0] + 1),
    )
    step = next((s for s in range(best[0], best[1] + 1) if s not in excluded), best[0])
    chance = best[2] / total / max(1, best[1] - best[0] + 1)
    return Place(step=step, chance=chance, probe=_probe(masses, total / 2, first, last))


def _segments(
    grid: Grid, counts: Sequence[tuple[int, int, int]], first: int, last: int
) -> list[tuple[int, int, float]]:
    """Return runs of steps that the counts cannot tell apart, with the likelihood of one of their steps."""
    # The drop at r makes prefixes below r high: segment k has the first k counted prefixes high.
    edges = [first] + [prefix + 1 for prefix, _, _ in counts if first <= prefix + 1 <= last] + [last + 1]
    high_before_first = sum(1 for prefix, _, _ in counts if prefix + 1 <= first)
    logs: list[list[float]] = [[] for _ in range(len(counts) + 1)]
    for high, no_high, low, no_low in grid.pairs:
        value = math.fsum(s * low + f * no_low for _, s, f in counts)
        logs[0].append(value)
        for index, (_, s, f) in enumerate(counts):
            value += s * (high - low) + f * (no_high - no_low)
            logs[index + 1].append(value)
    peak = max(max(row) for row in logs)
    weights = [sum(math.exp(value - peak) for value in row if value > peak - 40) for row in logs]
    segments: list[tuple[int, int, float]] = []
    starts = sorted(set(edges[:-1]))
    for position, begin in enumerate(starts):
        end = (starts[position + 1] if position + 1 < len(starts) else edges[-1]) - 1
        high_count = sum(1 for prefix, _, _ in counts if prefix < begin)
        segments.append((begin, end, weights[max(high_count, high_before_first)]))
    return segments


def _probe(masses: Sequence[tuple[int, int, float]], half: float, first: int, last: int) -> int:
    """Return the prefix that splits the posterior most evenly: it is high if the drop comes after it."""
    below = 0.0
    for begin, end, mass in masses:
        if below + mass >= half:
            share = mass / (end - begin + 1)
            inside = (half - below) / share if share > 0 else 0.0
            middle = begin + min(int(inside), end - begin)
            # Probing `middle` has P(drop ≤ middle) below it, probing the one before leaves the middle step
            # above.
            upper = below + share * (middle - begin + 1)
            nearer = middle if abs(upper - half) <= abs(upper - share - half) else middle - 1
            return min(max(nearer, first - 1), last - 1)
        below += mass
    return last - 1
