"""Rules applied to bodies: JSON by its values, event streams by what their pieces say together, else text.

Bytes that no rule touches stay as they are, the order of keys and the spelling of numbers among them.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

from ..wire.codings import Plain, Unreadable, coded, undone
from ..wire.dumps import dumps
from ..wire.eventstream import AwsEventStream
from ..wire.framing import NDJSON
from ..wire.json_places import Place, decoded
from ..wire.sse import data_spans, is_sse
from . import hidden
from .documents import WORDS, Shapes, parts_of, whole_places
from .growth import Budget
from .named import Named
from .rules import Rule, Rules, Side
from .texts import Edit, applied, each, passes

MAX_PLAIN = 64 * 2**20
"""The largest body that is looked into while the agent waits; a compressed one can claim to be any size."""
_LINE = re.compile(r"^[^\r\n]+", re.M)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A body as it may be recorded."""

    body: bytes
    sizes: tuple[int, ...]
    counts: Counter[str]


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
    counts = Counter() if counts is None else counts
    return passes(rules, rules.of("pattern", side), text, (), counts, Budget())[0]


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
        self._budget = Budget()
        self._quiet: set[str] = set()
        """Texts in which patterns find nothing, as what stands between events is."""
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
        documents = [*self._documents(paths)]
        if not documents and "json" in self._media and not any(self._documents(())):
            raise Unreadable("it is not JSON, so JSON paths cannot be looked for")
        edits: list[Edit] = []
        named = Named([rule.path for rule in paths])
        found = [
            (place, at) for place in chain.from_iterable(documents) if (at := named.by(place)) is not None
        ]
        end = 0
        for place, at in sorted(found, key=lambda one: (one[0].start, -one[0].end)):
            if place.start < end:  # it is within one that goes as a whole
                continue
            rule = paths[at]
            if rule.texts_only and place.kind != "string":
                continue
            end = place.end
            old = self.text[place.start : place.end]
            content = decoded(old) if place.kind == "string" else old
            new = self._rules.instead(rule, content)
            if place.kind != "string" or new != content:
                self.counts[rule.name] += 1
                edits.append(Edit(place.start, place.end, dumps(new)))
        self.text, self.cuts = applied(self.text, self.cuts, edits)

    def by_pattern(self, patterns: Sequence[Rule]) -> None:
        """Replace what patterns find in what the text says."""
        patterns = [rule for rule in patterns if _may_match(self.text, rule)]
        if not patterns:
            return
        parts = None if self._streamed else parts_of(self.text)
        if parts is not None:
            self._tokens(patterns, parts)
            return
        edits: list[Edit] = []
        alone: dict[str, list[tuple[int, int]]] = {}
        for pieces in self._said(alone):
            if not pieces:
                continue
            made = [*self._together(patterns, pieces)]
            edits += made
            if not made and len(pieces) == 1:
                self._quiet.add(pieces[0].said)
        found, heard = self._replaced(patterns, {one: len(spans) for one, spans in alone.items()})
        for token, new in found.items():
            edits += (Edit(*span, new) for span in alone[token])
        for _, said in sorted((span, one) for one in heard for span in alone[one]):
            hidden.hearer().extend(heard[said])
        self.text, self.cuts = applied(self.text, self.cuts, edits)

    def _tokens(self, patterns: Sequence[Rule], parts: list[str]) -> None:
        """Replace in the strings and numbers of a JSON text; what stands there often is looked at once."""
        new, heard = self._replaced(patterns, Counter(parts[1::2]))
        if heard:
            hearer = hidden.hearer()
            for one in parts[1::2]:
                if one in heard:
                    hearer += heard[one]
        if new and self.cuts:
            starts = accumulate(map(len, parts), initial=0)
            edits = [
                Edit(at, at + len(one), new[one])
                for number, (at, one) in enumerate(zip(starts, parts, strict=False))
                if number % 2 and one in new
            ]
            self.text, self.cuts = applied(self.text, self.cuts, edits)
        elif new:
            parts[1::2] = [new.get(one, one) for one in parts[1::2]]
            self.text = "".join(parts)

    def _replaced(
        self, patterns: Sequence[Rule], times: Mapping[str, int]
    ) -> tuple[dict[str, str], dict[str, list[tuple[str, str]]]]:
        """Return what takes the place of those tokens of JSON that say what a pattern finds.

        And what it finds, to be told for each place.
        """
        said = {one: decoded(one) if one[0] == '"' else one for one in times if one not in WORDS}
        found, heard = each(self._rules, patterns, said, times, self.counts, self._budget)
        return {token: dumps(text) for token, text in found.items()}, heard

    def _together(self, patterns: Sequence[Rule], pieces: Sequence[_Piece]) -> Iterator[Edit]:
        """Yield the edits of pieces that make one text; a match that spans some stands in the first."""
        said = [piece.said for piece in pieces]
        whole = said[0] if len(said) == 1 else "".join(said)
        cuts = [*accumulate(map(len, said[:-1]))]
        new, cuts = passes(self._rules, patterns, whole, cuts, self.counts, self._budget)
        if new == whole:
            return
        for piece, (start, end) in zip(pieces, pairwise((0, *cuts, len(new))), strict=True):
            if new[start:end] != piece.said:
                yield Edit(piece.start, piece.end, piece.spell(new[start:end]))

    # --- what the text consists of ---

    def _said(self, alone: dict[str, list[tuple[int, int]]]) -> Iterator[list[_Piece]]:
        """Yield what is looked at as one: what a stream says in pieces, a text between documents.

        Where each token stands that says something by itself is in `alone` then.
        """
        lanes: dict[object, list[_Piece]] = {}
        between = 0
        shapes = Shapes(self.text, streamed=self._streamed)
        for start, end in self._lines():
            found = shapes.tokens(start, end)
            if found is None:
                continue
            yield self._gap(between, start)
            between = end
            for at, until, lane in found:
                old = self.text[at:until]
                if lane is None:
                    alone.setdefault(old, []).append((at, until))
                else:
                    lanes.setdefault(lane, []).append(_Piece(at, until, decoded(old), dumps))
        yield self._gap(between, len(self.text))
        yield from lanes.values()

    def _gap(self, start: int, end: int) -> list[_Piece]:
        """Return what stands there, cut where chunks meet; nothing if it was looked at before."""
        inner = self.cuts[bisect_right(self.cuts, start) : bisect_left(self.cuts, end)]
        said = self.text[start:end]
        if not inner and said in self._quiet:
            return []
        edges = pairwise((start, *inner, end)) if start < end else ()
        return [_Piece(a, b, self.text[a:b], str) for a, b in edges]

    def _lines(self) -> Iterator[tuple[int, int]]:
        """Yield where JSON texts may stand: behind `data:`, or on a line."""
        if self._events:
            return data_spans(self.text)
        return (found.span() for found in _LINE.finditer(self.text))

    def _documents(self, paths: Sequence[Rule]) -> Iterator[list[Place]]:
        """Yield each JSON text, or what resembles one, in which a value may have one of the paths, if any."""
        whole = None if self._streamed else whole_places(self.text, 0, len(self.text))
        if whole is not None:
            yield whole
            return
        for start, end in self._lines():
            line = self.text[start:end]
            if not paths or any(_may_hold(line, rule) for rule in paths):
                document = whole_places(self.text, start, end)
                if document is not None:
                    yield document


def _may_hold(text: str, rule: Rule) -> bool:
    """Return whether some value can have the rule's path: its last name stands there, or may, in escapes."""
    last = rule.path[-1]
    return isinstance(last, int) or last in ("*", "**") or last in text or "\\u" in text


def _may_match(text: str, rule: Rule) -> bool:
    """Return whether the pattern can find something in the text, which may be JSON with escapes in it."""
    growth = rule.growth
    if growth is None or "\\u" in text:
        return True
    return all(one in text for one in growth.letters) and growth.is_anchored(text)


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
