"""Which step of one run is the counterpart of which step of the other; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .reading import Step

Pair = tuple[int | None, int | None]
"""Places in the two runs; None where the other run has no counterpart."""

CELLS = 250_000
"""Comparisons of two steps that an alignment makes at most, about half a second; longer runs are compared
near their diagonal only."""

# What two counterparts add to an alignment. A step that a tape served knows its counterpart for certain, and
# equal steps are nearly so. Steps of one place are counterparts rather than nothing, by their likeness.
_SERVED = 4.0
_SAME = 2.0
_ASKED = 1.6
_PLACE = 0.2


def align(a: Sequence[Step], b: Sequence[Step]) -> list[Pair]:
    """Return the pairs in the order of `b`, what only `a` has where it was; each step occurs once.

    The pairs maximise the sum of their scores without crossing; equal steps that are left, as when
    concurrent requests came in another order, are paired afterwards.
    """
    front = _common(a, b)
    back = _common(a[front:][::-1], b[front:][::-1])
    ends = (len(a) - back, len(b) - back)
    pairs: list[Pair] = [(i, i) for i in range(front)]
    middle = a[front : ends[0]], b[front : ends[1]]
    pairs += [(_moved(i, front), _moved(j, front)) for i, j in _best(*middle, _certain(*middle))]
    pairs += [(ends[0] + i, ends[1] + i) for i in range(back)]
    return _crossing(pairs, a, b)


def _certain(a: Sequence[Step], b: Sequence[Step]) -> frozenset[int]:
    """Return the `id` of each step that pairs with equal ones only: the other side has as many of them."""
    ours, theirs = [step.key for step in a], [step.key for step in b]
    counts = Counter(ours), Counter(theirs)
    return frozenset(
        id(step)
        for side, keys in ((a, ours), (b, theirs))
        for step, key in zip(side, keys, strict=True)
        if counts[0][key] == counts[1][key]
    )


def _moved(place: int | None, by: int) -> int | None:
    return None if place is None else place + by


def _common(a: Sequence[Step], b: Sequence[Step]) -> int:
    count = 0
    for ours, theirs in zip(a, b, strict=False):
        if not ours.same_as(theirs):
            break
        count += 1
    return count


def score(a: Step, b: Step) -> float:
    """Return how much speaks for two steps being counterparts, 0 if they cannot be."""
    if a.place != b.place:
        return 0.0
    if _origin(a) == _origin(b):
        return _SERVED
    if a.asks_as(b):
        return _SAME if a.answer == b.answer else _ASKED
    total = len(a.words) + len(b.words)
    likeness = 2 * len(a.words & b.words) / total if total else 1.0
    return _PLACE + (1 - _PLACE) * likeness


def _origin(step: Step) -> str:
    """Return the span id of the recorded exchange that the step is, or was answered from."""
    return step.exchange.served_span_id or step.exchange.span_id


def _best(a: Sequence[Step], b: Sequence[Step], certain: frozenset[int]) -> list[Pair]:
    """Return the alignment of two parts that is worth most, by dynamic programming within a band."""
    if not a or not b:
        return [*((i, None) for i in range(len(a))), *((None, j) for j in range(len(b)))]
    band = _band(len(a), len(b))
    # best[i][j] is the worth of a[i:] against b[j:]; what lies outside of the band is worth nothing more.
    best: list[dict[int, float]] = [{} for _ in range(len(a) + 1)]
    scores: list[dict[int, float]] = [{} for _ in range(len(a))]
    for i in range(len(a) - 1, -1, -1):
        row, below, known = best[i], best[i + 1], scores[i]
        middle = i * len(b) // len(a)
        for j in range(min(len(b), middle + band) - 1, max(0, middle - band) - 1, -1):
            worth = score(a[i], b[j])
            if worth != _SAME and (id(a[i]) in certain or id(b[j]) in certain):
                worth = _SERVED if worth == _SERVED else 0.0
            known[j] = worth
            paired = worth + below.get(j + 1, 0.0) if worth else 0.0
            row[j] = max(paired, below.get(j, 0.0), row.get(j + 1, below.get(j + 1, 0.0)))
    return _walked(len(a), len(b), best, scores)


def _walked(
    n: int, m: int, best: Sequence[dict[int, float]], scores: Sequence[dict[int, float]]
) -> list[Pair]:
    """Return the pairs of the best way through the table, what only `a` has before what only `b` has."""
    pairs: list[Pair] = []
    i = j = 0
    while i < n and j < m:
        worth = scores[i].get(j, 0.0)
        here = best[i].get(j, 0.0)
        if worth and here == worth + best[i + 1].get(j + 1, 0.0):
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif j not in best[i] and j < min(best[i], default=m):
            pairs.append((None, j))  # left of the band: it begins further on
            j += 1
        elif best[i + 1].get(j, 0.0) >= best[i].get(j + 1, 0.0):
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    pairs += [(rest, None) for rest in range(i, n)]
    pairs += [(None, rest) for rest in range(j, m)]
    return pairs


def _band(n: int, m: int) -> int:
    """Return how far from the diagonal steps are compared."""
    return max(m, n) if n * m <= CELLS else max(abs(n - m) + 8, CELLS // (2 * n))


def _crossing(pairs: list[Pair], a: Sequence[Step], b: Sequence[Step]) -> list[Pair]:
    """Pair equal steps that both sides have left, though that crosses other pairs."""
    gone = [i for i, j in pairs if i is not None and j is None]
    moved: dict[int, int] = {}
    for _, j in [pair for pair in pairs if pair[0] is None]:
        assert j is not None
        i = next((i for i in gone if a[i].same_as(b[j]) or score(a[i], b[j]) == _SERVED), None)
        if i is not None:
            gone.remove(i)
            moved[j] = i
    taken = set(moved.values())
    kept = [pair for pair in pairs if not (pair[1] is None and pair[0] in taken)]
    return [(moved.get(j, i) if j is not None else i, j) for i, j in kept]
