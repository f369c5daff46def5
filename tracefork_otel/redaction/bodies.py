"""Rules applied to bodies: JSON by its values, event streams by what their pieces say together, else text.

Bytes that no rule touches stay as they are, the order of keys and the spelling of numbers among them.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..wire.codings import Unreadable, coded, undone
from ..wire.dumps import dumps
from ..wire.json_places import Place, decoded, places
from ..wire.paths import fits
from .rules import DIGEST, Rule, Rules, Side

MAX_PLAIN = 64 * 2**20
"""The largest body that is looked into while the agent waits; a compressed one can claim to be any size."""
_DATA = re.compile(r"^data:[ ]?([^\r\n]*)", re.M)
_LINE = re.compile(r"^[^\r\n]+", re.M)
_EVENTS = re.compile(r"(?:data|event|id|retry)?:")
_SAID = frozenset(
    (
        "text",
        "thinking",
        "partial_json",
        "content",
        "arguments",
        "delta",
        "refusal",
        "reasoning",
        "reasoning_content",
    )
)
_LANE = ("index", "output_index", "content_index", "summary_index", "item_id")
"""Members that tell apart what is said at the same time in one stream."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A body as it may be recorded."""

    body: bytes
    sizes: tuple[int, ...]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    new: str
    cuts: tuple[int, ...] | None = None
    """Where in `new` the cuts of the old text fall; None for its end."""


def rewrite(
    rules: Rules, side: Side, body: bytes, *, media: str, coding: str, sizes: Sequence[int] = ()
) -> Rewritten | None:
    """The body with what the rules find replaced, and its chunks' sizes; None if they find nothing.

    A cut within something that was replaced moves to its end; chunks that become empty go. A compressed body
    is cut in as many pieces as it came in, as far as it has bytes. Raises Unreadable where it cannot look.
    """
    paths, patterns = rules.of("json", side), rules.of("pattern", side)
    if not body or not (paths or patterns):
        return None
    plain = undone(body, coding, limit=MAX_PLAIN)
    if plain.end == "limit":
        raise Unreadable(f"it has more than {MAX_PLAIN} bytes once it is decompressed")
    if plain.end == "more":
        raise Unreadable("more follows its compressed data")
    bare = plain.body
    spelling = _spelling(bare)
    text = bare.decode(spelling)
    cuts = () if coding else _cuts(bare, spelling, sizes)
    counts: Counter[str] = Counter()
    if any(_may_hold(text, rule) for rule in paths):
        text, cuts = _applied(text, cuts, _by_path(rules, paths, text, media, counts))
    if patterns:
        text, cuts = _applied(text, cuts, _by_pattern(rules, patterns, text, cuts, media, counts))
    if not counts:
        return None
    pieces = [
        _encoded(text[start:end], spelling) for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True)
    ]
    if not coding:
        return Rewritten(
            b"".join(pieces), tuple(len(piece) for piece in pieces if piece) if sizes else (), counts
        )
    new = coded(b"".join(pieces), coding, whole=plain.end == "whole")
    return Rewritten(new, _even(len(new), len(sizes)), counts)


def substituted(rules: Rules, side: Side, text: str, counts: Counter[str] | None = None) -> str:
    """The text with what the patterns find in it replaced."""
    found = counts if counts is not None else Counter[str]()
    return _passes(rules, rules.of("pattern", side), text, (), found)[0]


def substituted_json(rules: Rules, text: str, counts: Counter[str]) -> str:
    """The same by the patterns of both sides, for a text that is JSON, or may be."""
    patterns = rules.of("pattern", None)
    if not patterns:
        return text
    return _applied(text, (), _by_pattern(rules, patterns, text, (), "application/json", counts))[0]


# --- by JSON path ---


def _may_hold(text: str, rule: Rule) -> bool:
    """Whether some value can have the rule's path: its last name stands in the text, or may, in escapes."""
    last = rule.path[-1]
    return isinstance(last, int) or last in ("*", "**") or last in text or "\\u" in text


def _by_path(rules: Rules, paths: Sequence[Rule], text: str, media: str, counts: Counter[str]) -> list[_Edit]:
    documents = list(_documents(text, media))
    if not documents and "json" in media:
        raise Unreadable("it is not JSON, so JSON paths cannot be looked for")
    edits: list[_Edit] = []
    for _, found in documents:
        for value in found:
            rule = (
                None
                if value.kind == "key"
                else next((one for one in paths if fits(one.path, value.path)), None)
            )
            if rule is None:
                continue
            old = text[value.start : value.end]
            content = decoded(old) if value.kind == "string" else old
            new = rules.instead(rule, content)
            if value.kind == "string" and new == content:
                continue
            counts[rule.name] += 1
            edits.append(_Edit(value.start, value.end, dumps(new)))
    return edits


# --- by pattern ---


def _by_pattern(
    rules: Rules, patterns: Sequence[Rule], text: str, cuts: Sequence[int], media: str, counts: Counter[str]
) -> list[_Edit]:
    edits: list[_Edit] = []
    lanes: dict[object, list[Place]] = {}
    between = 0
    streamed = _is_stream(text, media)
    for (start, end), found in _documents(text, media):
        edits += _in_gap(rules, patterns, text, between, start, cuts, counts)
        between = end
        lane_of = _lanes(text[start:end]) if streamed else None
        for value in found:
            if value.kind not in ("string", "key", "number"):
                continue
            lane = lane_of(value) if lane_of is not None and value.kind == "string" else None
            if lane is not None:
                lanes.setdefault(lane, []).append(value)
                continue
            edits += _in_value(rules, patterns, text, value, counts)
    edits += _in_gap(rules, patterns, text, between, len(text), cuts, counts)
    for pieces in lanes.values():
        edits += _in_lane(rules, patterns, text, pieces, counts)
    return edits


def _in_gap(
    rules: Rules,
    patterns: Sequence[Rule],
    text: str,
    start: int,
    end: int,
    cuts: Sequence[int],
    counts: Counter[str],
) -> list[_Edit]:
    if start >= end:
        return []
    inner = tuple(cut - start for cut in cuts[bisect_right(cuts, start) : bisect_left(cuts, end)])
    new, moved = _passes(rules, patterns, text[start:end], inner, counts)
    return [_Edit(start, end, new, moved)] if new != text[start:end] else []


def _in_value(
    rules: Rules, patterns: Sequence[Rule], text: str, value: Place, counts: Counter[str]
) -> list[_Edit]:
    old = text[value.start : value.end]
    content = old if value.kind == "number" else decoded(old)
    new = _passes(rules, patterns, content, (), counts)[0]
    return [] if new == content else [_Edit(value.start, value.end, dumps(new))]


def _in_lane(
    rules: Rules, patterns: Sequence[Rule], text: str, pieces: Sequence[Place], counts: Counter[str]
) -> list[_Edit]:
    """What the pieces say together: a match that spans some stands in the first of them."""
    said = [decoded(text[piece.start : piece.end]) for piece in pieces]
    cuts: list[int] = []
    at = 0
    for one in said[:-1]:
        at += len(one)
        cuts.append(at)
    new, moved = _passes(rules, patterns, "".join(said), cuts, counts)
    parts = [new[start:end] for start, end in zip((0, *moved), (*moved, len(new)), strict=True)]
    return [
        _Edit(piece.start, piece.end, dumps(part))
        for piece, part, before in zip(pieces, parts, said, strict=True)
        if part != before
    ]


def _passes(
    rules: Rules, patterns: Sequence[Rule], text: str, cuts: Iterable[int], counts: Counter[str]
) -> tuple[str, tuple[int, ...]]:
    moved = tuple(cuts)
    for rule in patterns:
        assert rule.regex is not None
        edits: list[_Edit] = []
        kept: list[tuple[int, int]] | None = None
        for match in rule.regex.finditer(text):
            if kept is None:
                kept = [digest.span() for digest in DIGEST.finditer(text)]
            start, end = match.span()
            if start == end or any(a <= start and end <= b for a, b in kept):
                continue
            new = rules.instead(rule, match[0])
            if new != match[0]:
                edits.append(_Edit(start, end, new))
        if edits:
            counts[rule.name] += len(edits)
            text, moved = _applied(text, moved, edits)
    return text, moved


def _applied(text: str, cuts: Sequence[int], edits: Iterable[_Edit]) -> tuple[str, tuple[int, ...]]:
    """The text with the edits made, outer ones before those within them, and where the cuts are then."""
    parts: list[str] = []
    moved: list[int] = []
    at = length = taken = 0
    for edit in sorted(edits, key=lambda one: (one.start, -one.end)):
        if edit.start < at:
            continue
        while taken < len(cuts) and cuts[taken] <= edit.start:
            moved.append(length + cuts[taken] - at)
            taken += 1
        parts += text[at : edit.start], edit.new
        length += edit.start - at
        inner = iter(edit.cuts or ())
        while taken < len(cuts) and cuts[taken] < edit.end:
            moved.append(length + (len(edit.new) if edit.cuts is None else next(inner, len(edit.new))))
            taken += 1
        length += len(edit.new)
        at = edit.end
    parts.append(text[at:])
    moved += [length + cut - at for cut in cuts[taken:]]
    return "".join(parts), tuple(moved)


# --- what a text consists of ---


def _is_stream(text: str, media: str) -> bool:
    return "event-stream" in media or _EVENTS.match(text) is not None


def _documents(text: str, media: str) -> Iterator[tuple[tuple[int, int], list[Place]]]:
    """Each JSON text in the text: all of it, or what stands behind `data:`, or on a line of its own."""
    if _is_stream(text, media):
        places = [found.span(1) for found in _DATA.finditer(text)]
    else:
        found = _values(text, 0, len(text))
        if found is not None:
            yield (0, len(text)), found
            return
        places = [found.span() for found in _LINE.finditer(text)]
    for start, end in places:
        found = _values(text, start, end)
        if found is not None:
            yield (start, end), found


def _values(text: str, start: int, end: int) -> list[Place] | None:
    if not text[start : start + 64].lstrip().startswith(("{", "[")):
        return None
    found: list[Place] = []
    for value in places(text, start, end):
        if value is None:
            return None
        found.append(value)
    return found


def _lanes(document: str) -> Any:
    """Which text a value of an event goes on with, or None if it is none that comes in pieces."""
    try:
        event: Any = json.loads(document)
    except (ValueError, RecursionError):
        return lambda value: None
    kind = event.get("type") if isinstance(event, dict) else None

    def lane(value: Place) -> object:
        path = value.path
        if not path or path[-1] not in _SAID:
            return None
        if not ("delta" in path or "parts" in path or path[0] == "choices"):
            return None
        told: list[object] = [kind, path]
        at: Any = event
        for token in path:
            if isinstance(at, dict):
                told += [str(at[name]) for name in _LANE if name in at]
            at = at[token]
        return tuple(told)

    return lane


# --- bytes ---


def _spelling(plain: bytes) -> str:
    try:
        plain.decode()
    except UnicodeDecodeError:
        return "latin-1"  # every byte for itself: what is ASCII in it can be found all the same
    return "utf-8"


def _encoded(text: str, spelling: str) -> bytes:
    if spelling == "utf-8":
        return text.encode("utf-8", "surrogatepass")
    try:
        return text.encode(spelling)
    except UnicodeEncodeError:  # a replacement of the user's has other characters
        return b"".join(
            one.encode(spelling) if ord(one) < 256 else one.encode("utf-8", "surrogatepass") for one in text
        )


def _cuts(plain: bytes, spelling: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """The places, in characters, at which the chunks meet."""
    decoder = codecs.getincrementaldecoder(spelling)()
    cuts: list[int] = []
    at = length = 0
    for size in sizes[:-1]:
        length += len(decoder.decode(plain[at : at + size]))
        at += size
        cuts.append(length)
    return tuple(cuts)


def _even(length: int, pieces: int) -> tuple[int, ...]:
    if not pieces or not length:
        return (length,) if pieces and length else ()
    pieces = min(pieces, length)
    size, more = divmod(length, pieces)
    return tuple(size + (number < more) for number in range(pieces))
