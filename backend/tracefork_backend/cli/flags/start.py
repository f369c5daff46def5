"""The flags that say how an agent is started again, and what counts as the same request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import typer

from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Settings, Timing

from . import Flags
from .options import SkipHostOption, choice, repeated, valued

TailOption: TypeAlias = Annotated[
    Tail, choice("--tail", Tail, "What answers after the change: the model, or first what the run recorded.")
]
TimingOption: TypeAlias = Annotated[
    Timing,
    choice(
        "--timing",
        Timing,
        "`recorded` waits as long as the recording did, chunk by chunk.",
        variable="TRACEFORK_TIMING",
    ),
]
TrustOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust", help="Start what the run or tape says, also if it was not recorded by you on this machine."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchFlags(Flags):
    """Which requests are the same."""

    match: Annotated[
        MatchMode,
        choice(
            "--match",
            MatchMode,
            "Compare request bodies `exact` (byte for byte) or as parsed `json`.",
            variable="TRACEFORK_MATCH",
        ),
    ] = "exact"
    ignore: Annotated[
        list[str], repeated("--ignore", "PATH", "Leave this JSON path out of the comparison.")
    ] = field(default_factory=list)

    def ignored(self) -> tuple[str, ...]:
        """Return the JSON paths that are left out, the environment's where none are given."""
        return tuple(self.ignore) or Settings.from_env().ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFlags(MatchFlags):
    """How the agent is started, and what it may do."""

    agent: Annotated[
        str | None,
        valued("--agent", "PKG.MOD:FN", "Start this function instead of what was recorded."),
    ] = None
    timeout: Annotated[float, valued("--timeout", "SECONDS", "End an agent after this long.")] = 600.0
    allow_host: Annotated[
        list[str], repeated("--allow-host", "HOST", "Let the agent connect to this host.")
    ] = field(default_factory=list)
    skip_host: SkipHostOption = field(default_factory=list)
    timing: TimingOption = "none"
    trust: TrustOption = False

    def asked(self) -> dict[str, Any]:
        """Return them as arguments of `replay`, `fork`, `matrix` and `blame`."""
        return {
            "agent": self.agent,
            "match": self.match,
            "ignore": self.ignored(),
            "timeout": self.timeout,
            "allow_hosts": tuple(self.allow_host) or Settings.from_env().allow_hosts,
            "skip_hosts": (*self.skip_host, *Settings.from_env().skip_hosts),
            "timing": self.timing,
            "trust": self.trust,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFlags(StartFlags):
    """The same where calls of tools are answered too."""

    tools: Annotated[
        ToolsMode | None,
        choice(
            "--tools",
            ToolsMode,
            "What @tool functions get: `recorded` results (default where there are any), a `live` call, or "
            "`refuse`.",
            variable="TRACEFORK_TOOLS",
        ),
    ] = None
    go_on: Annotated[
        bool,
        typer.Option(
            "--go-on",
            help="Do not end an agent that only tries again what its tape does not answer.",
        ),
    ] = False

    def asked(self) -> dict[str, Any]:
        """Return them as arguments of `replay`, `fork` and `matrix`."""
        return {**StartFlags.asked(self), "tools": self.tools, "go_on": self.go_on}
