"""How an agent was started: as a tape keeps it, and as a root span says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALLED = ("tracefork_otel.decorators.main", "tracefork_otel._agent_main")
"""The program that calls one agent function, whatever program was recorded, and its name on old tapes."""


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
    arguments: Any = None
    """Its arguments as `{"args": [...], "kwargs": {...}}`, or None."""
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    exit_status: int | None = None
    """How the recorded process ended; 128+n for signal n."""

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


_ATTRIBUTES = {
    "command": "tracefork.command",
    "environment": "tracefork.environment",
    "arguments": "tracefork.arguments",
    "versions": "tracefork.versions",
    "cwd": "tracefork.cwd",
    "withheld": "tracefork.environment.withheld",
    "entrypoint": "tracefork.entrypoint",
    "git_commit": "tracefork.git.commit",
    "exit_status": "tracefork.exit_status",
}
STARTING = frozenset(
    _ATTRIBUTES[name] for name in ("command", "environment", "arguments", "cwd", "withheld", "entrypoint")
)
"""Attributes that say what a replay runs, and with what."""
_STRUCTURES = ("command", "environment", "arguments", "versions")
"""What stands there as JSON."""


def argv_of(text: str | None) -> tuple[str, ...] | None:
    """Return the words of a command that stands in an attribute as JSON."""
    value = _json(text)
    return tuple(map(str, value)) if isinstance(value, list) else None


def _json(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None


def how_started(attributes: Mapping[str, Any]) -> HowStarted:
    """Return the start that span attributes `tracefork.*` describe."""
    found = {name: attributes.get(attribute) for name, attribute in _ATTRIBUTES.items()}
    environment, withheld, versions = (_json(found[name]) for name in ("environment", "withheld", "versions"))
    return HowStarted(
        command=argv_of(found["command"]),
        cwd=found["cwd"],
        environment=environment if isinstance(environment, dict) else {},
        withheld=tuple(map(str, withheld)) if isinstance(withheld, list) else (),
        entrypoint=found["entrypoint"],
        arguments=_json(found["arguments"]),
        git_commit=found["git_commit"],
        versions=versions if isinstance(versions, dict) else {},
        exit_status=found["exit_status"] if isinstance(found["exit_status"], int) else None,
    )
