"""The flags that say how an agent is started again, and what counts as the same request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Timing

from . import Flags
from .options import choice, repeated, valued

TailOption: TypeAlias = Annotated[
    Tail, choice("--tail", Tail, "What answers after the change: the model, or first what the run recorded.")
]
TimingOption: TypeAlias = Annotated[
    Timing, choice("--timing", Timing, "`recorded` waits as long as the recording did, chunk by chunk.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchFlags(Flags):
    """Which requests are the same."""

    match: Annotated[
        MatchMode,
        choice("--match", MatchMode, "Compare request bodies `exact` (byte for byte) or as parsed `json`."),
    ] = "exact"
    ignore: Annotated[
        list[str], repeated("--ignore", "PATH", "Leave this JSON path out of the comparison.")
    ] = field(default_factory=list)


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

    def asked(self) -> dict[str, Any]:
        """Return them as arguments of `replay`, `fork`, `matrix` and `blame`."""
        return {
            "agent": self.agent,
            "match": self.match,
            "ignore": tuple(self.ignore),
            "timeout": self.timeout,
            "allow_hosts": tuple(self.allow_host),
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
        ),
    ] = None

    def asked(self) -> dict[str, Any]:
        """Return them as arguments of `replay`, `fork` and `matrix`."""
        return {**StartFlags.asked(self), "tools": self.tools}
