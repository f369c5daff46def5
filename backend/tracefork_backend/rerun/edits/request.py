"""Another request: what it says, its system prompt, its model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.play.onward import SCOPES, Onward, Scope
from tracefork_otel.wire.paths import parse_path
from tracefork_otel.wire.rewriting import Part

from ...flag import Flag, assignment, text_value
from ...spelling import short
from .edit import ONCE, Edit, Given, scoped
from .models import check_model

if TYPE_CHECKING:
    from tracefork_otel import exchange
    from tracefork_otel.tape.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Edit):
    """The agent's request goes out for real with these JSON paths, this system prompt, this model.

    So does each later request of the kind that has the path, unless the scope is `once`.
    """

    kind: ClassVar[Kind] = "request"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("set", "The request goes out with this value.", "PATH=VALUE"),
        Flag("system", "… with this system prompt.", "TEXT|@FILE"),
        Flag("model", "… for this model.", "MODEL"),
        ONCE,
    )
    answers: ClassVar[bool] = False

    changes: tuple[tuple[str, object], ...] = ()
    """(JSON path, JSON value) pairs, in their order."""
    system: str | None = None
    model: str | None = None
    scope: Scope | None = None
    """How far it holds; None: onward in a fork, at its step in an experiment on steps."""

    def __post_init__(self) -> None:
        if self.scope not in (None, *SCOPES):
            raise UsageError(f"{self.scope!r} is no scope: use one of {', '.join(SCOPES)}")
        if not self.changes and self.system is None and self.model is None:
            raise UsageError("a request edit needs set, system or model; for the same request use resample()")
        paths = [parse_path(path) for path, _ in self.changes]
        twice = next((path for n, (path, _) in enumerate(self.changes) if paths[n] in paths[:n]), None)
        if twice is not None:
            raise UsageError(f"{twice} is set twice in one edit: give one value, or make two variants")
        if self.model is not None and ("model",) in paths:
            raise UsageError("the model is set twice, by --set and by --model: give one of them")

    @classmethod
    def setting(
        cls,
        *,
        set: Mapping[str, object] | None = None,
        system: str | None = None,
        model: str | None = None,
        scope: Scope | None = None,
    ) -> Request:
        """Return the edit with these values by their JSON paths."""
        return cls(changes=tuple((set or {}).items()), system=system, model=model, scope=scope)

    @classmethod
    def for_model(cls, model: str, *, scope: Scope | None = None) -> Request:
        """Return the edit that asks another model."""
        return cls(model=model, scope=scope)

    @classmethod
    def with_system(cls, system: str, *, scope: Scope | None = None) -> Request:
        """Return the edit that gives another system prompt."""
        return cls(system=system, scope=scope)

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return the product of the values of each path, of the system prompts and of the models."""
        by_path: dict[object, list[tuple[str, object]]] = {}
        for one in given["set"]:
            path, value = assignment(one, "--set", "temperature=0 or messages[0].content=Hi")
            by_path.setdefault(parse_path(path), []).append((path, value))
        found = [
            cls(changes=changes, system=system, model=model, scope=scoped(given))
            for changes in product(*by_path.values())
            for system in [text_value(one, "--system") for one in given["system"]] or [None]
            for model in given["model"] or [None]
        ]
        twice = next((edit for n, edit in enumerate(found) if edit in found[:n]), None)
        if twice is not None:
            raise UsageError(f"{twice.label}: this variant is asked for twice; use --times for more trials")
        return found

    @property
    def label(self) -> str:
        """The kind, and what is set: of a system prompt only that it is."""
        return self._named("system")

    @property
    def variant(self) -> str:
        """The label with the system prompt."""
        return self._named(f"system={short(self.system or '')}")

    def _named(self, system: str) -> str:
        named = [system if part.what == "system" else part.label for part in self.parts()]
        return " ".join([self.kind, *named])

    def parts(self) -> tuple[Part, ...]:
        """Return what is changed, part by part, in the order in which a request gets it."""
        found = [
            Part(what="set", label=f"{path}={spelled(value)}", path=path, value=value)
            for path, value in self.changes
        ]
        if self.system is not None:
            found.append(Part(what="system", label="system", value=self.system))
        if self.model is not None:
            found.append(Part(what="model", label=f"model={self.model}", value=self.model))
        return tuple(found)

    def at_one_step(self) -> Edit:
        """Return the edit of the step alone; UsageError where it was asked to hold onward."""
        if self.scope == "onward":
            raise UsageError(
                f"{self.label} holds in every later request too, so it would blame a step for what it "
                "changes in others: give scope='once'"
            )
        return replace(self, scope="once")

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the edits of the request, each path proven to exist in the recorded one, in their order."""
        from tracefork_otel.wire.rewriting import kin_of, rewritten

        asked, parts = tape.exchanges[step].request, self.parts()
        edits, path = rewritten(asked, parts)
        if self.model is not None:
            check_model(tape, step, self.model)
        scope: Scope = self.scope or "onward"
        onward = None
        if scope == "onward":
            self._check_onward(asked)
            onward = Onward(kin=kin_of(asked), parts=parts, label=self.kind)
        return self.at(step, edits=edits, path=path, scope=scope, onward=onward)

    def _check_onward(self, asked: exchange.Request) -> None:
        """Raise UsageError where each later request would be the same as this one."""
        from tracefork_otel.wire.replies import turns_of

        turns = turns_of(asked)
        for path, _ in self.changes:
            if turns is not None and parse_path(path) == (turns,):
                raise UsageError(
                    f"{path} is the whole conversation, which each later request would then repeat: "
                    "hold it to the step (--once), or set a part of it"
                )


def spelled(value: object) -> str:
    """Return a value as labels show it."""
    return short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr))
