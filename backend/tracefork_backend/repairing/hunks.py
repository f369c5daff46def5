"""What a change consists of, in parts that can be made without the others."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange, Response
from tracefork_otel.exchange import Request as Asking
from tracefork_otel.play.intervention import Intervention
from tracefork_otel.play.onward import with_edits
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.json_values import loads
from tracefork_otel.wire.messages import Turn
from tracefork_otel.wire.replies import said_by, system_of, whole_reply

from ..rerun.edits import Edit
from ..rerun.edits.answer import Response as Answered
from ..rerun.edits.answer import Text, ToolInput
from ..rerun.edits.request import Request
from ..spelling import short

_Path: TypeAlias = tuple[str | int, ...]
_Cut: TypeAlias = Callable[[str], list[str]]
"""Cuts a text into pieces that add up to it."""
_BETWEEN = re.compile(r"(?<=[.!?])(?=\s)|(?<=\n)(?=\S)")
_BEFORE_LINE = re.compile(r"(?<!\r)(?=\n)|(?=\r\n)")
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """One thing that a change has otherwise than what was recorded."""

    what: str
    """Where it is: the argument of a tool, `text`, `system`, `model`."""
    old: str
    new: str

    @property
    def words(self) -> str:
        """The hunk as a person reads it."""
        if not (self.old or self.new):
            return self.what
        if not self.old:
            return f"{self.what}: {short(self.new, _SHOWN)} added"
        if not self.new:
            return f"{self.what}: {short(self.old, _SHOWN)} left out"
        return f"{self.what} {short(self.new, _SHOWN)} for {short(self.old, _SHOWN)}"


class Parts(ABC):
    """A change in its parts; any choice of them is an edit."""

    hunks: Sequence[Hunk]

    @abstractmethod
    def edit(self, kept: Collection[int]) -> Edit:
        """Return the edit that makes these of its parts."""

    def words(self, kept: Collection[int]) -> str:
        """Return these parts as a person reads them."""
        return ", ".join(self.hunks[at].words for at in sorted(kept))


class Whole(Parts):
    """A change that has no parts."""

    def __init__(self, edit: Edit, hunk: Hunk) -> None:
        self._edit = edit
        self.hunks = (hunk,)

    def edit(self, kept: Collection[int]) -> Edit:
        """Return the edit."""
        return self._edit


class Inseparable(Exception):
    """Differences of an answer that cannot be made one without the others."""


class Answer(Parts):
    """Another answer of the model, which says the same kinds of things as the recorded one.

    Raises Inseparable where its differences say that only together.
    """

    def __init__(self, recorded: Exchange, old: dict[str, Any], new: dict[str, Any]) -> None:
        self._request = recorded.request
        self._old, self._new = old, new
        self._said = said_by(self._request, old)
        places: list[tuple[_Path, str, str]] = []

        def noted(path: _Path, old: str, new: str) -> bool:
            places.append((path, old, new))
            return False

        merged(old, new, noted)
        # Ids, counts and signatures differ too, but say nothing.
        said = [(place, self._changed({place[0]})) for place in places]
        speaking = [(place, at) for place, at in said if at is not None]
        self._paths = [place[0] for place, _ in speaking]
        if said_by(self._request, self._whole(self._paths)) != said_by(self._request, new):
            raise Inseparable
        self._at = [at for _, at in speaking]
        self.hunks = tuple(
            Hunk(what=self._what(path, at), old=old, new=new) for (path, old, new), at in speaking
        )

    def _whole(self, paths: Collection[_Path]) -> dict[str, Any]:
        return merged(self._old, self._new, lambda path, old, new: path in paths)

    def _changed(self, paths: Collection[_Path]) -> int | None:
        """Return the first piece of the answer that reads otherwise with these differences, None for none."""
        said = said_by(self._request, self._whole(paths))
        if kinds_of(said) != kinds_of(self._said):
            raise Inseparable
        return next(
            (at for at, pair in enumerate(zip(self._said, said, strict=True)) if pair[0] != pair[1]), None
        )

    def _what(self, path: _Path, at: int) -> str:
        if self._said[at].kind != "tool_use":
            return self._said[at].kind
        return next((part for part in reversed(path) if isinstance(part, str)), "input")

    def edit(self, kept: Collection[int]) -> Edit:
        """Return another input of the one tool, or another text, where that says it; else the whole reply."""
        whole = self._whole({self._paths[at] for at in kept})
        pieces = {self._at[at] for at in kept}
        said = said_by(self._request, whole)
        # Two of them may still read otherwise together than each alone does.
        if len(pieces) == 1 and kinds_of(said) == kinds_of(self._said):
            (at,) = pieces
            if said[at].kind == "tool_use" and isinstance(loads(said[at].content), Mapping):
                return tool_input_of(said, at)
            if len(said) == 1 and said[at].kind == "text":
                return Text(said[at].content)
        return Answered.of(json.dumps(whole, ensure_ascii=False))

    def words(self, kept: Collection[int]) -> str:
        """Return the parts, with the tool's name where they are all of one call."""
        words = Parts.words(self, kept)
        pieces = {self._at[at] for at in kept}
        names = {self._said[at].name for at in pieces if self._said[at].kind == "tool_use"}
        return f"call {next(iter(names))} with {words}" if len(pieces) == len(names) == 1 else words


class Asked(Parts):
    """Another request: lines of its system prompt, its model, values that are set."""

    def __init__(self, edit: Request, system: str) -> None:
        self._edit = edit
        self._system = system
        self._lines: list[int] = []
        hunks: list[Hunk] = []
        if edit.system is not None:

            def noted(at: int, old: str, new: str) -> bool:
                self._lines.append(at)
                hunks.append(Hunk(what="system", old=old, new=new))
                return False

            spliced(system, edit.system, _lines, noted)
        self._from = {"model": len(hunks), "set": len(hunks) + (edit.model is not None)}
        if edit.model is not None:
            hunks.append(Hunk(what="model", old="", new=edit.model))
        hunks += [Hunk(what=path, old="", new=json.dumps(value)) for path, value in edit.changes]
        self.hunks = tuple(hunks)

    def edit(self, kept: Collection[int]) -> Edit:
        """Return the edit with these lines, and with the model and the values that are among them."""
        lines = {self._lines[at] for at in kept if at < len(self._lines)}
        text = spliced(self._system, self._edit.system or "", _lines, lambda at, old, new: at in lines)
        at = self._from["set"]
        return replace(
            self._edit,
            system=text if lines else None,
            model=self._edit.model if self._from["model"] in kept else None,
            changes=tuple(one for n, one in enumerate(self._edit.changes) if at + n in kept),
        )


def kinds_of(said: Turn) -> list[tuple[str, str | None]]:
    """Return what kinds of things an answer says, in order, and by which names."""
    return [(one.kind, one.name) for one in said]


def tool_input_of(said: Turn, at: int) -> ToolInput:
    """Return the edit by which the piece of an answer is this call of its tool."""
    one = said[at]
    same = [n for n, other in enumerate(said) if other.kind == "tool_use" and other.name == one.name]
    named = f"{one.name}#{same.index(at) + 1}" if len(same) > 1 else one.name
    return ToolInput(loads(one.content), tool=named)


def parts_of(edit: Edit, tape: Tape, step: int) -> Parts | None:
    """Return an edit at a step in its parts, None where it is what was recorded; UsageError for a misfit."""
    bound = edit.bind(tape, step)
    recorded = tape.exchanges[step]
    if bound.response is not None:
        return answer_parts(recorded, bound.response, otherwise=edit)
    if asks_the_same(bound, tape):
        return None
    if isinstance(edit, Request):
        asked = Asked(edit, system_of(recorded.request) or "")
        return asked if asked.hunks else None
    return Whole(edit, Hunk(what=edit.variant, old="", new=""))


def asks_the_same(change: Intervention, tape: Tape) -> bool:
    """Return whether a change of a request or of a tool's result leaves all that was recorded as it was."""
    if change.result is not None:
        return change.call is not None and change.result == tape.tools[change.call].result
    if not change.edits and change.path is None:
        return False  # it changes something else
    asked = tape.exchanges[change.step].request
    path = urlsplit(asked.url).path
    if change.path not in (None, path) or not _equal(asked, with_edits(asked, change.edits)):
        return False
    for later in tape.exchanges[change.step + 1 :]:
        held = None if change.onward is None else change.onward.held(later.request)
        if held is not None and not (
            held.request.url == later.request.url and _equal(later.request, held.request)
        ):
            return False
    return True


def _equal(one: Asking, other: Asking) -> bool:
    return loads(plain_request(one)) == loads(plain_request(other))


def answer_parts(recorded: Exchange, answered: Response, *, otherwise: Edit | None = None) -> Parts | None:
    """Return in its parts what a response says otherwise than the recorded one; None where it says the same.

    Where the two say other kinds of things, it is one part: `otherwise`, or the whole reply.
    """
    old = None if recorded.response is None else whole_reply(recorded.request, recorded.response)
    new = whole_reply(recorded.request, answered)
    if old is None or new is None:
        if otherwise is None:
            return None
        return Whole(otherwise, Hunk(what=otherwise.variant, old="", new=""))
    was, said = (said_by(recorded.request, one) for one in (old, new))
    if was == said:
        return None
    if kinds_of(was) == kinds_of(said):
        with suppress(Inseparable):
            return Answer(recorded, old, new)
    whole = otherwise or (
        Text(said[0].content)
        if [one.kind for one in said] == ["text"]
        else Answered.of(json.dumps(new, ensure_ascii=False))
    )
    return Whole(whole, Hunk(what="the answer", old=_told(was), new=_told(said)))


def _told(said: Turn) -> str:
    return " ".join(f"{one.name}({one.content})" if one.name else one.content for one in said)


def merged(old: Any, new: Any, takes: Callable[[_Path, str, str], bool], path: _Path = ()) -> Any:
    """Return the old JSON with those differences of the new one that are taken."""
    if old == new and type(old) is type(new):
        return old
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, Any] = {}
        for name in dict.fromkeys((*old, *new)):
            if name in old and name in new:
                found[name] = merged(old[name], new[name], takes, (*path, name))
                continue
            told = (json.dumps(one[name], ensure_ascii=False) if name in one else "" for one in (old, new))
            source = new if takes((*path, name), *told) else old
            if name in source:
                found[name] = source[name]
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [merged(a, b, takes, (*path, at)) for at, (a, b) in enumerate(zip(old, new, strict=True))]
    if isinstance(old, str) and isinstance(new, str):
        inside = loads(old), loads(new)
        if all(isinstance(one, Mapping) for one in inside):  # arguments of a tool, as JSON in a string
            return json.dumps(merged(*inside, takes, path), ensure_ascii=False)
        if len(_sentences(old)) > 1:
            return spliced(old, new, _sentences, lambda at, a, b: takes((*path, at), a, b))
    told = (json.dumps(one, ensure_ascii=False) for one in (old, new))
    return new if takes(path, *told) else old


def spliced(old: str, new: str, cut: _Cut, takes: Callable[[int, str, str], bool]) -> str:
    """Return the old text with those differences of the new one, piece by piece, that are taken."""
    a, b = cut(old), cut(new)
    found: list[str] = []
    for kind, i, j, k, m in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
        if kind == "equal":
            found += a[i:j]
        else:  # each stands for its own, and of what is left over each is added or left out
            pairs = zip_longest(a[i:j], b[k:m], fillvalue="")
            for n, (was, is_now) in enumerate(pairs):
                at = i + n if i + n < j else -(k + n) - 1  # what is added has no place in the old text
                found.append(is_now if takes(at, was, is_now) else was)
    return "".join(found)


def _sentences(text: str) -> list[str]:
    return _BETWEEN.split(text)


def _lines(text: str) -> list[str]:
    return _BEFORE_LINE.split(text)
