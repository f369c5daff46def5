"""Rules applied to bodies: JSON by its values, event streams by what their pieces say together, else text.

Bytes that no rule touches stay as they are, the order of keys and the spelling of numbers among them.
"""

from __future__ import annotations

import codecs
import re
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from ..wire.codings import Plain, Unreadable, coded, undone
from ..wire.dumps import dumps
from ..wire.eventstream import AwsEventStream
from ..wire.framing import NDJSON
from ..wire.json_places import Place, decoded, places
from ..wire.paths import PathTokens, fits
from ..wire.sse import data_spans, is_sse
from .rules import DIGEST, Rule, Rules, Side

MAX_PLAIN = 64 * 2**20
"""The largest body that is looked into while the agent waits; a compressed one can claim to be any size."""
BUDGET_S = 5
"""Of the agent's time: what patterns that backtrack may take for one body."""
_LINE = re.compile(r"^[^\r\n]+", re.M)
_SAID = (
    *("text", "thinking", "partial_json", "content", "arguments", "delta"),
    *("refusal", "reasoning", "reasoning_content", "tool_plan", "response"),
)
"""Members of events that hold a piece of a text."""
_LINES_SAY = frozenset({("message", "content"), ("message", "thinking"), ("response",), ("thinking",)})
"""Where Ollama's lines hold theirs."""
_LANE = ("index", "output_index", "content_index", "summary_index", "item_id")
"""Members that tell apart what is said at the same time in one stream."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A body as it may be recorded."""

    body: bytes
    sizes: tuple[int, ...]
    counts: Counter[str]


class _Edit(NamedTuple):
    start: int
    end: int
    new: str


class _Piece(NamedTuple):
    """A part of the text: where it stands, what it says, and how that is spelled."""

    start: int
    end: int
    said: str
    spell: Callable[[str], str]


def rewrite(
    rules: Rules, side: Side, body: bytes, *, media: str, coding: str, sizes: Sequence[int] = ()
) -> Rewritten | None:
    """Return the body with what the rules find replaced, and its chunks' sizes; None if they find nothing.

    A cut within something that was replaced moves to its end; chunks that become empty go. A compressed body
    is cut in as many pieces as it came in, as far as it has bytes. Raises Unreadable where it cannot look.
    """
    paths, patterns = rules.of("json", side), rules.of("pattern", side)
    if not body or not (paths or patterns):
        return None
    plain = _plain(body, coding)
    if AwsEventStream().holds(plain.body, media):
        raise Unreadable("it is a binary event stream, whose pieces are base64 or checked by sums")
    spelling = _spelling(plain.body)
    cuts = () if coding else _cuts(plain.body, spelling, sizes)
    made = _Rewriting(rules, plain.body.decode(spelling), media, cuts)
    made.by_path(paths)
    made.by_pattern(patterns)
    if not made.counts:
        return None
    edges = (0, *made.cuts, len(made.text))
    pieces = [_encoded(made.text[start:end], spelling) for start, end in pairwise(edges)]
    new = b"".join(pieces)
    if not coding:
        return Rewritten(new, tuple(len(one) for one in pieces if one) if sizes else (), made.counts)
    new = coded(new, coding, whole=plain.end == "whole")
    return Rewritten(new, _even(len(new), len(sizes)), made.counts)


def substituted(rules: Rules, side: Side, text: str, counts: Counter[str] | None = None) -> str:
    """Return the text with what the patterns find in it replaced."""
    return _passes(rules, rules.of("pattern", side), text, (), Counter() if counts is None else counts)[0]


def substituted_json(rules: Rules, text: str, counts: Counter[str]) -> str:
    """Return the text, which may be JSON, with what the patterns of both sides find in it replaced."""
    made = _Rewriting(rules, text, "application/json", (), counts)
    made.by_pattern(rules.of("pattern", None))
    return made.text


class _Rewriting:
    """A text in the making, where its chunks meet in it, and how often each rule replaced something."""

    def __init__(
        self, rules: Rules, text: str, media: str, cuts: Sequence[int], counts: Counter[str] | None = None
    ) -> None:
        self.text = text
        self.cuts = tuple(cuts)
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._rules = rules
        self._media = media
        self._events = is_sse(text[:64].encode("utf-8", "replace"), media)
        self._streamed = self._events or (
            "\n" in text and NDJSON.holds(text.encode("utf-8", "replace"), media)
        )

    def by_path(self, paths: Sequence[Rule]) -> None:
        """Replace the values at JSON paths."""
        if not any(_may_hold(self.text, rule) for rule in paths):
            return
        documents = [document for _, document in self._documents()]
        if not documents and "json" in self._media:
            raise Unreadable("it is not JSON, so JSON paths cannot be looked for")
        edits: list[_Edit] = []
        for place in chain.from_iterable(documents):
            rule = next((one for one in paths if fits(one.path, place.path)), None)
            if rule is None or place.kind == "key":
                continue
            old = self.text[place.start : place.end]
            content = decoded(old) if place.kind == "string" else old
            new = self._rules.instead(rule, content)
            if place.kind != "string" or new != content:
                self.counts[rule.name] += 1
                edits.append(_Edit(place.start, place.end, dumps(new)))
        self.text, self.cuts = _applied(self.text, self.cuts, edits)

    def by_pattern(self, patterns: Sequence[Rule]) -> None:
        """Replace what patterns find in what the text says."""
        edits: list[_Edit] = []
        begun = time.thread_time()
        for pieces in self._said() if patterns else ():
            edits += self._together(patterns, pieces)
            if time.thread_time() - begun > BUDGET_S:
                raise Unreadable(f"its patterns take more than {BUDGET_S} s")
        self.text, self.cuts = _applied(self.text, self.cuts, edits)

    def _together(self, patterns: Sequence[Rule], pieces: Sequence[_Piece]) -> Iterator[_Edit]:
        """Yield the edits of pieces that make one text; a match that spans some stands in the first."""
        said = [piece.said for piece in pieces]
        whole = said[0] if len(said) == 1 else "".join(said)
        new, cuts = _passes(self._rules, patterns, whole, [*accumulate(map(len, said[:-1]))], self.counts)
        if new == whole:
            return
        for piece, (start, end) in zip(pieces, pairwise((0, *cuts, len(new))), strict=True):
            if new[start:end] != piece.said:
                yield _Edit(piece.start, piece.end, piece.spell(new[start:end]))

    # --- what the text consists of ---

    def _said(self) -> Iterator[list[_Piece]]:
        """Yield what is looked at as one: a value, what a stream says in pieces, a text between documents."""
        lanes: dict[object, list[_Piece]] = {}
        between = 0
        for (start, end), document in self._documents():
            yield self._gap(between, start)
            between = end
            tokens = {place.path: self.text[place.start : place.end] for place in document if self._streamed}
            for place in document:
                if place.kind not in ("string", "key", "number"):
                    continue
                old = self.text[place.start : place.end]
                piece = _Piece(place.start, place.end, old if place.kind == "number" else decoded(old), dumps)
                lane = _lane(place.path, tokens) if self._streamed and place.kind == "string" else None
                if lane is None:
                    yield [piece]
                else:
                    lanes.setdefault(lane, []).append(piece)
        yield self._gap(between, len(self.text))
        yield from lanes.values()

    def _gap(self, start: int, end: int) -> list[_Piece]:
        inner = self.cuts[bisect_right(self.cuts, start) : bisect_left(self.cuts, end)]
        edges = pairwise((start, *inner, end)) if start < end else ()
        return [_Piece(a, b, self.text[a:b], str) for a, b in edges]

    def _documents(self) -> Iterator[tuple[tuple[int, int], list[Place]]]:
        """Yield each JSON text in the text: all of it, or what stands behind `data:`, or on a line."""
        if self._events:
            spans = data_spans(self.text)
        elif not self._streamed and (document := _places(self.text, 0, len(self.text))) is not None:
            yield (0, len(self.text)), document
            return
        else:
            spans = (found.span() for found in _LINE.finditer(self.text))
        for start, end in spans:
            document = _places(self.text, start, end)
            if document is not None:
                yield (start, end), document


def _may_hold(text: str, rule: Rule) -> bool:
    """Return whether some value can have the rule's path: its last name stands there, or may, in escapes."""
    last = rule.path[-1]
    return isinstance(last, int) or last in ("*", "**") or last in text or "\\u" in text


def _places(text: str, start: int, end: int) -> list[Place] | None:
    if not text[start : start + 64].lstrip().startswith(("{", "[")):
        return None
    found = [*places(text, start, end)]
    whole = [place for place in found if place is not None]
    return whole if len(whole) == len(found) else None


def _lane(path: PathTokens, tokens: dict[PathTokens, str]) -> object:
    """Return what is equal for the strings that make one text, None if the string is no piece of one."""
    if not path or path[-1] not in _SAID:
        return None
    if not ("delta" in path or "parts" in path or path[0] == "choices" or path in _LINES_SAY):
        return None
    above = (path[:length] for length in range(len(path)))
    return (tokens.get(("type",)), path, *(tokens.get((*one, name)) for one in above for name in _LANE))


# --- replaced ---


def _passes(
    rules: Rules, patterns: Sequence[Rule], text: str, cuts: Sequence[int], counts: Counter[str]
) -> tuple[str, tuple[int, ...]]:
    """Return the text as the patterns leave it, one after the other, and where its cuts are then."""
    moved = tuple(cuts)
    for rule in patterns:
        assert rule.regex is not None
        edits: list[_Edit] = []
        kept: list[tuple[int, int]] | None = None
        for match in rule.regex.finditer(text) if rule.regex.search(text) else ():
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


# --- bytes ---


def _plain(body: bytes, coding: str) -> Plain:
    """Return the body without its codings, whole or cut; raises Unreadable for any other."""
    plain = undone(body, coding, limit=MAX_PLAIN)
    if plain.end == "limit":
        raise Unreadable(f"it has more than {MAX_PLAIN} bytes once it is decompressed")
    if plain.end == "more":
        raise Unreadable("more follows its compressed data")
    return plain


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
    """Return the places, in characters, at which the chunks meet."""
    decoder = codecs.getincrementaldecoder(spelling)()
    cuts: list[int] = []
    at = length = 0
    for size in sizes[:-1]:
        length += len(decoder.decode(plain[at : at + size]))
        at += size
        cuts.append(length)
    return tuple(cuts)


def _even(length: int, pieces: int) -> tuple[int, ...]:
    """Return the sizes of that many pieces, as even as they can be, none of them empty."""
    pieces = min(pieces, length)
    return tuple(length * (n + 1) // pieces - length * n // pieces for n in range(pieces))
