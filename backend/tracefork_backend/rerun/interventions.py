"""What a person wants changed at a step, checked against the tape before anything runs.

An `Edit` says what to change, from Python or by the flags of a command; `build` binds it to a step of a tape,
which gives the `Intervention` that the agent's process serves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import TAILS, Intervention
from tracefork_otel.wire import facts as providers
from tracefork_otel.wire.json_edits import apply_edits
from tracefork_otel.wire.paths import parse_path
from tracefork_otel.wire.registry import model_in_path, recognise

from . import edits
from .edits import FAULTS, Edit, fault, noop, request, resample, response, text, tool_input, tool_result
from .tool_results import bind as bind_tool_result

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange, Request, Response
    from tracefork_otel.play.intervention import Kind, Tail
    from tracefork_otel.tape.tape import Tape

__all__ = [
    "FAULTS",
    "Edit",
    "build",
    "fault",
    "from_flags",
    "noop",
    "request",
    "resample",
    "response",
    "text",
    "tool_input",
    "tool_result",
]

_FLAGS: Mapping[Kind, str] = {
    "text": "--text",
    "response": "--response",
    "tool_input": "--tool-input",
    "tool_result": "--tool-result",
    "request": "--set, --system, --model",
    "fault": "--fault",
    "resample": "--resample",
    "noop": "--noop",
}


def from_flags(
    *,
    text: str | None = None,
    response_file: str | Path | None = None,
    tool_input: str | None = None,
    tool: str | None = None,
    set: Iterable[str] = (),
    system: str | None = None,
    model: str | None = None,
    fault: str | int | None = None,
    resample: bool = False,
    noop: bool = False,
    tool_result: str | None = None,
) -> Edit:
    """The one edit that the values of command-line flags ask for; `@file` reads a value, `@@` is a plain `@`.

    Raises UsageError unless they ask for exactly one.
    """
    settings = tuple(set)
    asked: dict[Kind, bool] = {
        "text": text is not None,
        "response": response_file is not None,
        "tool_input": tool_input is not None,
        "tool_result": tool_result is not None,
        "request": bool(settings) or system is not None or model is not None,
        "fault": fault is not None,
        "resample": resample,
        "noop": noop,
    }
    kinds: list[Kind] = [kind for kind, wanted in asked.items() if wanted]
    if len(kinds) != 1:
        flags = ", ".join(_FLAGS[kind] for kind in (kinds or _FLAGS))
        raise UsageError(f"one fork changes one thing: choose one of {flags}")
    if tool is not None and kinds != ["tool_input"]:
        raise UsageError("--tool names the call that --tool-input changes; without it, it says nothing")
    kind = kinds[0]
    if kind == "text":
        return edits.text(flag_value(str(text), "--text"))
    if kind == "response":
        return edits.response(_read(Path(response_file or ""), "--response"))
    if kind == "tool_input":
        return edits.tool_input(_json(flag_value(str(tool_input), "--tool-input"), "--tool-input"), tool=tool)
    if kind == "tool_result":
        return _tool_result(str(tool_result))
    if kind == "request":
        prompt = None if system is None else flag_value(system, "--system")
        return edits.of_changes(tuple(map(_assignment, settings)), system=prompt, model=model)
    if kind == "fault":
        return edits.fault(str(fault))
    return edits.resample() if kind == "resample" else edits.noop()


def build(
    tape: Tape, step: int, *, edit: Edit | None = None, tail: Tail = "live", **flags: Any
) -> Intervention:
    """The intervention that this edit (or these values of flags, see `from_flags`) is at a step of the tape.

    Raises UsageError, naming the step, for everything that would make the fork fail later.
    """
    if edit is None:
        edit = from_flags(**flags)
    elif any(value not in (None, False, ()) for value in flags.values()):
        raise UsageError("give either an edit or flags")
    if tail not in TAILS:
        raise UsageError(f"{tail!r} is no tail: use one of {', '.join(TAILS)}")
    if isinstance(step, bool) or not 0 <= step < tape.steps:
        has = f"its steps are 0..{tape.steps - 1}" if tape.steps else "it has no steps"
        raise UsageError(f"run {tape.run_id[:8]} has no step {step}: {has}")
    exchange = tape.exchanges[step]
    if exchange.damage is not None:
        raise UsageError(f"step {step} is damaged ({exchange.damage}): choose another run")
    try:
        if edit.kind == "tool_result":
            bound = bind_tool_result(edit, tape, step)
        else:
            bound = replace(_BIND[edit.kind](edit, exchange), step=step)
    except UsageError as error:
        raise UsageError(f"step {step}: {error}") from None
    return replace(bound, tail=tail, parent_run_id=tape.run_id)


def _bind_reply(edit: Edit, exchange: Exchange) -> Intervention:
    """Another answer: a text, a whole response, or the recorded one with another tool input."""
    asked, recorded = exchange.request, exchange.response
    if edit.kind == "text":
        answer = providers.encode_reply(asked, recorded, text=edit.text)
    elif edit.kind == "response":
        answer = providers.encode_body(asked, recorded, edit.body or b"")
    else:
        if exchange.outcome not in ("complete", "closed"):
            raise UsageError(f"{_ending(exchange)}, so there is no whole tool call to change: use --text")
        answer = providers.encode_reply(asked, recorded, tool_input=edit.value, tool=edit.tool)
        if not _ended(exchange):
            raise UsageError(f"{_ending(exchange)}, so its tool call may not be either: use --text")
    return _unplaced(edit, response=answer)


def _bind_request(edit: Edit, exchange: Exchange) -> Intervention:
    """Another request: each path is proven to exist in the recorded one, in the order of the edits."""
    asked, edits = exchange.request, list(edit.changes)
    asked = replace(asked, body=apply_edits(asked.body, edits))
    if edit.system is not None:
        found = providers.system_edit(asked, edit.system)
        edits.append(found)
        asked = replace(asked, body=apply_edits(asked.body, [found]))
    path = None
    if edit.model is not None:
        path = _model_path(asked, edit.model)
        if path is None:
            edits.append(("model", edit.model))
    return _unplaced(edit, edits=tuple(edits), path=path)


def _bind_fault(edit: Edit, exchange: Exchange) -> Intervention:
    """An error: the provider's own answer of that status, or a break of the connection."""
    if edit.fault == "timeout":
        return _unplaced(edit, error="timeout")
    if edit.fault == "disconnect":
        return _unplaced(edit, error="disconnect", response=_first_half(exchange.response))
    return _unplaced(edit, response=providers.encode_error(exchange.request, int(edit.fault or 500)))


def _bind_same(edit: Edit, exchange: Exchange) -> Intervention:
    """The same request for real, or the same response from the tape."""
    if edit.kind == "noop" and exchange.outcome == "in_flight":
        raise UsageError(f"{_ending(exchange)}, so there is nothing to serve: use --resample or --text")
    return _unplaced(edit)


_BIND: Mapping[Kind, Callable[[Edit, Exchange], Intervention]] = {
    "text": _bind_reply,
    "response": _bind_reply,
    "tool_input": _bind_reply,
    "request": _bind_request,
    "fault": _bind_fault,
    "resample": _bind_same,
    "noop": _bind_same,
}


def _unplaced(edit: Edit, **members: Any) -> Intervention:
    """The intervention of that edit, whose step `build` fills in."""
    return Intervention(kind=edit.kind, step=0, label=edit.label, **members)


def _ended(exchange: Exchange) -> bool:
    """Whether the recorded reply came to the end that its provider gives a reply."""
    asked, recorded = exchange.request, exchange.response
    body = None if recorded is None else providers.recorded_body(recorded)
    kind = None if recorded is None else recorded.header("content-type")
    facts = providers.facts(asked.method, asked.url, request=asked.body, response=body, content_type=kind)
    return facts is not None and facts.finish_reason is not None


def _ending(exchange: Exchange) -> str:
    """How the recorded exchange ended, in words."""
    if exchange.response is None:
        return f"no response was recorded ({exchange.outcome})"
    return f"the recorded response is not whole ({exchange.outcome})"


def _model_path(asked: Request, model: str) -> str | None:
    """The path that names another model, None where the body is what names it."""
    if recognise(asked.method, asked.url, asked.body) is None:
        raise UsageError(
            f"{asked.method} {asked.url} is no model call of a known provider, so it names no model"
        )
    named = model_in_path(asked.url)
    if named is None:
        return None
    path = urlsplit(asked.url).path
    spellings = "|".join(map(re.escape, (named, quote(named, safe=""))))
    place = re.search(rf"/(?:models|tunedModels|endpoints|deployments|model)/({spellings})(?=[/:%])", path)
    if place is None:
        raise UsageError(
            f"the URL names the model ({named}) in a way that --model cannot change: change it in the agent"
        )
    spelled = quote(model.rpartition("/")[2], safe="@.-_~")
    return f"{path[: place.start(1)]}{spelled}{path[place.end(1) :]}"


def _first_half(recorded: Response | None) -> Response | None:
    """The part of a response that came before the connection broke: half its chunks, or half of its one."""
    if recorded is None or not recorded.body:
        return recorded
    sizes = recorded.chunk_sizes or (len(recorded.body),)
    kept = sizes[: len(sizes) // 2] or (len(recorded.body) // 2,)
    offsets = recorded.chunk_offsets_us[: len(kept)]
    return replace(recorded, body=recorded.body[: sum(kept)], chunk_sizes=kept, chunk_offsets_us=offsets)


def _tool_result(given: str) -> Edit:
    """The edit that NAME=VALUE asks for: JSON where it is JSON, else the text itself."""
    name, equals, value = given.partition("=")
    if not (equals and name.strip()):
        raise UsageError(
            f"--tool-result {given!r} is not NAME=VALUE: write it like 'check_seats={{\"seats\": 0}}'"
        )
    text = flag_value(value, "--tool-result")
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        found = text
    return edits.tool_result(name.strip(), found, text=text)


def _assignment(given: str) -> tuple[str, object]:
    """A flag's PATH=VALUE as path and value: JSON where it is JSON, else the text itself."""
    for at, character in enumerate(given):
        if character != "=":
            continue
        try:
            parse_path(given[:at])
        except UsageError:
            continue  # an equals sign inside a quoted name of the path
        value = given[at + 1 :]
        if value.startswith("@") and not value.startswith("@@"):
            read = flag_value(value, "--set")
            return given[:at].strip(), _json(read, value[1:]) if value.endswith(".json") else read
        value = flag_value(value, "--set")
        try:
            return given[:at].strip(), json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return given[:at].strip(), value
    raise UsageError(
        f"--set {given!r} is not PATH=VALUE: write it like temperature=0 or messages[0].content=Hi"
    )


def _refuse(name: str) -> None:
    """NaN and Infinity are words of Python's parser, not JSON."""
    raise ValueError(name)


def _json(given: str, where: str) -> object:
    """The JSON value; raises UsageError saying where it is wrong."""
    try:
        return json.loads(given, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{where} is not valid JSON at {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not valid JSON: {error}") from None


def flag_value(given: str, flag: str) -> str:
    """The value of a flag, read from the file that it names with `@`."""
    if given.startswith("@@"):
        return given[1:]
    if not given.startswith("@"):
        return given
    try:
        return _read(Path(given[1:]), flag).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: {given[1:]} is not UTF-8 at byte {error.start}") from None


def _read(path: Path, flag: str) -> bytes:
    """The file's bytes; raises UsageError naming flag and file."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror or error}") from None
