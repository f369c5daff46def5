"""Where the drop is likeliest if there is but one, given noisy outcomes at some prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Rates before and after the drop that are held possible; a drop is at least _LEAST_DROP.
_HIGH = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_LOW = (0.005, 0.05, 0.12, 0.2)
_LEAST_DROP = 0.1

_PAIRS = tuple(
    (math.log(high), math.log1p(-high), math.log(low), math.log1p(-low))
    for high in _HIGH
    for low in _LOW
    if high >= low + _LEAST_DROP - 1e-9
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the drop most likely is: the first of the steps that nothing tells apart, and its chance."""

    step: int
    last: int
    """The last of those steps."""
    chance: float


def locate(counts: Sequence[tuple[int, int, int]], *, steps: int) -> Place:
    """Return the posterior's place of the drop among so many steps.

    Model: V is high before the drop's step is kept and low after it, each step alike likely. `counts` are
    (prefix, flips, others), prefixes ascending from -1. Between two measured prefixes all steps are equally
    likely, so the work grows with the measured prefixes, not with the steps.
    """
    segments = _segments(counts, steps)
    total = math.fsum(weight * (end - begin + 1) for begin, end, weight in segments)
    begin, end, weight = max(segments, key=lambda one: one[2])
    return Place(step=begin, last=end, chance=weight / total)


def _segments(counts: Sequence[tuple[int, int, int]], steps: int) -> list[tuple[int, int, float]]:
    """Return runs of steps that the counts cannot tell apart, with the likelihood of one of their steps."""
    # The drop at r makes prefixes below r high: segment k has the first k counted prefixes high.
    starts = sorted({0, *(prefix + 1 for prefix, _, _ in counts if prefix + 1 < steps)})
    logs: list[list[float]] = [[] for _ in range(len(counts) + 1)]
    for high, no_high, low, no_low in _PAIRS:
        value = math.fsum(s * low + f * no_low for _, s, f in counts)
        logs[0].append(value)
        for index, (_, s, f) in enumerate(counts):
            value += s * (high - low) + f * (no_high - no_low)
            logs[index + 1].append(value)
    peak = max(max(row) for row in logs)
    weights = [sum(math.exp(value - peak) for value in row if value > peak - 40) for row in logs]
    ends = [*(begin - 1 for begin in starts[1:]), steps - 1]
    return [
        (begin, end, weights[sum(prefix < begin for prefix, _, _ in counts)])
        for begin, end in zip(starts, ends, strict=True)
    ]
