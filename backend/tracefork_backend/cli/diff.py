"""`diff`: two runs compared step by step."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UsageError

from ..spelling import run_name
from .flags.options import STORE, JsonOption, StoreOption, StrictOption
from .opening import reading, told
from .output import print_json
from .refs import named

if TYPE_CHECKING:
    from ..store import Store

DIFFERENT = 1


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="`last~1`, a unique prefix, or a tape file.")],
    second: Annotated[
        str | None, typer.Argument(metavar="B", help="The run to compare with A; by default A's own parent.")
    ] = None,
    store: StoreOption = STORE,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 if the runs differ, like `git diff`.")
    ] = False,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Compare the letters of ids that providers make, not their places."),
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> int:
    """Compare two runs step by step: the first difference, what followed from it, outcome and cost."""
    from ..diffs.diff import diff as compare

    with reading(store, strict=strict) as opened:
        if second is None:
            first, second = _parent(opened, first), first
        comparison = compare(named(opened, first), named(opened, second), exact=exact)
        if as_json:
            print_json(
                {
                    **asdict(comparison),
                    "differs": comparison.differs,
                    "first": comparison.first,
                    "chain": comparison.chain,
                    **told(opened),
                }
            )
        else:
            print(comparison)
    return DIFFERENT if exit_code and comparison.differs else 0


def _parent(opened: Store, ref: str) -> str:
    """Return the id of the run that a fork or replay was made of."""
    run = opened.run(ref)
    if run.parent_run_id is None:
        raise UsageError(
            f"run {run_name(run.run_id)} is no fork, so it has no parent: name two runs, diff A B"
        )
    return run.parent_run_id
