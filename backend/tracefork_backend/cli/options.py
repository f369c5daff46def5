"""Options that several verbs share, each defined once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tracefork_otel.errors import UsageError

StoreOption: TypeAlias = Annotated[
    Path,
    typer.Option("--store", envvar="TRACEFORK_STORE", help="The store's directory.", show_default=True),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="`last`, `last~2`, a unique prefix of a run id, or a tape file.")
]
AgentOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--agent", metavar="PKG.MOD:FN", help="Start this function instead of what was recorded."),
]
MatchOption: TypeAlias = Annotated[
    str, typer.Option("--match", help="Compare request bodies `exact` (byte for byte) or as parsed `json`.")
]
IgnoreOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="PATH", help="Leave this JSON path out of the comparison. Repeatable."),
]
TimingOption: TypeAlias = Annotated[
    str, typer.Option("--timing", help="`recorded` waits as long as the recording did, chunk by chunk.")
]
TimeoutOption: TypeAlias = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="End the agent after this long.")
]
AllowHostOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="HOST", help="Let the agent connect to this host. Repeatable."),
]

RedactOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--redact",
        metavar="FILE",
        help="Replace what the rules in this TOML file find, see docs/redaction.md.",
    ),
]

ToolsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tools",
        help="What @tool functions get: `recorded` results (default where there are any), a `live` call, or "
        "`refuse`.",
    ),
]


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Raises UsageError if this is no value of the option."""
    if value not in allowed:
        raise UsageError(f"{option} {value}: use {', '.join(allowed[:-1])} or {allowed[-1]}")


STORE = Path(".tracefork")
