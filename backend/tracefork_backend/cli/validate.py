"""`validate`: hold blame to planted truth, on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ._options import JsonOption
from ._output import console, print_json, table

FAILED = 1


def validate(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer runs of each suite: a look, no proof.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Keep what was measured as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run the suites of simulated agents with planted causes; exit 1 if a gate fails."""
    import json

    from ..validate import run_suites

    found = run_suites(quick=quick)
    told = dataclasses.asdict(found)
    if report is not None:
        report.write_text(json.dumps(told, indent=1))
    if as_json:
        print_json(told)
    else:
        shown = table("", "gate", "measured", "limit", "runs", right=("measured", "limit", "runs"))
        for gate in found.gates:
            shown.add_row(
                "ok" if gate.passed else "FAILED",
                gate.name,
                f"{gate.value:.3f}",
                f"{gate.sense} {gate.limit:g}",
                str(gate.runs),
            )
        console().print(shown)
    return 0 if all(gate.passed for gate in found.gates) else FAILED
