"""Delta debugging (Zeller & Hildebrandt 2002): the fewest parts of a change that still do what it does."""

from __future__ import annotations

from collections.abc import Callable

from ..blaming.tasks import Task


def shrunk(
    parts: int, test: Callable[[frozenset[int]], Task[bool | None]]
) -> Task[tuple[frozenset[int], bool]]:
    """Return parts that pass the test, and whether it failed for each of them left out.

    All of them together are taken to pass. A test that says None ends it with what passed so far.
    """
    kept = list(range(parts))
    known: dict[frozenset[int], bool] = {}
    pieces = 2
    while len(kept) > 1:
        size = max(1, len(kept) // pieces)
        cuts = [kept[at : at + size] for at in range(0, len(kept), size)]
        rests = [[one for one in kept if one not in cut] for cut in cuts]
        tries = [
            *((cut, 2) for cut in cuts if len(cuts) > 2),
            *((rest, max(pieces - 1, 2)) for rest in rests),
        ]
        for choice, next_pieces in tries:
            chosen = frozenset(choice)
            if chosen not in known:
                passed = yield from test(chosen)
                if passed is None:
                    return frozenset(kept), False
                known[chosen] = passed
            if known[chosen]:
                kept, pieces = choice, next_pieces
                break
        else:
            if pieces >= len(kept):
                break
            pieces = min(len(kept), 2 * pieces)
    return frozenset(kept), True
