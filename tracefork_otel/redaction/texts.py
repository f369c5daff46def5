"""Patterns applied to texts, one after the other, each within what its time may be."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..log import warn_once
from . import hidden
from .growth import Budget
from .passwords import SECRET, within
from .rules import DIGEST, Rule, Rules

_WHOLE = (
    "tracefork: the pattern of redaction rule %r takes time with the square of a text's length, or worse, so"
    " texts on which it would take too long are replaced as a whole: docs/redaction.md says how to write it"
)


class Edit(NamedTuple):
    """What takes the place of a part of a text."""

    start: int
    end: int
    new: str


def each(
    rules: Rules,
    patterns: Sequence[Rule],
    texts: Mapping[str, str],
    times: Mapping[str, int],
    counts: Counter[str],
    budget: Budget,
) -> tuple[dict[str, str], dict[str, list[tuple[str, str]]]]:
    """Return those of the texts, by name, that the patterns change, as `passes` does with each.

    What is replaced counts as often as its text stands there. Whoever is hearing what is replaced is to be
    told it once for each of these times: it is returned too, by the same names.
    """
    hearer = hidden.hearer()
    before = len(hearer)
    heard: dict[str, list[tuple[str, str]]] = {}
    left = dict(texts)
    new: dict[str, str] = {}
    for rule in patterns:
        assert rule.regex is not None
        assert rule.growth is not None
        growth, sub = rule.growth, rule.regex.sub
        filtered, linear = bool(growth.literals or growth.anchors), growth.linear
        swap, swapped = _swap(rules, rule)
        whole: list[str] = []
        for name, text in left.items():
            if filtered and not growth.may_match(text):
                continue
            if not linear and (steps := growth.steps(text)):
                if steps > budget.left:
                    counts[f"{rule.name} (whole texts)"] += times[name]
                    warn_once(f"redaction {rule.name} {rule.match}", _WHOLE, rule.name)
                    new[name] = rules.digest(text)
                    whole.append(name)
                    continue
                budget.left -= steps
            if "redacted-" in text:
                found: Counter[str] = Counter()
                made, _ = _edited(rules, rule, text, (), found)
                count = found[rule.name]
            else:
                swapped[0] = 0
                made, count = sub(swap, text), swapped[0]
            if count:
                counts[rule.name] += count * times[name]
                left[name] = new[name] = made
                if len(hearer) > before:
                    heard.setdefault(name, []).extend(hearer[before:])
                    del hearer[before:]
        for name in whole:
            del left[name]
    return new, heard


def _swap(rules: Rules, rule: Rule) -> tuple[Callable[[re.Match[str]], str], list[int]]:
    """Return what gives the text in place of a match, and a place in which it counts what it replaces."""
    swapped = [0]
    instead = rules.instead

    assert rule.regex is not None
    group = _group(rule.regex)

    def swap(match: re.Match[str]) -> str:
        old = match[group]
        if old and (new := instead(rule, old)) != old:
            swapped[0] += 1
            return within(match, new) if group else new
        return match[0]

    return swap, swapped


def _group(regex: re.Pattern[str]) -> str | int:
    """Return the part of a match that is replaced: the group of that name, else all."""
    return SECRET if SECRET in regex.groupindex else 0


def passes(
    rules: Rules,
    patterns: Sequence[Rule],
    text: str,
    cuts: Sequence[int],
    counts: Counter[str],
    budget: Budget,
) -> tuple[str, tuple[int, ...]]:
    """Return the text as the patterns leave it, one after the other, and where its cuts are then.

    Where a pattern would take more than is left of the budget the whole text is replaced.
    """
    moved = tuple(cuts)
    for rule in patterns:
        assert rule.regex is not None
        assert rule.growth is not None
        if not rule.growth.may_match(text):
            continue
        steps = rule.growth.steps(text)
        if steps > budget.left:
            counts[f"{rule.name} (whole texts)"] += 1
            warn_once(f"redaction {rule.name} {rule.match}", _WHOLE, rule.name)
            return applied(text, moved, [Edit(0, len(text), rules.digest(text))])
        budget.left -= steps
        if not moved and "redacted-" not in text:
            swap, swapped = _swap(rules, rule)
            text = rule.regex.sub(swap, text)
            if swapped[0]:
                counts[rule.name] += swapped[0]
        else:
            text, moved = _edited(rules, rule, text, moved, counts)
    return text, moved


def _edited(
    rules: Rules, rule: Rule, text: str, cuts: Sequence[int], counts: Counter[str]
) -> tuple[str, tuple[int, ...]]:
    """Return the text as the pattern leaves it, digests that stand there as they are, and its cuts."""
    assert rule.regex is not None
    edits: list[Edit] = []
    kept: list[tuple[int, int]] | None = None
    group = _group(rule.regex)
    for match in rule.regex.finditer(text) if rule.regex.search(text) else ():
        if kept is None:
            kept = [one.span() for one in DIGEST.finditer(text)] if "redacted-" in text else []
        start, end = match.span(group)
        if start == end or any(a <= start and end <= b for a, b in kept):
            continue
        new = rules.instead(rule, match[group])
        if new != match[group]:
            edits.append(Edit(start, end, new))
    if not edits:
        return text, tuple(cuts)
    counts[rule.name] += len(edits)
    return applied(text, cuts, edits)


def applied(text: str, cuts: Sequence[int], edits: Iterable[Edit]) -> tuple[str, tuple[int, ...]]:
    """Return the text with the edits made, of nested ones the outer, and where the cuts are then.

    A cut within something that is replaced moves to its end.
    """
    parts: list[str] = []
    starts: list[int] = []
    ends, shifts = [0], [0]
    for start, end, new in sorted(edits, key=lambda one: (one.start, -one.end)):
        if start < ends[-1]:
            continue
        parts += text[ends[-1] : start], new
        shifts.append(shifts[-1] + len(new) - (end - start))
        starts.append(start)
        ends.append(end)
    parts.append(text[ends[-1] :])
    before = [bisect_left(starts, cut) for cut in cuts]
    return "".join(parts), tuple(max(cut, ends[n]) + shifts[n] for cut, n in zip(cuts, before, strict=True))
