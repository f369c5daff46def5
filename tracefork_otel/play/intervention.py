"""What a fork changes: the value that the backend hands to the agent's process, and its file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from .. import shapes
from ..errors import TapeError, newer_format
from ..exchange import Response
from ..files import write_whole
from .onward import SCOPES, Onward, Scope

Kind: TypeAlias = Literal[
    "text",  # another answer of the model
    "response",  # another response, whole
    "tool_input",  # the same answer, with other arguments for its tool call
    "request",  # another request, sent for real
    "fault",  # an error in place of the response
    "resample",  # the same request, sent for real
    "noop",  # nothing: the recorded response
    "tool_result",  # another result of a tool
    "agent",  # nothing of ours: the agent itself is another, and goes on from its first other request
]
Tail: TypeAlias = Literal["live", "recorded", "offline"]
Break: TypeAlias = Literal["timeout", "disconnect"]

KINDS: tuple[Kind, ...] = get_args(Kind)
TAILS: tuple[Tail, ...] = get_args(Tail)
BREAKS: tuple[Break, ...] = get_args(Break)

FORMAT = 1
_FORKS = 8
"""Forks of forks whose changes are made anew in a replay: each doubles what a request may have been."""
_NAME = "tracefork intervention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What a fork changes, at which exchange of its tape, and what may answer the agent afterwards."""

    kind: Kind
    step: int
    """Index into the tape's exchanges; their number where nobody knows it beforehand (`agent`)."""
    label: str
    """What views and spans show, such as `text`, `request model=…`, `fault 529`."""
    tail: Tail = "live"
    response: Response | None = None
    """The whole response to serve; what came of it before a disconnect."""
    error: Break | None = None
    """How the exchange breaks: the client's read timeout, or the connection's end in mid-body."""
    edits: tuple[tuple[str, object], ...] = ()
    """(JSON path, JSON value) in the order in which they change the request that the agent sent."""
    path: str | None = None
    """The path that the request goes to instead, where the path names the model."""
    scope: Scope | None = None
    """How far it holds; None of a change that has no choice."""
    onward: Onward | None = None
    """What holds in later requests."""
    tool: str | None = None
    """The tool whose result is changed."""
    result: str | None = None
    """What the tool's next call gets, as JSON; None if the request that carries its result is changed."""
    call: int | None = None
    """The call of the tape that is replaced by that."""
    fork_id: str | None = None
    """The fork's own run."""
    parent_run_id: str | None = None
    experiment_id: str | None = None
    also: tuple[Intervention, ...] = ()
    """Further changes in the tail, each to the call that stands at its `step` of the fork's own run: after a
    change the requests differ, so that only their places can be known beforehand.
    """

    @property
    def goes_live(self) -> bool:
        """Whether the forked request itself goes over the network."""
        return self.kind in ("request", "resample", "agent") or (
            self.kind == "tool_result" and bool(self.edits)
        )

    @property
    def keeps_exchange(self) -> bool:
        """Whether the forked exchange ends as it was recorded."""
        return self.kind == "noop" or self.result is not None

    def to_json(self) -> str:
        """Return the intervention as one JSON object."""
        found = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        found["response"] = None if self.response is None else _response_to_json(self.response)
        found["onward"] = None if self.onward is None else self.onward.to_json()
        found["also"] = [json.loads(one.to_json()) for one in self.also]
        return json.dumps({"format": f"{_NAME} {FORMAT}", **found}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "intervention") -> Intervention:
        """Return the intervention that `to_json` made this text of; `where` names the text in errors."""
        try:
            found = shapes.parsed(text)
        except ValueError as error:
            raise TapeError(f"{where} is no intervention of tracefork: not JSON ({error})") from None
        name, _, number = str(found.get("format") if isinstance(found, dict) else "").rpartition(" ")
        if name != _NAME or not number.isdecimal():
            raise TapeError(f"{where} is no intervention of tracefork: its format is not {_NAME!r}")
        if int(number) > FORMAT:
            raise TapeError(newer_format(where, _NAME, int(number), FORMAT))
        try:
            values = {name: read(found[name]) for name, read in _READERS.items()}
            values |= {name: read(found[name]) for name, read in _LATER.items() if name in found}
            also = (cls.from_json(json.dumps(one), where=where) for one in found.get("also", ()))
            return cls(**values, also=tuple(also))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            what = f"{type(error).__name__}: {error}"
            raise TapeError(f"{where} is a damaged intervention ({what}): start the fork again") from None

    def dump(self, path: str | Path) -> None:
        """Write the file, whole or not at all, for its owner alone."""
        target = Path(path)
        try:
            write_whole(target, self.to_json().encode())
        except OSError as error:
            raise TapeError(f"cannot write the intervention {target}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Intervention:
        """Read the intervention in a file; raise TapeError naming the file if it holds none."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise TapeError(f"cannot read the intervention {path}: {error.strerror or error}") from error
        return cls.from_json(data, where=str(path))


def with_change(text: str | None, change: Intervention) -> str | None:
    """Return the changes of a fork's requests as its start tells them, this one after those of its parent."""
    if not any(one.edits or one.path or one.onward for one in (change, *change.also)):
        return text
    plain = replace(change, response=None, also=tuple(replace(one, response=None) for one in change.also))
    return json.dumps([*(json.loads(text) if text else ()), json.loads(plain.to_json())])


def changes_of(text: str | None) -> tuple[Intervention, ...]:
    """Return what `with_change` told; raise TapeError where it told something else."""
    where = "what was changed in the fork's requests"
    if not text:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TapeError(f"{where} is no JSON: {error}") from None
    if not isinstance(found, list):
        raise TapeError(f"{where} is no list")
    listed = cast("list[object]", found)[-_FORKS:]
    told = [Intervention.from_json(json.dumps(one), where=where) for one in listed]
    return tuple(one for change in told for one in (change, *change.also))


def _response_to_json(response: Response) -> dict[str, Any]:
    return {**asdict(response), "body": base64.b64encode(response.body).decode()}


def _typed(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _one_of(allowed: tuple[Any, ...], value: Any) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value


def _optional(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else read(value)


def _json(value: Any) -> Any:
    json.dumps(value, allow_nan=False)  # else it could not be handed on
    return value


_text = partial(_typed, str)
_number = partial(_typed, int)
_optional_text = partial(_optional, _text)


def _response(found: Any) -> Response:
    response = Response(
        status=_number(found["status"]),
        headers=tuple((_text(name), _text(value)) for name, value in found["headers"]),
        body=base64.b64decode(_text(found["body"]), validate=True),
        chunk_sizes=tuple(map(_number, found["chunk_sizes"])),
        chunk_offsets_us=tuple(map(_number, found["chunk_offsets_us"])),
        http_version=_text(found["http_version"]),
        reason_phrase=_optional_text(found.get("reason_phrase")),
        stream_id=_optional(_number, found.get("stream_id")),
    )
    if response.chunk_sizes and sum(response.chunk_sizes) != len(response.body):
        raise ValueError("the chunks do not add up to the body")
    return response


_READERS: dict[str, Callable[[Any], Any]] = {
    "kind": partial(_one_of, KINDS),
    "step": _number,
    "label": _text,
    "tail": partial(_one_of, TAILS),
    "response": partial(_optional, _response),
    "error": partial(_optional, partial(_one_of, BREAKS)),
    "edits": lambda edits: tuple((_text(path), _json(value)) for path, value in edits),
    "fork_id": _optional_text,
    "parent_run_id": _optional_text,
    "experiment_id": _optional_text,
}
_LATER: dict[str, Callable[[Any], Any]] = {
    "path": _optional_text,
    "scope": partial(_optional, partial(_one_of, SCOPES)),
    "onward": partial(_optional, Onward.from_json),
    "tool": _optional_text,
    "result": _optional_text,
    "call": partial(_optional, _number),
}
"""What the first files of this format lack."""
