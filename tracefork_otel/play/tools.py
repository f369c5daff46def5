"""The player of a tape's tool calls: without I/O and patching, as the player of exchanges."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..wire.paths import format_path, shown, walk
from .claims import Claims, Waiting, claim_to

if TYPE_CHECKING:
    from ..tape.reads import ToolCall
    from .intervention import Intervention
    from .match import Explanation

ToolsMode: TypeAlias = Literal["recorded", "live", "refuse"]
TOOLS_MODES: tuple[ToolsMode, ...] = get_args(ToolsMode)

GRACE_S = 1.0
"""A call that was cancelled, of a tool or a model, hangs for as long as it did in the recording and this much
more, so that whatever cancelled it then (a timeout, a sibling's failure) does it again."""

Stage: TypeAlias = Literal["replay", "prefix", "tail"]
Why: TypeAlias = Literal[
    "live",  # asked for
    "text",  # its recorded result is no JSON
    "exchanges",  # it makes requests, which are served
    "change",  # a fork changes the result of a tool that it calls
    "tail",  # a fork after its change, and nothing is recorded
]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A recorded result for the call; its function does not run."""

    call: ToolCall
    loosely: bool = False
    """Whether arguments that are no JSON were left out of the comparison."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A result that a fork puts in place of the call's; its function does not run."""

    result: str
    """JSON."""
    label: str
    call: ToolCall | None


@dataclass(frozen=True, slots=True)
class Runs:
    """Leave for the function to run for real."""

    why: Why
    call: ToolCall | None = None
    """The recorded call that it repeats, if one is known."""
    loosely: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """No answer: nothing is recorded for the call, and its function may not run."""

    explanation: Explanation
    phase: Literal["prefix", "tail"] | None
    """None in a replay."""


ToolAnswer: TypeAlias = Recalled | Replaced | Runs | Refused


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call as it is looked for."""

    name: str
    arguments: str
    by_text: tuple[str, ...]
    key: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The place at which a replay or a fork stands, as far as its tools need to know."""

    stage: Stage
    step: int
    """The last step that was asked for, -1 before the first."""
    offline: bool = False
    """Whether this is a tail that may do nothing for real."""
    changes: tuple[Intervention, ...] = ()
    """Changes of a fork that are due."""


def mode_of(asked: ToolsMode | None, calls: Sequence[ToolCall]) -> ToolsMode:
    """Return the mode of a tape's tools: the one asked for, else `recorded` where there is a recording."""
    return asked or ("recorded" if calls else "live")


class ToolPlayer:
    """A tape's recorded results, each given once to the first call of that name and arguments, any thread."""

    def __init__(
        self,
        calls: Sequence[ToolCall],
        *,
        mode: ToolsMode | None,
        placement: Callable[[], Placement],
        leave: Callable[[], None] = lambda: None,
        claim: Claims | None = None,
    ) -> None:
        """Load the calls; `placement` says where the player stands, `leave` hears of a miss in a prefix."""
        self.calls = tuple(calls)
        self.mode: ToolsMode = mode_of(mode, calls)
        self._placement = placement
        self._leave = leave
        self._claim = Claims() if claim is None else claim
        self._lock = Lock()
        self._replaced: set[int] = set()
        self._waiting = Waiting("tool", self._claim)
        self._used = self._waiting.used
        self._within: dict[str, list[int]] = {}
        for at, call in enumerate(self.calls):
            key = (call.name, call.arguments, call.by_text)
            self._waiting.add(key_of(*key), at)
            if call.by_text:
                self._waiting.add(loose_key_of(*key), at)
            if call.inside is not None:
                self._within.setdefault(call.inside, []).append(at)

    def answer(
        self, name: str, arguments: str, by_text: tuple[str, ...] = (), *, live: bool = False
    ) -> ToolAnswer:
        """Return what this call gets, and use that up, also where the function is to run anyway (`live`)."""
        placement = self._placement()
        asked = _Asked(name, arguments, by_text, key_of(name, arguments, by_text))
        with self._lock:
            replaced = self._replacement(asked, placement.changes)
            if replaced is not None:
                return replaced
            if self.mode == "live":
                return Runs("live")
            found = self._take(asked, placement.stage)
        if found is None:
            if live and self.mode == "recorded":
                return Runs("live")
            if placement.stage == "tail" and self.mode == "recorded" and not placement.offline:
                return Runs("tail")
            return self._refused(asked, placement)
        at, loosely = found
        call = self.calls[at]
        if live or call.exchanges:
            return Runs("live" if live else "exchanges", call, loosely)
        if self._holds(call, placement.changes):
            return Runs("change", call, loosely)
        if call.form != "text":
            with self._lock:
                self._use_within(call)
            return Recalled(call, loosely)
        if self.mode == "refuse" or placement.offline:
            return self._refused(asked, placement, call)
        return Runs("text", call, loosely)

    def _refused(self, asked: _Asked, placement: Placement, found: ToolCall | None = None) -> Refused:
        phase = None if placement.stage == "replay" else placement.stage
        if phase == "prefix":
            self._leave()
        return Refused(self._explain(asked, placement, found), phase)

    def _take(self, asked: _Asked, stage: Stage) -> tuple[int, bool] | None:
        """Take the first unused recorded call that this one repeats, and say whether only loosely so."""
        at = self._waiting.take(asked.key)
        if at is not None:
            return at, False
        # After a fork's change other values are to be expected, so only equal ones are the same call.
        if asked.by_text and stage != "tail":
            at = self._waiting.take(loose_key_of(asked.name, asked.arguments, asked.by_text))
        return None if at is None else (at, True)

    def _holds(self, call: ToolCall, changes: Sequence[Intervention]) -> bool:
        """Return whether a change that is due concerns a call that this call makes."""
        meant = {self.calls[change.call].inside for change in changes if change.call is not None}
        while meant - {None}:
            if call.span_id in meant:
                return True
            meant = {outer.inside for outer in self.calls if outer.span_id in meant}
        return False

    def _use_within(self, call: ToolCall) -> None:
        """Use up the calls that a served call made: its function does not run, so nobody asks for them."""
        for inner in self._within.get(call.span_id, ()):
            self._used.add(inner)
            self._use_within(self.calls[inner])

    def _replacement(self, asked: _Asked, changes: Sequence[Intervention]) -> Replaced | None:
        """Return the result that a change puts in place of this call's, if it is the call that is meant."""
        for number, change in enumerate(changes):
            if number in self._replaced or change.tool != asked.name or change.result is None:
                continue
            meant = None if change.call is None else self.calls[change.call]
            # Another branch of the agent may call the same tool: it goes on as recorded.
            same = meant is not None and asked.key == _key(meant)
            if not same and self._waiting.has(asked.key):
                continue
            self._replaced.add(number)
            if not self._claim(claim_to("change", number)):
                continue
            if change.call is not None:
                self._used.add(change.call)
                self._claim(claim_to("tool", change.call))
            return Replaced(change.result, change.label, meant)
        return None

    def _explain(self, asked: _Asked, placement: Placement, found: ToolCall | None) -> Explanation:
        """Explain why nothing answers the call."""
        from .match import Explanation

        name, arguments = asked.name, asked.arguments
        others = (call for at, call in enumerate(self.calls) if call.name == name and at not in self._used)
        path, recorded, got, differences = _difference(found or next(others, None), arguments)
        return Explanation(
            step=max(0, placement.step),
            path=path,
            recorded=recorded,
            got=got,
            nearest=None,
            cause="tool_result",
            differences=differences,
            request=f"tool {name}({_brief(arguments)})",
            fingerprint=asked.key,
            advice=_ADVICE["text" if found else "offline" if placement.offline else self.mode],
        )


_ADVICE = {
    "text": "its recorded result is no JSON, so only its function can give it: use --tools recorded or live",
    "offline": "no result of this call is recorded, and the tail is offline: use the tail live or recorded",
    "refuse": "no result of this call is recorded, and --tools refuse lets no function run",
    "recorded": "no result of this call is recorded: record anew if it is meant, or let it run: --tools live",
}


def _difference(nearest: ToolCall | None, arguments: str) -> tuple[str, str | None, str | None, int]:
    """Return the first argument that differs from the nearest call, both values, and how many differ."""
    from .cause import shorten

    if nearest is None or nearest.arguments == arguments:
        return "", None, None, 0
    differing: list[tuple[tuple[str | int, ...], object, object]] = []
    walk(json.loads(nearest.arguments), json.loads(arguments), (), differing)
    if not differing:
        return "", None, None, 0
    path, left, right = differing[0]
    return format_path(path), *shorten(shown(left), shown(right)), len(differing)


_SHOWN = 120
"""Characters of a call's arguments in a message."""


def _brief(arguments: str) -> str:
    return arguments if len(arguments) <= _SHOWN else f"{arguments[: _SHOWN - 1]}…"


def _key(call: ToolCall) -> str:
    return key_of(call.name, call.arguments, call.by_text)


def key_of(name: str, arguments: str, by_text: tuple[str, ...] = ()) -> str:
    """Return a digest that two calls share exactly if their tool and arguments are the same."""
    return _digest(name, json.loads(arguments), sorted(by_text))


def loose_key_of(name: str, arguments: str, by_text: tuple[str, ...]) -> str:
    """Return a digest of the call without its arguments that are no JSON, which is no `key_of` any call."""
    kept = {key: value for key, value in json.loads(arguments).items() if key not in by_text}
    return _digest(name, kept, sorted(by_text), "loosely")


def _digest(*parts: object) -> str:
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
