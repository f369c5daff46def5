"""What a user's redaction rules replaced in a run, in a line for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping

from tracefork_otel.exchange import Exchange
from tracefork_otel.redaction.redact import ATTRIBUTE, WITHHELD


def counts_of(exchange: Exchange) -> dict[str, dict[str, int]]:
    """How often each rule replaced something, by side; nothing where none did."""
    told = exchange.attributes.get(ATTRIBUTE)
    try:
        found = json.loads(told) if isinstance(told, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def line(exchanges: Iterable[Exchange]) -> str | None:
    """Which rules replaced something in these exchanges, and how often; None if none did."""
    total: Counter[str] = Counter()
    touched = withheld = 0
    for exchange in exchanges:
        sides = counts_of(exchange)
        touched += bool(sides)
        withheld += WITHHELD in exchange.attributes
        for counts in sides.values():
            total.update(counts)
    if not touched:
        return None
    found = ", ".join(f"{name} ×{count}" for name, count in sorted(total.items()))
    text = f"{touched} exchange{'' if touched == 1 else 's'} redacted: {found}"
    return text + (f"; {withheld} without their bodies" if withheld else "")


def note(exchanges: Iterable[Exchange]) -> str | None:
    """What a replay's receipt says of a tape that was redacted; None if it was not."""
    listed = list(exchanges)
    sides: Mapping[str, int] = Counter(side for exchange in listed for side in counts_of(exchange))
    if not sides:
        return None
    if "response" in sides:
        return f"redacted: replay serves replaced values ({line(listed)})"
    return f"redacted: the same rules were applied to the requests before they were compared ({line(listed)})"
