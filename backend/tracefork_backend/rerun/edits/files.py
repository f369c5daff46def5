"""Edits by the steps at which they are made, as a file of JSON has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tracefork_otel import shapes
from tracefork_otel.errors import UsageError

from .answer import Response, Text, ToolInput
from .edit import Edit
from .request import Request
from .tool_result import ToolResult

_STEP = re.compile(r"[0-9]{1,9}")


def read_edits(file: str | Path, flag: str) -> dict[int, Edit]:
    """Return the edits of a JSON file by their steps; UsageError names flag and file, and what is wrong."""
    path = Path(file)
    try:
        found, told = shapes.parsed_pairs(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{flag}: {path} is not JSON ({error})") from None
    if not isinstance(found, dict) or not found or not all(map(_STEP.fullmatch, found)):
        raise UsageError(
            f'{flag}: {path} must be like {{"3": "the better answer", "4": {{"tool_input": …}}}}'
        )
    edits: dict[int, Edit] = {}
    for step, value in told:
        if int(step) in edits:
            raise UsageError(f"{flag}: {path} has step {int(step)} twice: a file gives one edit a step")
        try:
            edits[int(step)] = edit_of(value)
        except UsageError as error:
            raise UsageError(f"{flag}: {path}: step {int(step)}: {error}") from None
    return edits


def write_edits(file: str | Path, edits: Mapping[int, Edit]) -> None:
    """Write the edits by their steps; UsageError where the file cannot be written."""
    told = {str(step): spelled_edit(edit) for step, edit in edits.items()}
    try:
        Path(file).write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from None


def edit_of(value: object) -> Edit:
    """Return the edit that a value of such a file is."""
    if isinstance(value, str):
        return Text(value)
    for name, (allowed, make) in _KINDS.items():
        if isinstance(value, Mapping) and name in value:
            if other := next((key for key in value if key not in allowed), None):
                raise UsageError(f"{other!r} says nothing beside {name!r}: {' and '.join(allowed)} do")
            return make(value)
    *names, last = (f'{{"{name}": …}}' for name in _KINDS)
    raise UsageError(f"{value!r} is neither a text nor {', '.join(names)} or {last}")


def spelled_edit(edit: Edit) -> Any:
    """Return the edit as such a file has it."""
    match edit:
        case Text():
            return edit.text
        case ToolInput():
            return {"tool_input": edit.value} | ({"tool": edit.tool} if edit.tool else {})
        case Response():
            return {"response": json.loads(edit.body)}
        case Request():
            told = {"system": edit.system, "model": edit.model, "set": dict(edit.changes) or None}
            told["scope"] = edit.scope
            return {name: one for name, one in told.items() if one is not None}
        case ToolResult():
            told = {"tool_result": {edit.tool: edit.value}, "scope": edit.scope}
            return {name: one for name, one in told.items() if one is not None}
        case _:
            raise UsageError(f"{edit.label} has no place in a file of edits")


def _text(value: Mapping[str, Any], name: str) -> str | None:
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise UsageError(f"{name} is to be a text, not {found!r}")
    return found


def _tool_input(value: Mapping[str, Any]) -> Edit:
    return ToolInput(value["tool_input"], tool=_text(value, "tool"))


def _response(value: Mapping[str, Any]) -> Edit:
    body = value["response"]
    return Response.of(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))


def _request(value: Mapping[str, Any]) -> Edit:
    changes = value.get("set", {})
    if not isinstance(changes, Mapping):
        raise UsageError(f"set is to be an object of values by JSON paths, not {changes!r}")
    scope: Any = _text(value, "scope")
    return Request(
        changes=tuple(changes.items()),
        system=_text(value, "system"),
        model=_text(value, "model"),
        scope=scope,
    )


def _tool_result(value: Mapping[str, Any]) -> Edit:
    results = value["tool_result"]
    if not isinstance(results, Mapping) or len(results) != 1:
        raise UsageError(f"tool_result is to be one value by the tool's name, not {results!r}")
    scope: Any = _text(value, "scope")
    ((name, result),) = results.items()
    return ToolResult.giving(str(name), result, scope=scope)


_ASKED = ("system", "model", "set", "scope")
_KINDS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Edit]]] = {
    "tool_input": (("tool_input", "tool"), _tool_input),
    "response": (("response",), _response),
    "tool_result": (("tool_result", "scope"), _tool_result),
    **dict.fromkeys(_ASKED[:3], (_ASKED, _request)),
}
"""By the member that tells an edit from others: what may stand beside it, and what makes the edit."""
