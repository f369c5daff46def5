"""A user's redaction rules as values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

from ..wire.paths import PathTokens
from .growth import Growth
from .hidden import replaced

Side: TypeAlias = Literal["request", "response"]
Kind: TypeAlias = Literal["header", "param", "json", "pattern"]

KINDS: tuple[Kind, ...] = ("header", "param", "json", "pattern")
BOTH: tuple[Side, ...] = ("request", "response")
DIGEST = re.compile(r"redacted-[0-9a-f]{16}")
"""What a digest looks like; one that is there already is left as it is, so that a replay, whose requests hold
what it was served, makes the same text of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: what it looks for, where, and what it puts there."""

    name: str
    kind: Kind
    match: str
    """A header's or parameter's name in lower case, a JSON path, or a regular expression."""
    replace: str | None
    """What is put there; None for a digest of what was there."""
    sides: tuple[Side, ...]
    path: PathTokens = ()
    """The tokens of a JSON path."""
    regex: re.Pattern[str] | None = None
    """A pattern, compiled."""
    growth: Growth | None = None
    """How a pattern's time grows."""
    texts_only: bool = False
    """Whether what a JSON path leads to is replaced only where it is a text."""


def of_pattern(name: str, regex: re.Pattern[str], growth: Growth, match: str = "") -> Rule:
    """Return the rule by which what a pattern of ours finds is replaced on both sides."""
    match = match or regex.pattern
    return Rule(name=name, kind="pattern", match=match, replace=None, sides=BOTH, regex=regex, growth=growth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules in the order in which they are applied."""

    rules: tuple[Rule, ...]
    salt: str = ""
    """Text that goes into each digest."""
    source: str = field(default="{}", compare=False)
    """The rules as JSON, by which a replay has them."""

    _by_use: dict[tuple[Kind, Side | None], tuple[Rule, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Asked for each header and body, on the agent's own threads.
        by_use = {
            (kind, side): tuple(
                rule for rule in self.rules if rule.kind == kind and (side is None or side in rule.sides)
            )
            for kind in KINDS
            for side in (*BOTH, None)
        }
        object.__setattr__(self, "_by_use", by_use)

    def of(self, kind: Kind, side: Side | None) -> tuple[Rule, ...]:
        """Return the rules of that kind for that side; for any side, if none is given."""
        return self._by_use[kind, side]

    def instead(self, rule: Rule, value: str) -> str:
        """Return what takes the value's place; a digest stays as it is."""
        if rule.replace is not None:
            if value != rule.replace:
                replaced(rule.name, value)
            return rule.replace
        return value if DIGEST.fullmatch(value) else self.digest(value)

    def digest(self, value: str) -> str:
        """Return what is the same for the same value, and tells nothing else of it."""
        return f"redacted-{sha256((self.salt + value).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
