"""`verify`: the gate for CI: replay tapes and runs, and say which differ."""

from __future__ import annotations

from typing import Annotated

import typer

from tracefork_otel._errors import TraceforkError

from ._options import STORE, AgentOption, AllowHostOption, IgnoreOption, JsonOption, MatchOption, StoreOption
from ._output import print_json
from .replay import FINDING, replay_ref


def verify(
    refs: Annotated[list[str], typer.Argument(metavar="RUN|TAPE…", help="Runs and tape files.")],
    store: StoreOption = STORE,
    agent: AgentOption = None,
    match: MatchOption = "exact",
    ignore: IgnoreOption = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For each agent.")] = 600.0,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> int:
    """Replay each; exit 0 if all are bit-exact, 1 if one drifted, 2 or 3 if one could not be replayed."""
    from ..store import open_store

    worst = 0
    with open_store(store) as opened:
        for ref in refs:
            try:
                result = replay_ref(
                    opened,
                    ref,
                    agent=agent,
                    match=match,
                    ignore=tuple(ignore or ()),
                    timeout=timeout,
                    allow_hosts=tuple(allow_host or ()),
                )
            except TraceforkError as error:
                worst = max(worst, error.exit_status)
                _report(ref, passed=False, lines=[f"error: {error}"], as_json=as_json)
                continue
            if not result.passed:
                worst = max(worst, FINDING)
            _report(ref, passed=result.passed, lines=result.receipt, as_json=as_json)
    return worst


def _report(ref: str, *, passed: bool, lines: list[str] | tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json({"ref": ref, "passed": passed, "receipt": list(lines)})
    elif passed:
        print(f"PASS  {ref}  {lines[0]}")
    else:
        print(f"FAIL  {ref}")
        for line in lines:
            print(f"      {line}")
