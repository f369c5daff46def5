"""How an agent was started: as a tape keeps it, and as a root span says it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..errors import TapeError

CALLED = ("tracefork_otel.decorators.main", "tracefork_otel._agent_main")
"""The program that calls one agent function, whatever program was recorded, and its name on old tapes."""

ASGI, WSGI = "asgi:", "wsgi:"
REQUESTS = (ASGI, WSGI)
"""Begin an entry point that names an application, to which a request is made, not a function."""
TASK = "task:"
"""Begins one that names a function which a worker called."""
ON_STARTUP = "tracefork.on_startup"
"""In the dictionary that is its first argument: names the function that fills it at a worker's start."""
FROM_OUTSIDE = (*REQUESTS, TASK)
"""Begin the entry points of what came to a program from outside: started again, it would wait for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HowStarted:
    """How the agent was started, so that a replay can start it again."""

    command: tuple[str, ...] | None = None
    """The argv given to `tracefork-otel run`."""
    cwd: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """The environment of the command, without what looks secret."""
    withheld: tuple[str, ...] = ()
    """Names of the environment variables whose values were left out."""
    entrypoint: str | None = None
    """`pkg.mod:fn` of the agent function."""
    script: str | None = None
    """The folder of the script in which that function was; alone there its module may be found."""
    arguments: Any = None
    """Its arguments as `{"args": [...], "kwargs": {...}}`, or None."""
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    exit_status: int | None = None
    """How the recorded process ended; 128+n for signal n."""
    stdin: str | None = None
    """What the command read of its standard input (see `kept_input`); None for nothing."""
    stdin_kind: str | None = None
    """`pipe` where it came by one, `closed` where there was none: an agent may tell them from a file."""
    stdin_lost: str | None = None
    """Why that was not kept."""
    arguments_lost: str | None = None
    """Why the arguments of the function are not known."""

    state: str | None = None
    """What was kept of the files that the agent uses (see `state.kept`); None for nothing."""
    state_lost: str | None = None
    """Why that was not kept."""

    changes: str | None = None
    """Where it was forked: the interventions in its requests, first the oldest fork's, as a JSON list."""
    changes_lost: str | None = None
    """Why those are not kept."""

    @property
    def calls(self) -> str | None:
        """The function that is called at this start, also where our own command called it; None for none."""
        command: tuple[str, ...] = self.command or ()
        if len(command) > 3 and command[1] == "-m" and command[2] in CALLED:
            return command[3]
        return None if command else self.entrypoint

    def attributes(self) -> dict[str, object]:
        """Return the attributes of a root span that say this; what is not known is left out."""
        found: dict[str, object] = {}
        for name, attribute in _ATTRIBUTES.items():
            value: Any = getattr(self, name)
            if name in ("environment", "versions"):
                value = dict(sorted(value.items()))
            if name in _STRUCTURES:
                value = json.dumps(value) if value else None
            elif name == "withheld":
                value = list(value) or None
            if value is not None:
                found[attribute] = value
        return found


STATE, STATE_LOST = "tracefork.state", "tracefork.state.lost"
CALL_STATE, CALL_STATE_LOST = "tracefork.call.state", "tracefork.call.state.lost"
"""The same as of the call of a function, which may not be what its process did first."""
CHANGES, CHANGES_LOST = "tracefork.fork.changes", "tracefork.fork.changes.lost"
_ATTRIBUTES = {
    "command": "tracefork.command",
    "environment": "tracefork.environment",
    "arguments": "tracefork.arguments",
    "versions": "tracefork.versions",
    "cwd": "tracefork.cwd",
    "withheld": "tracefork.environment.withheld",
    "entrypoint": "tracefork.entrypoint",
    "script": "tracefork.script",
    "git_commit": "tracefork.git.commit",
    "exit_status": "tracefork.exit_status",
    "stdin": "tracefork.stdin",
    "stdin_kind": "tracefork.stdin.kind",
    "stdin_lost": "tracefork.stdin.lost",
    "arguments_lost": "tracefork.arguments.missing",
    "state": STATE,
    "state_lost": STATE_LOST,
    "changes": CHANGES,
    "changes_lost": CHANGES_LOST,
}
_ADDED = ("script", "stdin", "stdin_kind", "stdin_lost", "state", "state_lost")
BESIDE = (*_ADDED, "arguments_lost", "changes", "changes_lost")
"""What a tape has beside its start, in which earlier versions take no other names."""
PROCESS = tuple(_ATTRIBUTES[name] for name in ("command", "environment", "cwd", "withheld", *_ADDED))
CALL = (*(_ATTRIBUTES[name] for name in ("entrypoint", "arguments")), CALL_STATE, CALL_STATE_LOST)
PROCESS_MARK, CALL_MARK = "tracefork.start.mark", "tracefork.call.mark"
STARTING = (*PROCESS, *CALL, PROCESS_MARK, CALL_MARK)
"""Attributes that say what a replay runs, and with what; and who says so (see `marks.py`)."""
UNSENT = (*STARTING, CHANGES)
"""Attributes that are believed of no span that came from outside, and are sent nowhere."""
_STRUCTURES = ("command", "environment", "arguments", "versions")
"""What stands there as JSON."""


def argv_of(text: str | None) -> tuple[str, ...] | None:
    """Return the words of a command that stands in an attribute as JSON."""
    value = _json(text)
    return tuple(map(str, value)) if isinstance(value, list) else None


_BINARY = "base64:"


def kept_input(data: bytes) -> str:
    """Return the bytes as a text: themselves where they are UTF-8."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _BINARY
    return text if not text.startswith(_BINARY) else _BINARY + b64encode(data).decode()


def given_as_bytes(text: str) -> bool:
    """Return whether what `kept_input` made is no text to be read."""
    return text.startswith(_BINARY)


def given_input(text: str) -> bytes:
    """Return the bytes that `kept_input` made this text of; raise TapeError where it made none."""
    if not given_as_bytes(text):
        return text.encode("utf-8", "surrogatepass")
    try:
        return b64decode(text.removeprefix(_BINARY), validate=True)
    except ValueError as error:  # binascii's among them
        raise TapeError(f"what the command read of standard input is kept damaged: {error}") from None


def _json(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> dict[str, str]:
    """Return the members that are texts, as all of them were when they were recorded."""
    members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return {name: one for name, one in members.items() if isinstance(one, str)}


def how_started(attributes: Mapping[str, Any]) -> HowStarted:
    """Return the start that span attributes `tracefork.*` describe."""
    found = {name: attributes.get(attribute) for name, attribute in _ATTRIBUTES.items()}
    if any(attributes.get(name) is not None for name in (CALL_STATE, CALL_STATE_LOST)):
        found["state"], found["state_lost"] = attributes.get(CALL_STATE), attributes.get(CALL_STATE_LOST)
    environment, withheld, versions = (_json(found[name]) for name in ("environment", "withheld", "versions"))
    return HowStarted(
        command=argv_of(found["command"]),
        cwd=_text(found["cwd"]),
        environment=_texts(environment),
        withheld=tuple(map(str, withheld)) if isinstance(withheld, list) else (),
        entrypoint=_text(found["entrypoint"]),
        script=_text(found["script"]),
        arguments=_json(found["arguments"]),
        git_commit=_text(found["git_commit"]),
        versions=_texts(versions),
        exit_status=found["exit_status"] if isinstance(found["exit_status"], int) else None,
        stdin=_text(found["stdin"]),
        stdin_kind=_text(found["stdin_kind"]),
        stdin_lost=_text(found["stdin_lost"]),
        arguments_lost=_text(found["arguments_lost"]),
        state=_text(found["state"]),
        state_lost=_text(found["state_lost"]),
        changes=_text(found["changes"]),
        changes_lost=_text(found["changes_lost"]),
    )
