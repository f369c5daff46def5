"""Requests rewritten: which are of one kind, and what gives one another prompt, model or result of a tool."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from ..errors import UsageError
from .codings import plain_request
from .counted_paths import no_conversation
from .json_edits import apply_edits
from .registry import model_in_path, recognise
from .replies import system_edit, tool_results

if TYPE_CHECKING:
    from ..exchange import Request
    from .writing import ToolResult

What: TypeAlias = Literal["set", "system", "model", "sections", "tools"]
Change: TypeAlias = tuple[str, object]
"""A JSON path and the JSON value that it gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that is changed in a request."""

    what: What
    label: str
    """What tables and spans call it: `model=…`."""
    value: object
    """What it is to be; of sections and tools, which ones are taken out."""
    path: str = ""
    """The JSON path that is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A tool's result that requests carry, by what it is found in each, and what it is to be."""

    tool: str
    call_id: str | None
    at: int
    """Its place among the request's results of that call's id and tool, from 0."""
    was: str
    """What the agent's own says, as text."""
    value: object
    text: str
    """The value for a tool that gave a text."""


def kin_of(request: Request) -> str:
    """Return what requests of one kind have in common: whose model they ask, or else where they go."""
    parts = urlsplit(request.url)
    call = recognise(request.method, request.url, request.body)
    if call is None:
        return f"{request.method} {parts.netloc}{parts.path}"
    return f"{call.provider} {call.operation} at {parts.netloc}"


def uncoded(request: Request) -> Request:
    """Return the request with its body below its content codings."""
    headers = tuple(line for line in request.headers if line[0].lower() != "content-encoding")
    return replace(request, headers=headers, body=plain_request(request))


def part_edits(asked: Request, part: Part) -> tuple[tuple[Change, ...], str | None]:
    """Return the edits of an uncoded request's body that make this part of a change, or its new path.

    Raises UsageError where the request has no place for it.
    """
    if part.what == "set":
        return ((part.path, part.value),), None
    if part.what == "system":
        return (system_edit(asked, str(part.value)),), None
    if part.what in ("sections", "tools"):
        from .removing import taken_out  # what few changes do

        return tuple(taken_out(asked, part.what, part.value)), None
    path = model_path(asked, str(part.value))
    return ((), path) if path is not None else ((("model", part.value),), None)


def rewritten(asked: Request, parts: tuple[Part, ...]) -> tuple[tuple[Change, ...], str | None]:
    """Return the edits of the request's body that make all these parts, in their order, and its new path."""
    plain = uncoded(asked)
    edits: list[Change] = []
    path: str | None = None
    for part in parts:
        made, other = part_edits(plain, part)
        path = other or path
        plain = replace(plain, body=apply_edits(plain.body, made))
        edits += made
    return tuple(edits), path


def model_path(asked: Request, model: str) -> str | None:
    """Return the path that names another model, None where the body is what names it."""
    if recognise(asked.method, asked.url, asked.body) is None:
        raise UsageError(no_conversation(asked.method, asked.url, plain_request(asked)))
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


def alike(results: list[ToolResult], one: ToolResult) -> list[ToolResult]:
    """Return the results that go by the same id and tool; servers repeat ids, and some give none."""
    found = [other for other in results if other.name == one.name]
    own = one.call_id if one.call_id != one.name else None
    return found if own is None else [other for other in found if other.call_id == own]


def carried(found: ToolResult, among: list[ToolResult], tool: str, value: object, text: str) -> Carried:
    """Return the result of a request by what later requests that carry it have."""
    places = alike(among, found)
    own = found.call_id if found.call_id != found.name else None
    at = [one.path for one in places].index(found.path)
    return Carried(tool=tool, call_id=own, at=at, was=found.text, value=value, text=text)


_UNIQUE = 12
"""Letters of an id that a provider made; shorter ones, such as call_0, some servers give again and again."""


def result_edits(request: Request, wanted: Carried) -> tuple[Change, ...]:
    """Return the edits that give the request that result; none where it does not carry it.

    Where several go by its id, or none has one, it is the one that says what it said; never a guess.
    """
    results = [one for one in tool_results(request) if one.name in (None, wanted.tool)]
    if wanted.call_id is not None:
        results = [one for one in results if one.call_id == wanted.call_id]
    same = [one for one in results if one.text == wanted.was]
    if wanted.at < len(results) and results[wanted.at].text == wanted.was:
        found = results[wanted.at]
    elif len(same) == 1:
        found = same[0]
    elif wanted.call_id is not None and len(wanted.call_id) >= _UNIQUE and len(results) == 1:
        found = results[0]
    else:
        return ()
    return saying(found, wanted.value, wanted.text)


def saying(found: ToolResult, value: object, text: str) -> tuple[Change, ...]:
    """Return the edits by which a result says that value, or that text, and is no error."""
    return (found.path, found.saying(value, text)), *found.undone
