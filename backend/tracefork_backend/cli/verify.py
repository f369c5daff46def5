"""`verify`: the gate for CI: replay tapes and runs, and say which differ."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from tracefork_otel.errors import TraceforkError, UsageError

from .flags.options import STORE, JsonOption, StoreOption, valued
from .flags.start import ReplayFlags
from .interrupt import terminable
from .opening import missing, reading, told
from .output import FINDING, print_json, print_rows, say_drift
from .refs import named
from .summary import Checked, tell_ci, write_junit

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
    junit: Annotated[
        Path | None, valued("--junit", "FILE", "Also write the results as JUnit's XML, which CIs read.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Replay each; exit 0 if all are bit-exact, 1 if one drifted, 2 or 3 if one could not be replayed.

    Also 1 if a run was asked for, and a file of its store could not be read.
    """
    from tracefork_otel.tape.tape import Tape

    from ..rerun.replaying import replay

    if bisect and junit is not None:
        raise UsageError("--junit is of several tapes, --bisect of one commit: leave one of them out")
    if junit is not None:
        write_junit(junit, ())  # before minutes of replays: it may be no place to write to
    if bisect:
        return _bisect(store, refs, start.asked(), as_json)
    worst, of_store = 0, False
    checked: list[Checked] = []
    with terminable(), reading(store) as opened:
        for ref in refs:
            began = monotonic()
            try:
                source = named(opened, ref)
                of_store |= not isinstance(source, Tape)
                result = replay(source, store=opened, on_drift=say_drift, **start.asked())
            except TraceforkError as error:
                worst = max(worst, error.exit_status)
                lines = (f"error: {error}",)
                _report(ref, passed=False, lines=lines, as_json=as_json)
                checked.append(_checked(ref, "ERROR", lines, began))
                continue
            if not result.passed:
                worst = max(worst, FINDING)
            _report(ref, passed=result.passed, lines=result.receipt, as_json=as_json)
            site = next((one.site for one in result.drifts if one.site), None)
            said = "PASS" if result.passed else "FAIL"
            checked.append(_checked(ref, said, result.receipt, began, site=site))
        if of_store and missing(opened):
            worst = max(worst, FINDING)
        if as_json:
            print_rows(filter(None, [told(opened)]))
    tell_ci("tracefork-otel verify", checked)
    if junit is not None:
        write_junit(junit, checked)
    return worst


def _checked(
    ref: str, result: str, lines: tuple[str, ...], began: float, *, site: str | None = None
) -> Checked:
    """Return what a CI is told of it: the first finding is what a person reads first."""
    found = (line for line in lines if line.startswith(("drift ", "leak ", "problem ", "missing ", "error:")))
    first = next(found, lines[-1])
    return Checked(
        name=ref,
        result=result,
        finding="" if result == "PASS" else first,
        lines=lines,
        site=site,
        file=ref if Path(ref).is_file() else None,
        seconds=monotonic() - began,
    )


def _bisect(store: Path, refs: list[str], how: dict[str, Any], as_json: bool) -> int:
    """Return whether this commit does what the tape holds; what keeps us from seeing that is no finding."""
    from ..rerun.replaying import replay

    if len(refs) != 1:
        raise UsageError("--bisect asks about one tape or run: git bisect run … verify --bisect TAPE")
    # Files that git checks out within a second look alike to Python: bytecode cached of one would be stale.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        with reading(store) as opened:
            result = replay(named(opened, refs[0]), store=opened, **how)
    except Exception as error:
        _report(refs[0], passed=None, lines=[f"cannot tell: {error}"], as_json=as_json)
        return CANNOT_TELL
    _report(refs[0], passed=result.passed, lines=result.receipt, as_json=as_json)
    if result.passed:
        return 0
    # Else the agent does nothing else, and the replay was not seen whole.
    return FINDING if result.drifts or result.missing or result.leaks else CANNOT_TELL


def _report(ref: str, *, passed: bool | None, lines: list[str] | tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({"ref": ref, "passed": passed, "receipt": list(lines)})
    elif passed:
        print(f"PASS  {ref}  {lines[0]}")
        for line in lines:
            if line.startswith("ends "):
                print(f"      {line}")
    else:
        print(f"FAIL  {ref}" if passed is not None else f"SKIP  {ref}")
        for line in (one for text in lines for one in text.splitlines()):
            print(f"      {line}")
