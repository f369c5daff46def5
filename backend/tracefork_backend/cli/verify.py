"""`verify`: the gate for CI: replay tapes and runs, and say which differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import TraceforkError, UsageError

from .flags.options import STORE, JsonOption, StoreOption
from .flags.start import ReplayFlags
from .output import FINDING, print_json
from .refs import named

if TYPE_CHECKING:
    from ..rerun.replaying import ReplayResult
    from ..store import Store

CANNOT_TELL = 125
"""The status by which `git bisect run` skips a commit."""


def verify(
    refs: Annotated[list[str], typer.Argument(metavar="RUN|TAPE…", help="Runs and tape files.")],
    *,
    store: StoreOption = STORE,
    start: ReplayFlags,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="For `git bisect run`: exit 0 same, 1 drift, 125 cannot tell.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Replay each; exit 0 if all are bit-exact, 1 if one drifted, 2 or 3 if one could not be replayed."""
    from ..store import open_store

    if bisect:
        return _bisect(store, refs, start, as_json)
    worst = 0
    with open_store(store) as opened:
        for ref in refs:
            try:
                result = _replayed(opened, ref, start)
            except TraceforkError as error:
                worst = max(worst, error.exit_status)
                _report(ref, passed=False, lines=[f"error: {error}"], as_json=as_json)
                continue
            if not result.passed:
                worst = max(worst, FINDING)
            _report(ref, passed=result.passed, lines=result.receipt, as_json=as_json)
    return worst


def _replayed(opened: Store, ref: str, start: ReplayFlags) -> ReplayResult:
    from ..rerun.replaying import replay

    return replay(named(opened, ref), store=opened, **start.asked())


def _bisect(store: Path, refs: list[str], start: ReplayFlags, as_json: bool) -> int:
    """Return whether this commit does what the tape holds; what keeps us from seeing that is no finding."""
    from ..store import open_store

    if len(refs) != 1:
        raise UsageError("--bisect asks about one tape or run: git bisect run … verify --bisect TAPE")
    # Files that git checks out within a second look alike to Python: bytecode cached of one would be stale.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        with open_store(store) as opened:
            result = _replayed(opened, refs[0], start)
    except Exception as error:
        _report(refs[0], passed=None, lines=[f"cannot tell: {error}"], as_json=as_json)
        return CANNOT_TELL
    _report(refs[0], passed=result.passed, lines=result.receipt, as_json=as_json)
    return 0 if result.passed else FINDING if _differs(result) else CANNOT_TELL


def _differs(result: ReplayResult) -> bool:
    """Return whether the agent does something else, rather than that the replay was not seen whole."""
    return bool(result.drifts or result.missing or result.leaks)


def _report(ref: str, *, passed: bool | None, lines: list[str] | tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({"ref": ref, "passed": passed, "receipt": list(lines)})
    elif passed:
        print(f"PASS  {ref}  {lines[0]}")
    else:
        print(f"FAIL  {ref}" if passed is not None else f"SKIP  {ref}")
        for line in lines:
            print(f"      {line}")
