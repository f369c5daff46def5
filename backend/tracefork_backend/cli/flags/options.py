"""Options that stand alone, and how one is declared."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import typer

from tracefork_otel.errors import UsageError
from tracefork_otel.settings import found_store
from tracefork_otel.store.spool import url_of

from ...flag import Flag

STORE = Path(".tracefork")


def valued(flag: str, metavar: str, text: str, **more: Any) -> Any:
    """Return an option that takes a value."""
    return typer.Option(flag, metavar=metavar, help=text, **more)


def repeated(flag: str, metavar: str, text: str) -> Any:
    """Return an option that may be given several times; its values are a list."""
    return valued(flag, metavar, f"{text} Repeatable.")


def choice(flag: str, literal: Any, text: str, *, variable: str | None = None) -> Any:
    """Return an option whose value is one of those of a Literal; UsageError names them for any other.

    Where it is not given, the environment's `variable` is.
    """
    allowed: tuple[str, ...] = get_args(literal)

    def checked(given: str) -> str:
        if given not in allowed:
            raise UsageError(f"{flag} {given}: use {', '.join(allowed[:-1])} or {allowed[-1]}")
        return given

    return valued(flag, "|".join(allowed), text, parser=checked, envvar=variable)


def option(flag: Flag, *, several: bool = False) -> tuple[Any, object]:
    """Return a flag as typer takes it, and its default; `several` values where it may be repeated."""
    if flag.metavar is None:
        return Annotated[bool, typer.Option(str(flag), help=flag.help)], False
    if several:
        return Annotated[list[str], repeated(str(flag), flag.metavar, flag.help)], []
    return Annotated[str | None, valued(str(flag), flag.metavar, flag.help)], None


def moment(flag: str, text: str) -> datetime:
    """Return the moment that the flag names, UTC, without a zone; UsageError for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{flag} {text}: write a date, such as 2026-08-31 or 2026-08-31T18:00") from None
    try:
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except OverflowError:
        raise UsageError(f"{flag} {text}: in UTC this is no date between the years 1 and 9999") from None


BUCKET_VERBS = frozenset({"compact", "fork", "ls", "replay", "run", "show", "sql"})
"""The verbs that work on a store in a bucket."""


def _verb(context: Any) -> str:
    """Return the verb as it is typed, such as `ls` or `blame run`."""
    above = context.parent
    return "" if above is None else f"{_verb(above)} {context.info_name}".strip()


def _nearest(context: typer.Context, store: Path) -> Path:
    source = context.get_parameter_source("store")
    if (url := url_of(store)) is not None and not context.resilient_parsing:
        verb = _verb(context)
        if verb not in BUCKET_VERBS:
            raise UsageError(
                f"{verb} does not work on a store in a bucket ({url}) yet: "
                f"{', '.join(sorted(BUCKET_VERBS))} do"
            )
        return store if verb == "compact" else _mirrored(context, url)
    return found_store() if source is not None and source.name == "DEFAULT" else store


def _mirrored(context: typer.Context, url: str) -> Path:
    """Return the mirror of the bucket, from which what the command records is pushed at its end."""
    from ...store import mirror

    store = mirror.pull(url)
    os.environ["TRACEFORK_SEAL"] = "0"  # of the agents that it starts
    context.call_on_close(lambda: mirror.push(url))
    return store


StoreOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--store",
        envvar="TRACEFORK_STORE",
        help="The store's directory, or s3://bucket/prefix; else the nearest directory upwards from here.",
        show_default=True,
        callback=_nearest,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
StrictOption: TypeAlias = Annotated[
    bool, typer.Option("--strict", help="Exit 1 where a file of the store could not be read.")
]
RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="`last`, `last~2`, a unique prefix of a run id, or a tape file.")
]
SkipHostOption: TypeAlias = Annotated[
    list[str],
    repeated(
        "--skip-host", "HOST[:PORT][/PATH]", "Leave this out as housekeeping; what models are asked never is."
    ),
]
StateOption: TypeAlias = Annotated[
    list[str],
    repeated(
        "--state", "PATH", "Keep this file or folder as it is now: each replay and fork begins with a copy."
    ),
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
BudgetOption: TypeAlias = Annotated[float | None, valued("--budget", "USD", "Start no fork beyond this.")]
PriceOption: TypeAlias = Annotated[
    list[str],
    repeated(
        "--price", "MODEL=IN/OUT", "What a model costs for a million tokens, in dollars; MODEL=0 for nothing."
    ),
]
EstimateOption: TypeAlias = Annotated[
    bool, typer.Option("--estimate", help="Say what it would take, and start nothing.")
]
