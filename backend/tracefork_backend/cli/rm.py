"""`rm`: runs removed from the store, for good."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import StoreError, UsageError

from ..spelling import counted
from .flags.options import STORE, JsonOption, StoreOption, moment, valued
from .opening import missing, reading, told
from .output import cell, console, print_json, run_cells, say, table

if TYPE_CHECKING:
    from ..store import Store
    from ..store.removing import Removal


def rm(
    refs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN…", help="`last`, `last~2`, a unique prefix …")
    ] = None,
    store: StoreOption = STORE,
    before: Annotated[
        str | None, valued("--before", "DATE", "All runs that began before it, such as 2026-08-31 (UTC).")
    ] = None,
    where: Annotated[
        str | None, valued("--where", "SQL", "All runs of which it is true: a condition on the view `runs`.")
    ] = None,
    forks: Annotated[
        bool, typer.Option("--forks", help="And all that was made of them: forks, replays, trials, results.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, show what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would go of the store, runs, steps and bytes; with --yes, remove it for good."""
    from ..store.removing import planned, remove, sentences

    if sum((bool(refs), before is not None, where is not None)) != 1:
        raise UsageError("say what is to go in one way: RUN…, --before DATE or --where SQL")
    if yes:
        _settle_directors(store)
    with reading(store) as opened:
        run_ids = _chosen(opened, refs or (), before, where)
        if yes and not refs and (lacking := missing(opened)):
            raise StoreError(
                f"nothing was removed: which runs those are is not known as long as files cannot be read: "
                f"{lacking[0]}; name the runs, or first: tracefork-otel doctor"
            )
        removal = planned(opened, run_ids, forks=forks)
        freed = remove(opened, removal) if yes and removal.runs else None
        if as_json:
            names = ("runs", "steps", "bytes", "made", "experiments", "beside")
            plan = {name: getattr(removal, name) for name in names}
            print_json({**plan, "removed": yes, "freed_bytes": freed, **told(opened)})
            return
        _print(removal)
        what = f"{counted(len(removal.runs), 'run')}, {counted(removal.steps, 'step')}, {removal.bytes} bytes"
        for sentence in sentences(removal):
            say(sentence)
        if not yes:
            say(f"{what} of requests and responses would go, for good: --yes removes them")
        else:
            say(f"{what} of requests and responses are gone; the store's files have {freed or 0} bytes less")


def _settle_directors(store: Path) -> None:
    """Take in what forks and replays that were killed left; StoreError while a tape of one may be there."""
    from ..rerun.workspace import adopt_left, folders

    adopt_left(store)
    if left := folders(store):
        raise StoreError(
            f"nothing was removed: {left[0]}: a fork or a replay is at work there with the tape of a run: "
            "wait until it has ended; if none is, delete the folder"
        )


def _chosen(opened: Store, refs: Collection[str], before: str | None, where: str | None) -> set[str]:
    opened.tell_apart()
    if where is not None:
        found = opened.rows(f"SELECT run_id FROM runs WHERE (\n{where}\n)")
    elif before is not None:
        found = opened.rows(
            "SELECT run_id FROM runs WHERE started_at < $before", {"before": moment("--before", before)}
        )
    else:
        return {opened.run(ref).run_id for ref in refs}
    return {str(row["run_id"]) for row in found}


def _print(removal: Removal) -> None:
    if not removal.runs:
        return
    shown = table("RUN", "WHEN", "NAME", "KIND", "STEPS", "BYTES", right=("STEPS", "BYTES"))
    for row in removal.runs:
        shown.add_row(*run_cells(row), cell(row["bytes"]))
    console().print(shown)
