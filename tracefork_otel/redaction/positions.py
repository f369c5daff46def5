"""A regular expression as the positions that its matching passes: what each takes, and which may follow.

Every way through the positions that a text allows is one that Python's `re`, which tries one after the other,
may have to take.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

Ways: TypeAlias = dict[int, int]
"""Positions, and in how many ways each is reached: one, or more."""

_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
_ANYTHING = "(?s:.)"
_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_COPIES = 16
"""How often what is repeated up to a number stands there as copies; more often counts as endless."""
_FEW = 3
"""The same of more than one character, where all that is repeated shall count as endless."""
_FIXED = 64
"""The same where number and length are fixed, so that there is but one way."""
MOST = 400
"""Positions of the largest expression that is judged."""


class Unjudged(Exception):
    """The expression is too large, or has something in it that we do not know."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a part of an expression begins and ends with, and in how many ways it may be nothing."""

    empty: int
    first: Ways
    last: Ways


_NOTHING = _Part(1, {}, {})


@dataclass(slots=True)
class Positions:
    """The positions of an expression."""

    takes: list[str] = field(default_factory=list[str])
    """The expression of one character that each takes."""
    follow: list[Ways] = field(default_factory=list[Ways])
    first: Ways = field(default_factory=Ways)
    last: Ways = field(default_factory=Ways)
    before: str = ""
    """The expression of what must stand before a match (or the text begins there), if that is known."""
    prefix: str = ""
    """The text with which every match begins, as far as it is the same for all."""
    literals: tuple[str, ...] = ()
    """The texts that stand in every match."""
    may_fail: bool = False
    """Whether a match may fail behind its last position: by an assertion, or a number not counted."""


def positions(regex: re.Pattern[str], *, endless: bool = False) -> Positions:
    """Return the positions of the expression; raise Unjudged where it has what we do not know.

    Where `endless`, groups that may be repeated up to a number stand there as if there was none, so that
    several ways to repeat them are seen.
    """
    made = Positions()
    flags = regex.flags & _FLAGS
    try:
        tree: Any = [*import_module("re._parser").parse(regex.pattern, regex.flags & ~re.DEBUG)]
        whole = _Builder(made, _FEW if endless else _COPIES).sequence(
            _entered(made, tree, flags, regex.flags), flags
        )
    except (ImportError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise Unjudged(str(error)) from error
    made.first, made.last = whole.first, whole.last
    return made


def _entered(made: Positions, tree: list[Any], flags: int, given: int) -> list[Any]:
    """Return the tree behind the assertions with which it begins, once `made` has what those ask for."""
    boundary = False
    while tree and str(tree[0][0]) in ("AT", "ASSERT", "ASSERT_NOT"):
        (op, value), *rest = tree
        name = f"{op} {value}"
        if name == "AT AT_BOUNDARY":
            boundary = True
        elif name in ("AT AT_BEGINNING", "AT AT_BEGINNING_STRING"):
            lines = name == "AT AT_BEGINNING" and given & re.MULTILINE
            made.before = r"\n" if lines else "(?!)"
        elif str(op) != "AT" and value[0] == -1:
            # Of a longer one that must be there its last character is known, of one that must not, nothing.
            known = len(value[1]) == 1 or (str(op) == "ASSERT" and len(value[1]))
            one = _single(value[1][-1][0], value[1][-1][1], flags) if known else None
            if one is not None:
                made.before = one if str(op) == "ASSERT" else f"(?!{one}){_ANYTHING}"
        else:
            break
        tree = rest
    if not flags & re.IGNORECASE:
        spelled = "".join(chr(value) if str(op) == "LITERAL" else "\0" for op, value in tree)
        made.prefix = spelled.partition("\0")[0]
        made.literals = tuple(one for one in spelled.split("\0") if one)
    if boundary and tree:
        op, value = _begins(*tree[0])
        begins = _single(op, value, flags)
        if begins and not any(re.fullmatch(begins, chr(code)) for code in range(128) if not _is_word(code)):
            made.before = made.before or (r"(?a:\W)" if flags & re.ASCII else r"\W")
    return tree


def _is_word(code: int) -> bool:
    return chr(code).isalnum() or code == ord("_")


def _begins(op: Any, value: Any) -> tuple[Any, Any]:
    """Return the first item of an item that is repeated at least once, or is a group."""
    while (str(op).endswith("_REPEAT") and value[0] > 0) or str(op) == "SUBPATTERN":
        inner = value[2] if str(op) != "SUBPATTERN" else value[3]
        if not len(inner):
            break
        op, value = inner[0]
    return op, value


def _single(op: Any, value: Any, flags: int) -> str | None:
    """Return the expression of the one character that the item takes, None if it is no such item."""
    name = str(op)
    if name == "LITERAL":
        text = re.escape(chr(value))
    elif name == "NOT_LITERAL":
        text = f"[^{re.escape(chr(value))}]"
    elif name == "ANY":
        text = "."
    elif name == "IN":
        text = f"[{''.join(_member(str(kind), one) for kind, one in value)}]"
    else:
        return None
    letters = "".join(letter for letter, bit in (("a", re.A), ("i", re.I), ("s", re.S)) if flags & bit)
    return f"(?{letters}:{text})" if letters else text


def _member(kind: str, value: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "LITERAL":
        return re.escape(chr(value))
    if kind == "RANGE":
        return "-".join(re.escape(chr(end)) for end in value)
    if kind == "CATEGORY" and str(value) in _CATEGORIES:
        return _CATEGORIES[str(value)]
    raise Unjudged(kind)


class _Builder:
    """What adds the parts of an expression's tree to its positions."""

    def __init__(self, made: Positions, copies: int) -> None:
        self._made = made
        self._copies = copies
        self._groups: dict[int, tuple[Any, int]] = {}

    def sequence(self, items: Iterable[Any], flags: int) -> _Part:
        """Return the part that the items make one after the other."""
        made = _NOTHING
        for op, value in items:
            made = self._then(made, self._item(str(op), value, flags))
        return made

    def _then(self, a: _Part, b: _Part) -> _Part:
        self._join(a.last, b.first)
        first, last = _plus(a.first, b.first, a.empty), _plus(b.last, a.last, b.empty)
        return _Part(min(2, a.empty * b.empty), first, last)

    def _join(self, last: Ways, first: Ways) -> None:
        for one, ways in last.items():
            self._made.follow[one] = _plus(self._made.follow[one], first, ways)

    def _one(self, takes: str) -> _Part:
        if len(self._made.takes) >= MOST:
            raise Unjudged("it is too long")
        self._made.takes.append(takes)
        self._made.follow.append({})
        return _Part(0, {len(self._made.takes) - 1: 1}, {len(self._made.takes) - 1: 1})

    def _item(self, name: str, value: Any, flags: int) -> _Part:
        single = _single(name, value, flags)
        if single is not None:
            return self._one(single)
        match name:
            case "BRANCH":
                return self._either([self.sequence(one, flags) for one in value[1]])
            case "SUBPATTERN":
                inner = (flags | (value[1] & _FLAGS)) & ~value[2]
                self._groups[value[0]] = value[3], inner
                return self.sequence(value[3], inner)
            case "ATOMIC_GROUP":
                return self.sequence(value, flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._repeated(value[0], value[1], value[2], flags)
            case "ASSERT" | "ASSERT_NOT":
                self._made.may_fail = True
                ahead = self.sequence(value[1], flags) if value[0] > 0 else _NOTHING
                return _Part(1, ahead.first, {})
            case "AT" | "FAILURE":
                self._made.may_fail = True
                return _NOTHING
            case "GROUPREF":
                self._made.may_fail = True
                return self.sequence(*self._groups[value])
            case "GROUPREF_EXISTS":
                self._made.may_fail = True
                return self._either([self.sequence(one or (), flags) for one in value[1:]])
            case _:
                raise Unjudged(name)

    def _either(self, parts: Sequence[_Part]) -> _Part:
        first, last = Ways(), Ways()
        for one in parts:
            first, last = _plus(first, one.first), _plus(last, one.last)
        return _Part(min(2, sum(one.empty for one in parts)), first, last)

    def _repeated(self, low: int, high: int, body: Any, flags: int) -> _Part:
        if not high:
            return _NOTHING
        before = len(self._made.takes)
        one = self.sequence(body, flags)
        size = len(self._made.takes) - before
        shortest, longest = body.getwidth()
        fixed = low == high and shortest == longest
        most = _FIXED if fixed else _COPIES if size == 1 else self._copies
        endless = int(high) > most or high * size > _FIXED * 2
        must = low - 1 if low * size <= _FIXED else 0
        if endless:
            self._made.may_fail |= must + 1 < low or high < 2**16
            self._join(one.last, one.first)
            if one.empty and low > must + 1:  # which of those not counted are nothing makes ways of its own
                self._join(one.last, one.first)
        made = _Part(1 if not low else one.empty, one.first, one.last)
        if endless:
            for _ in range(must if low else 0):
                made = self._then(self.sequence(body, flags), made)
            return made
        made = _NOTHING
        for at in range(high):  # from the last copy to the first, which is the one that is there
            copy = one if at == high - 1 else self.sequence(body, flags)
            made = self._then(copy, made)
            if at < high - low:
                made = _Part(1, made.first, made.last)
        return made


def _plus(a: Mapping[int, int], b: Mapping[int, int], times: int = 1) -> Ways:
    """Return the ways of both, those of the second that many times; more than one is two."""
    made = dict(a)
    for one, ways in b.items() if times else ():
        made[one] = min(2, made.get(one, 0) + ways * times)
    return made
