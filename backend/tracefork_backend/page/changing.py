"""The form for a fork: what was recorded at a step, to be changed, and the edit that it then asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.intervention import TAILS, Tail
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.facts import facts_of
from tracefork_otel.wire.replies import system_of, tool_results

from ..rerun import edits
from ..rerun.edits import FAULTS, Edit
from ..rerun.edits.calls import calls_of
from ..rerun.estimate import Estimate, estimate

KINDS = {
    "resample": "ask the model again",
    "text": "the model answers this text",
    "tool_input": "the model calls its tool with this",
    "tool_result": "the tool gives this result",
    "system": "another system prompt",
    "model": "another model",
    "set": "another value in the request",
    "fault": "the request fails",
    "noop": "nothing: only what follows is new",
}
"""What may be changed, in the order of the form."""
ONWARD = ("system", "model", "set", "tool_result")
"""What may hold in later requests too."""
_USUAL = ("temperature", "max_tokens")
_LONGEST = 90_000
"""Characters of what was recorded that a form brings."""
MOST = 50
"""Forks of one form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A form as it was filled in, or as it is offered."""

    kind: str = "resample"
    value: str = ""
    name: str = ""
    """Which tool's call, or which place of the request."""
    scope: str = "onward"
    times: int = 1
    tail: Tail = "live"
    success_re: str = ""
    failure_re: str = ""
    budget: str = ""

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Filled:
        """Return what a form holds; raise UsageError for a value that is none of its choices."""
        told = {name: form.get(name, "") for name in ("value", "name", "success_re", "failure_re", "budget")}
        kind, scope = form.get("kind", "resample"), form.get("scope", "onward")
        tail: Any = form.get("tail", "live")
        for what, given, allowed in (
            ("kind", kind, tuple(KINDS)),
            ("scope", scope, ("onward", "once")),
            ("tail", tail, TAILS),
        ):
            if given not in allowed:
                raise UsageError(f"{what}={given}: use one of {', '.join(allowed)}")
        times = form.get("times", "1") or "1"
        if not (times.isascii() and times.isdecimal() and len(times) < 4 and 1 <= int(times) <= MOST):
            raise UsageError(f"times={times}: write a number from 1 to {MOST}")
        told["value"] = told["value"].replace("\r\n", "\n")  # as forms send line ends
        return cls(kind=kind, scope=scope, tail=tail, times=int(times), **told)

    @property
    def edit(self) -> Edit:
        """The edit that is asked for; raises UsageError for a value that makes none."""
        scope = "once" if self.scope == "once" else None
        match self.kind:
            case "text":
                return edits.text(self.value)
            case "tool_input":
                return edits.tool_input(_json(self.value, "the tool's input"), tool=self.name or None)
            case "tool_result":
                if not self.name:
                    raise UsageError("say which tool gives the result")
                return edits.tool_result(self.name, _json_or_text(self.value), text=self.value, scope=scope)
            case "system":
                return edits.system(self.value, scope=scope)
            case "model":
                if not self.value.strip():
                    raise UsageError("say which model")
                return edits.model(self.value.strip(), scope=scope)
            case "set":
                if not self.name:
                    raise UsageError("say which place of the request, such as temperature")
                return edits.request(set={self.name: _json_or_text(self.value)}, scope=scope)
            case "fault":
                return edits.fault(self.value.strip() or FAULTS[0])
            case "noop":
                return edits.noop()
            case _:
                return edits.resample()

    @property
    def flags(self) -> list[str]:
        """The edit as the command's flags."""
        once = ["--once"] if self.scope == "once" and self.kind in ONWARD else []
        # To a command `@` means a file.
        value = f"@{self.value}" if self.value.startswith("@") else self.value
        match self.kind:
            case "text" | "system":
                return [f"--{self.kind}={value}", *once]
            case "tool_input":
                return [f"--tool-input={value}", *([f"--tool={self.name}"] if self.name else [])]
            case "tool_result":
                return [f"--tool-result={self.name}={value}", *once]
            case "set":
                return [f"--set={self.name}={self.value}", *once]
            case "model" | "fault":
                return [f"--{self.kind}={self.value.strip() or FAULTS[0]}", *once]
            case _:
                return [f"--{self.kind}"]

    @property
    def budget_usd(self) -> float | None:
        """What the forks may cost together; None where nothing is said; UsageError for what is no amount."""
        text = self.budget.strip().removeprefix("$")
        if not text:
            return None
        with suppress(ValueError):
            if 0 <= (found := float(text)) < float("inf"):
                return found
        raise UsageError(f"budget={self.budget}: write dollars, such as 0.50")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What the form offers at a step."""

    kinds: Mapping[str, str]
    filled: Filled
    names: Sequence[str] = ()
    """The tools, places or faults that may be meant."""
    long: bool = False
    """Whether what was recorded is too long for a form."""
    drops: str = ""
    """The tools that the recorded answer calls, where the new one is a text alone."""


def offered(exchange: Exchange, kind: str) -> Offered:
    """Return the form of that kind of change, prefilled with what was recorded."""
    facts = facts_of(exchange)
    calls = calls_of(exchange)
    system = None
    with suppress(UsageError):
        system = system_of(exchange.request)
    kinds = dict(KINDS)
    if facts is None:
        for name in ("text", "tool_input", "tool_result", "system", "model"):
            del kinds[name]
    if not calls:
        kinds.pop("tool_input", None)
    if not calls and not _results(exchange):
        kinds.pop("tool_result", None)
    if kind not in kinds:
        kind = next(iter(kinds))
    value, name, names = "", "", list[str]()
    match kind:
        case "text" if facts is not None:
            value = facts.text
        case "tool_input":
            names = [f"{one.name}#{one.nth + 1}" if one.nth else one.name for one in calls]
            name, value = names[0], _pretty(calls[0].given)
        case "tool_result":
            names = [f"{one.name}#{one.nth + 1}" if one.nth else one.name for one in calls]
            names += [one for one in _results(exchange) if one not in names]
            name = names[0]
        case "system":
            value = system or ""
        case "model" if facts is not None:
            value = facts.model or ""
        case "set":
            names = _places(exchange)
            name = next(
                (one for one in ("temperature", "max_tokens") if one in names), names[0] if names else ""
            )
            value = _value(exchange, name)
        case "fault":
            value, names = FAULTS[0], list(FAULTS)
        case _:
            pass
    long = len(value) > _LONGEST
    if long:
        value = ""
    drops = ", ".join(dict.fromkeys(one.name for one in calls)) if kind == "text" else ""
    return Offered(
        kinds=kinds, filled=Filled(kind=kind, value=value, name=name), names=names, drops=drops, long=long
    )


def with_result(found: Offered, following: Exchange) -> Offered:
    """Return the form of a tool's result, prefilled with what the next request says it gave."""
    name = found.filled.name.partition("#")[0]
    with suppress(UsageError):
        said = [one.text for one in tool_results(following.request) if one.name == name]
        if said:
            return replace(found, filled=replace(found.filled, value=said[-1]))
    return found


def planned(tape: Tape, step: int, filled: Filled) -> Estimate:
    """Return what one fork is likely to take; raise UsageError where the edit does not fit the step."""
    return estimate(tape, filled.edit.bind(tape, step, tail=filled.tail))


def _results(exchange: Exchange) -> list[str]:
    with suppress(UsageError):
        return list(dict.fromkeys(str(one.name) for one in tool_results(exchange.request) if one.name))
    return []


def _places(exchange: Exchange) -> list[str]:
    """Return the request's own plain values by their names."""
    body = _body(exchange)
    return [name for name, value in body.items() if not isinstance(value, list | dict) and name != "model"]


def _value(exchange: Exchange, name: str) -> str:
    found = _body(exchange).get(name, "")
    return found if isinstance(found, str) else json.dumps(found)


def _body(exchange: Exchange) -> dict[str, object]:
    with suppress(ValueError, RecursionError):
        found = json.loads(plain_request(exchange.request))
        if isinstance(found, dict):
            return found
    return {}


def _json(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is to be JSON: {error}") from None


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
