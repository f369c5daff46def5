"""Amounts and texts as people read them, the same in tables, lines and pages."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

DIGITS = 8
"""Of a run's id, unless more are needed: ids that are made of the time share as many within a minute."""
_digits: ContextVar[int] = ContextVar("digits", default=DIGITS)
SHOWN = 40
"""Characters of a value in a label: enough to tell variants apart in a table."""
_OBEYED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # C0 but tabs and line ends, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # what turns the direction of what follows
    "|\r(?!\n)"
)
_NOT_PLAIN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, and halves of surrogate pairs, which no encoding can hold."""


def json_line(value: object) -> str:
    """Return the value as JSON on one line, with escapes for what a terminal obeys or no encoding holds."""
    line = json.dumps(value, ensure_ascii=False, default=plain)
    # Outside of ASCII they stand in strings alone, where JSON has an escape for each.
    return _NOT_PLAIN.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def plain(value: object) -> object:
    """Return what stands in JSON for a value that JSON has no kind for."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Decimal):
        return float(value)
    return str(value)


def visible(text: str) -> str:
    """Return the text with escapes in the place of characters that a terminal or a browser obeys."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(text: str, limit: int = 2000) -> str:
    """Return the text so that a terminal shows all of it: what it would act on or hide is escaped."""
    cut = text if len(text) <= limit else text[:limit]
    escaped = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)
    return escaped if cut is text else f"{escaped}… and {len(text) - limit} characters more"


def short(text: str, limit: int = SHOWN) -> str:
    """Return the text on one line, cut at the limit."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def named(name: object) -> str:
    """Return a name that somebody else gave, as a line of text has it: cut where it is no name to read."""
    return "" if name is None else short(str(name), 200)


def ending(text: str, limit: int = SHOWN) -> str:
    """Return the end of the text on one line, cut at the limit."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"…{line[1 - limit :]}"


def no_step(run_id: str, step: object, steps: int) -> str:
    """Return what is said of a step that a run of so many does not have."""
    has = f"its steps are 0..{steps - 1}" if steps else "it has no steps"
    return f"run {run_name(run_id)} has no step {step}: {has}"


SUCCESS, FAILURE, NOT_GRADED = "success", "failure", "not graded"


def outcome_word(outcome: bool | None, otherwise: str = "") -> str:
    """Return the one word for how a run ended: success, failure, or what is said where nobody graded it."""
    return {True: SUCCESS, False: FAILURE, None: otherwise}[outcome]


def money(usd: float | None, *, cents_from: float = 1.0) -> str:
    """Return an amount of dollars, with four digits where it is smaller than that; nothing for None."""
    if usd is None:
        return ""
    if usd == 0:
        return "$0"
    return f"${usd:.4f}" if usd < cents_from else f"${usd:,.2f}"


def at_least(usd: float | None, unpriced: int) -> str:
    """Return a sum as `money` does, marked where it leaves out what has no price."""
    if not unpriced:
        return money(usd)
    return f"≥ {money(usd or 0.0)}"


def total_money(usd: float | None, unpriced: int, *, what: str = "call") -> str:
    """Return a sum as `at_least` does, and how much it leaves out."""
    more = f", {counted(unpriced, what)} without a price" if unpriced else ""
    return at_least(usd, unpriced) + more


def counted(number: int, noun: str) -> str:
    """Return the number with the noun, in the plural unless there is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def digits_of(run_ids: Iterable[str]) -> int:
    """Return how many digits tell these runs apart."""
    ids = sorted(set(run_ids))
    return max(DIGITS, 1 + max((_shared(*pair) for pair in pairwise(ids)), default=0))


def _shared(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))


def use_digits(digits: int) -> None:
    """Have `run_name` give so many digits in this context."""
    _digits.set(digits)


def run_name(run_id: str) -> str:
    """Return the beginning of the run's id that tells it apart in the store that was asked for runs last."""
    return run_id[: _digits.get()]
