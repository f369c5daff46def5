"""Options that stand alone, and how one is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import typer

from tracefork_otel.errors import UsageError

from ...flag import Flag

STORE = Path(".tracefork")


def valued(flag: str, metavar: str, text: str, **more: Any) -> Any:
    """Return an option that takes a value."""
    return typer.Option(flag, metavar=metavar, help=text, **more)


def repeated(flag: str, metavar: str, text: str) -> Any:
    """Return an option that may be given several times; its values are a list."""
    return valued(flag, metavar, f"{text} Repeatable.")


def choice(flag: str, literal: Any, text: str) -> Any:
    """Return an option whose value is one of those of a Literal; UsageError names them for any other."""
    allowed: tuple[str, ...] = get_args(literal)

    def checked(given: str) -> str:
        if given not in allowed:
            raise UsageError(f"{flag} {given}: use {', '.join(allowed[:-1])} or {allowed[-1]}")
        return given

    return valued(flag, "|".join(allowed), text, parser=checked)


def option(flag: Flag, *, several: bool = False) -> tuple[Any, object]:
    """Return a flag as typer takes it, and its default; `several` values where it may be repeated."""
    if flag.metavar is None:
        return Annotated[bool, typer.Option(str(flag), help=flag.help)], False
    if several:
        return Annotated[list[str], repeated(str(flag), flag.metavar, flag.help)], []
    return Annotated[str | None, valued(str(flag), flag.metavar, flag.help)], None


StoreOption: TypeAlias = Annotated[
    Path,
    typer.Option("--store", envvar="TRACEFORK_STORE", help="The store's directory.", show_default=True),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="`last`, `last~2`, a unique prefix of a run id, or a tape file.")
]
RedactOption: TypeAlias = Annotated[
    Path | None,
    valued("--redact", "FILE", "Replace what the rules in this TOML file find, see docs/redaction.md."),
]
PortOption: TypeAlias = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The port to listen on; 0 for a free one.")
]
HostOption: TypeAlias = Annotated[
    str, typer.Option("--host", help="The address to listen on: this machine alone.")
]
JobsOption: TypeAlias = Annotated[int, typer.Option("--jobs", min=1, help="Agents at a time.")]
BudgetOption: TypeAlias = Annotated[float | None, valued("--budget", "USD", "Start no fork beyond this.")]
EstimateOption: TypeAlias = Annotated[
    bool, typer.Option("--estimate", help="Say what it would take, and start nothing.")
]
