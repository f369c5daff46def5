"""Counterparts compared: where they differ, and which earlier difference that follows from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from tracefork_otel.play.cause import common_prefix, shorten
from tracefork_otel.wire.paths import PathTokens, format_path, shown, walk

from .align import Pair
from .reading import Step, Unit

Kind: TypeAlias = Literal["same", "changed", "added", "gone"]

KEPT = 50
"""Changes of a step that are kept with their values; all of them are counted."""
_LINKED = 3
"""A value shorter than this is in too many texts for that to say where it came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One place at which two counterparts differ, with both values, shortened around the difference."""

    where: Literal["request", "response"]
    path: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiff:
    """A step of one run, its counterpart in the other, and how they compare."""

    kind: Kind
    a: int | None
    b: int | None
    what_a: str | None
    """The step in a few words: model and reply, or method and path."""
    what_b: str | None
    brief_a: str | None = None
    """The same without what was said: model and names of tools."""
    brief_b: str | None = None
    changes: tuple[Change, ...] = ()
    differences: int = 0
    """How many JSON paths differ, of which `changes` has the first."""
    news: tuple[Change, ...] = ()
    """What differs in the request and is not carried over: by kind of message, such as a tool's result."""
    follows: tuple[int, ...] = ()
    """Indexes of the earlier differences that this step carries in its request."""
    intervention: str | None = None
    """What a fork changed here."""

    @property
    def differs(self) -> bool:
        """Whether there is anything to see."""
        return self.kind != "same"

    @property
    def name(self) -> str:
        """The step's number, or both where they are not equal."""
        if self.a is None or self.b is None or self.a == self.b:
            return str(self.b if self.a is None else self.a)
        return f"{self.a}→{self.b}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs, as a whole."""

    run_id: str
    name: str
    steps: int
    status: str | None
    """`ok`, `error`, `killed` or `running`; None for a tape."""
    outcome: bool | None
    """What an oracle said."""
    exit_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    unpriced: int
    """So many calls have no price that is known."""
    last_text: str
    """What the run's last model call answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two runs compare."""

    a: Side
    b: Side
    steps: tuple[StepDiff, ...]
    """In the order of `b`, what only `a` has standing where it was."""

    @property
    def differs(self) -> bool:
        """Whether any step does."""
        return self.first is not None

    @property
    def first(self) -> int | None:
        """The index of the first difference, None if there is none."""
        return next((index for index, step in enumerate(self.steps) if step.differs), None)

    @property
    def chain(self) -> tuple[int, ...]:
        """The indexes of the steps that follow from the first: they carry it, or what it led to."""
        first = self.first
        if first is None:
            return ()
        reached = {first}
        for index, step in enumerate(self.steps):
            if reached & set(step.follows):
                reached.add(index)
        return tuple(sorted(reached - {first}))

    def count(self, kind: Kind) -> int:
        """Return how many steps compare so."""
        return sum(1 for step in self.steps if step.kind == kind)


def compare(pairs: Sequence[Pair], a: Sequence[Step], b: Sequence[Step]) -> tuple[StepDiff, ...]:
    """Compare each pair, in order."""
    history = _History(a, b)
    return tuple(
        _compared(index, None if i is None else a[i], None if j is None else b[j], history)
        for index, (i, j) in enumerate(pairs)
    )


def _compared(index: int, ours: Step | None, theirs: Step | None, history: _History) -> StepDiff:
    about: dict[str, Any] = {}
    for side, step in (("a", ours), ("b", theirs)):
        about |= {
            side: None if step is None else step.number,
            f"what_{side}": None if step is None else step.what,
            f"brief_{side}": None if step is None else step.brief,
        }
    if theirs is not None and (ours is None or theirs.exchange.intervention != ours.exchange.intervention):
        about["intervention"] = theirs.exchange.intervention
    if ours is None or theirs is None:
        follows, _ = history.enter(index, ours, theirs, [], [])
        return StepDiff(kind="added" if ours is None else "gone", follows=follows, **about)
    if ours.same_as(theirs):
        return StepDiff(kind="same", **about)
    asked, answered = _request_changes(ours, theirs), _answer_changes(ours, theirs)
    follows, news = history.enter(index, ours, theirs, asked, answered)
    changes = [*asked, *answered]
    return StepDiff(
        kind="changed",
        changes=tuple(_change(*found) for found in changes[:KEPT]),
        differences=len(changes),
        follows=follows,
        news=news,
        **about,
    )


_Found: TypeAlias = tuple[Literal["request", "response"], PathTokens | str, Any, Any]


def _change(where: Literal["request", "response"], path: PathTokens | str, a: Any, b: Any) -> Change:
    left, right = shorten(shown(a), shown(b))
    return Change(where=where, path=path if isinstance(path, str) else format_path(path), a=left, b=right)


def _request_changes(ours: Step, theirs: Step) -> list[_Found]:
    changes: list[_Found] = []
    a, b = ours.exchange.request, theirs.exchange.request
    if ours.address[0] != theirs.address[0]:
        changes.append(("request", "method", a.method, b.method))
    elif ours.address != theirs.address:
        changes.append(("request", "url", a.url, b.url))
    if a.body == b.body or (left := ours.asked) == (right := theirs.asked):
        return changes
    return [*changes, *_body_changes(left, right)]


def _body_changes(left: bytes, right: bytes) -> list[_Found]:
    found: list[tuple[PathTokens, Any, Any]] = []
    try:
        walk(json.loads(left), json.loads(right), (), found)
    except (ValueError, RecursionError):
        found = []
    if found:
        return [("request", path, a, b) for path, a, b in found]
    # No JSON, or equal as JSON and spelled in another way.
    texts = left.decode("utf-8", "backslashreplace"), right.decode("utf-8", "backslashreplace")
    return [("request", f"byte {common_prefix(left, right)}", *texts)]


def _answer_changes(ours: Step, theirs: Step) -> list[_Found]:
    found: list[tuple[PathTokens, Any, Any]] = []
    walk(ours.answer, theirs.answer, (), found)
    return [("response", path, a, b) for path, a, b in found]


class _History:
    """Which piece of a conversation differed first at which pair, so that who carries it can say so."""

    def __init__(self, a: Sequence[Step], b: Sequence[Step]) -> None:
        self._of_a = {unit for step in a for unit in (*step.said, *step.reply)}
        self._of_b = {unit for step in b for unit in (*step.said, *step.reply)}
        self._first: dict[Unit, int] = {}
        self._asked: dict[tuple[str, str], int] = {}
        self._answered: dict[tuple[str, str], int] = {}

    def enter(
        self,
        index: int,
        ours: Step | None,
        theirs: Step | None,
        asked: Sequence[_Found],
        answered: Sequence[_Found],
    ) -> tuple[tuple[int, ...], tuple[Change, ...]]:
        """Return the earlier pairs whose differences this one carries, and what else its request changes."""
        left, right = _apart(ours.said if ours else (), theirs.said if theirs else ())
        differing = [*left, *right]
        follows = {self._first[unit] for unit in differing if unit in self._first}
        if not follows and not (ours and ours.said) and not (theirs and theirs.said):
            follows = self._mentioned(asked)
        follows = follows or self._repeated(asked)
        self._note(index, asked, answered)
        news = _by_kind(*([unit for unit in side if unit not in self._first] for side in (left, right)))
        replies = _apart(ours.reply if ours else (), theirs.reply if theirs else ())
        for unit, other in (
            *((unit, self._of_b) for unit in (*left, *replies[0])),
            *((unit, self._of_a) for unit in (*right, *replies[1])),
        ):
            # What both runs say somewhere did not come from a difference: it only stands elsewhere.
            if unit not in other:
                self._first.setdefault(unit, index)
        return tuple(sorted(follows - {index})), news

    def _note(self, index: int, asked: Sequence[_Found], answered: Sequence[_Found]) -> None:
        """Keep what an answer made anew in both runs, such as ids, and not what it was asked with."""
        for pair in _texts(asked):
            self._asked.setdefault(pair, index)
        for pair in _texts(answered):
            if pair not in self._asked:
                self._answered.setdefault(pair, index)

    def _repeated(self, asked: Sequence[_Found]) -> set[int]:
        """Return the pairs of which this request has, side by side, what their answers made anew."""
        return {
            index
            for pair in _texts(asked)
            for made, index in self._answered.items()
            if self._asked.get(pair, index + 1) > index and _has(pair, made)
        }

    def _mentioned(self, asked: Iterable[_Found]) -> set[int]:
        """Return the pairs whose differing answers hold a value that differs in this request."""
        values = {
            str(value) for _, _, a, b in asked for value in (a, b) if isinstance(value, str | int | float)
        }
        return {
            index
            for (_, _, content), index in self._first.items()
            if any(len(value) >= _LINKED and value in content for value in values)
        }


def _has(asked: tuple[str, str], made: tuple[str, str]) -> bool:
    """Return whether a request has what an answer made, each run its own: in a URL, or out of a stream."""
    if min(map(len, (*asked, *made))) < _LINKED:
        return False
    (left, right), (ours, theirs) = asked, made
    within = ours in left and theirs in right
    return within or (left in ours and right in theirs and left not in theirs and right not in ours)


def _texts(changes: Iterable[_Found]) -> list[tuple[str, str]]:
    pairs = [(a, b) for _, _, a, b in changes]
    return [(str(a), str(b)) for a, b in pairs if isinstance(a, str | int) and isinstance(b, str | int)]


def _apart(a: Sequence[Unit], b: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Return what only `a` has, or has more often, and what only `b` has."""
    ours, theirs = Counter(a), Counter(b)
    return list((ours - theirs).elements()), list((theirs - ours).elements())


def _by_kind(a: Sequence[Unit], b: Sequence[Unit]) -> tuple[Change, ...]:
    """Put the pieces of both sides beside each other, by kind and tool."""
    names = dict.fromkeys((kind, name) for kind, name, _ in (*a, *b))
    changes: list[Change] = []
    for kind, name in names:
        left, right = ([content for *of, content in side if of == [kind, name]] for side in (a, b))
        where = f"{kind} {name}" if name else kind
        beside = zip_longest(left, right, fillvalue="(absent)")
        changes += [_change("request", where, ours, theirs) for ours, theirs in beside]
    return tuple(changes[:KEPT])
