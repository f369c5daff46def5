"""Amounts and texts as people read them, the same in tables, lines and pages."""

from __future__ import annotations

SHOWN = 40
"""Characters of a value in a label: enough to tell variants apart in a table."""


def short(text: str, limit: int = SHOWN) -> str:
    """Return the text on one line, cut at the limit."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def money(usd: float | None, *, cents_from: float = 1.0) -> str:
    """Return an amount of dollars, with four digits where it is smaller than that; nothing for None."""
    if usd is None:
        return ""
    if usd == 0:
        return "$0"
    return f"${usd:.4f}" if usd < cents_from else f"${usd:,.2f}"


def counted(number: int, noun: str) -> str:
    """Return the number with the noun, in the plural unless there is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
