"""Another request: what it says, its system prompt, its model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlsplit

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.wire.paths import parse_path

from ...flag import Flag, assignment, text_value
from ...spelling import short
from .edit import Edit, Given

if TYPE_CHECKING:
    from tracefork_otel import exchange
    from tracefork_otel.tape.tape import Tape


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Edit):
    """The agent's request goes out for real with these JSON paths, this system prompt, this model."""

    kind: ClassVar[Kind] = "request"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("set", "The request goes out with this value.", "PATH=VALUE"),
        Flag("system", "… with this system prompt.", "TEXT|@FILE"),
        Flag("model", "… for this model.", "MODEL"),
    )
    answers: ClassVar[bool] = False

    changes: tuple[tuple[str, object], ...] = ()
    """(JSON path, JSON value) pairs, in their order."""
    system: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
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
        cls, *, set: Mapping[str, object] | None = None, system: str | None = None, model: str | None = None
    ) -> Request:
        """Return the edit with these values by their JSON paths."""
        return cls(changes=tuple((set or {}).items()), system=system, model=model)

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return the product of the values of each path, of the system prompts and of the models."""
        by_path: dict[object, list[tuple[str, object]]] = {}
        for one in given["set"]:
            path, value = assignment(one, "--set", "temperature=0 or messages[0].content=Hi")
            by_path.setdefault(parse_path(path), []).append((path, value))
        found = [
            cls(changes=changes, system=system, model=model)
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
        parts = [f"{path}={_spelled(value)}" for path, value in self.changes]
        parts += [system] if self.system is not None else []
        parts += [f"model={self.model}"] if self.model is not None else []
        return " ".join([self.kind, *parts])

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the edits of the request, each path proven to exist in the recorded one, in their order."""
        from tracefork_otel.wire.json_edits import apply_edits
        from tracefork_otel.wire.replies import system_edit

        asked, edits = tape.exchanges[step].request, list(self.changes)
        asked = replace(asked, body=apply_edits(asked.body, edits))
        if self.system is not None:
            found = system_edit(asked, self.system)
            edits.append(found)
            asked = replace(asked, body=apply_edits(asked.body, [found]))
        path = None if self.model is None else _model_path(asked, self.model)
        if self.model is not None and path is None:
            edits.append(("model", self.model))
        return self.at(step, edits=tuple(edits), path=path)


def _model_path(asked: exchange.Request, model: str) -> str | None:
    """Return the path that names another model, None where the body is what names it."""
    from tracefork_otel.wire.registry import model_in_path, recognise

    if recognise(asked.method, asked.url, asked.body) is None:
        raise UsageError(
            f"{asked.method} {asked.url} is no model call of a known provider, so it names no model"
        )
    named = model_in_path(asked.url)
    if named is None:
        return None
    path = urlsplit(asked.url).path
    spellings = "|".join(map(re.escape, (named, quote(named, safe=""), quote(named, safe=":"))))
    place = re.search(rf"/(?:models|tunedModels|endpoints|deployments|model)/({spellings})(?=[/:%])", path)
    if place is None:
        raise UsageError(
            f"the URL names the model ({named}) in a way that --model cannot change: change it in the agent"
        )
    spelled = quote(model.rpartition("/")[2], safe="@.-_~")
    return f"{path[: place.start(1)]}{spelled}{path[place.end(1) :]}"


def _spelled(value: object) -> str:
    """Return a value as labels show it."""
    return short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr))
