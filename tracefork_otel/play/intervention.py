"""What a fork changes: the value that the backend hands to the agent's process, and its file."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..errors import TapeError, newer_format
from ..exchange import Response
from ..files import write_whole

Kind: TypeAlias = Literal[
    "text",  # another answer of the model
    "response",  # another response, whole
    "tool_input",  # the same answer, with other arguments for its tool call
    "request",  # another request, sent for real
    "fault",  # an error in place of the response
    "resample",  # the same request, sent for real
    "noop",  # nothing: the recorded response
    "tool_result",  # another result of a tool
]
Tail: TypeAlias = Literal["live", "recorded", "offline"]
Break: TypeAlias = Literal["timeout", "disconnect"]

KINDS: tuple[Kind, ...] = get_args(Kind)
TAILS: tuple[Tail, ...] = get_args(Tail)
BREAKS: tuple[Break, ...] = get_args(Break)

FORMAT = 1
_NAME = "tracefork intervention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What a fork changes, at which exchange of its tape, and what may answer the agent afterwards."""

    kind: Kind
    step: int
    """Index into the tape's exchanges."""
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
        return self.kind in ("request", "resample") or (self.kind == "tool_result" and bool(self.edits))

    @property
    def keeps_exchange(self) -> bool:
        """Whether the forked exchange ends as it was recorded."""
        return self.kind == "noop" or self.result is not None

    def to_json(self) -> str:
        """Return the intervention as one JSON object."""
        return json.dumps(
            {
                "format": f"{_NAME} {FORMAT}",
                "kind": self.kind,
                "step": self.step,
                "label": self.label,
                "tail": self.tail,
                "response": None if self.response is None else _response_to_json(self.response),
                "error": self.error,
                "edits": [[path, value] for path, value in self.edits],
                "path": self.path,
                "tool": self.tool,
                "result": self.result,
                "call": self.call,
                "fork_id": self.fork_id,
                "parent_run_id": self.parent_run_id,
                "experiment_id": self.experiment_id,
                "also": [json.loads(one.to_json()) for one in self.also],
            },
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = "intervention") -> Intervention:
        """Return the intervention that `to_json` made this text of; `where` names the text in errors."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TapeError(f"{where} is no intervention of tracefork: not JSON ({error})") from None
        name, _, number = str(found.get("format") if isinstance(found, dict) else "").rpartition(" ")
        if name != _NAME or not number.isdecimal():
            raise TapeError(f"{where} is no intervention of tracefork: its format is not {_NAME!r}")
        if int(number) > FORMAT:
            raise TapeError(newer_format(where, _NAME, int(number), FORMAT))
        try:
            return cls(
                kind=_one_of(found["kind"], KINDS),
                step=_typed(found["step"], int),
                label=_typed(found["label"], str),
                tail=_one_of(found["tail"], TAILS),
                response=None if found["response"] is None else _response_from_json(found["response"]),
                error=None if found["error"] is None else _one_of(found["error"], BREAKS),
                edits=tuple((_typed(path, str), value) for path, value in found["edits"]),
                path=_optional_text(found.get("path")),
                tool=_optional_text(found.get("tool")),
                result=_optional_text(found.get("result")),
                call=None if found.get("call") is None else _typed(found["call"], int),
                fork_id=_optional_text(found["fork_id"]),
                parent_run_id=_optional_text(found["parent_run_id"]),
                experiment_id=_optional_text(found["experiment_id"]),
                also=tuple(cls.from_json(json.dumps(one), where=where) for one in found.get("also", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
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


def _response_to_json(response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "headers": [list(line) for line in response.headers],
        "body": base64.b64encode(response.body).decode(),
        "chunk_sizes": list(response.chunk_sizes),
        "chunk_offsets_us": list(response.chunk_offsets_us),
        "http_version": response.http_version,
    }


def _response_from_json(found: Any) -> Response:
    response = Response(
        status=_typed(found["status"], int),
        headers=tuple((_typed(name, str), _typed(value, str)) for name, value in found["headers"]),
        body=base64.b64decode(_typed(found["body"], str), validate=True),
        chunk_sizes=tuple(_typed(size, int) for size in found["chunk_sizes"]),
        chunk_offsets_us=tuple(_typed(offset, int) for offset in found["chunk_offsets_us"]),
        http_version=_typed(found["http_version"], str),
    )
    if response.chunk_sizes and sum(response.chunk_sizes) != len(response.body):
        raise ValueError("the chunks do not add up to the body")
    return response


def _typed(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _optional_text(value: Any) -> str | None:
    return None if value is None else _typed(value, str)


def _one_of(value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return value
