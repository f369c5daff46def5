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
        for key, value in (
            ("tracefork.command", self.command),
            ("tracefork.environment", dict(sorted(self.environment.items()))),
            ("tracefork.arguments", self.arguments),
            ("tracefork.versions", dict(sorted(self.versions.items()))),
        ):
            if value:
                found[key] = json.dumps(value)
        for key, value in (
            ("tracefork.cwd", self.cwd),
            ("tracefork.environment.withheld", list(self.withheld) or None),
            ("tracefork.entrypoint", self.entrypoint),
            ("tracefork.git.commit", self.git_commit),
            ("tracefork.exit_status", self.exit_status),
        ):
            if value is not None:
                found[key] = value
        return found


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
    environment = _json(attributes.get("tracefork.environment"))
    withheld = _json(attributes.get("tracefork.environment.withheld"))
    versions = _json(attributes.get("tracefork.versions"))
    status = attributes.get("tracefork.exit_status")
    return HowStarted(
        command=argv_of(attributes.get("tracefork.command")),
        cwd=attributes.get("tracefork.cwd"),
        environment=environment if isinstance(environment, dict) else {},
        withheld=tuple(map(str, withheld)) if isinstance(withheld, list) else (),
        entrypoint=attributes.get("tracefork.entrypoint"),
        arguments=_json(attributes.get("tracefork.arguments")),
        git_commit=attributes.get("tracefork.git.commit"),
        versions=versions if isinstance(versions, dict) else {},
        exit_status=status if isinstance(status, int) else None,
    )
