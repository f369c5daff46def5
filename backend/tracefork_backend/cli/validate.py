"""`validate`: hold blame to planted truth, on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracefork_otel.errors import UsageError
from tracefork_otel.files import write_whole

from .flags.options import JsonOption
from .output import FINDING, console, growing, print_json, table

if TYPE_CHECKING:
    from ..validate import Report


def validate(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer runs of each suite: a look, no proof.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Keep what was measured as JSON.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run the suites with planted causes, simulated and by real forks; exit 1 if a gate fails.

    Needs no network and no key: the forks talk to a scripted model on this machine. It takes minutes.
    """
    from ..validate import run_suites

    if report is not None and not report.parent.is_dir():
        raise UsageError(f"--report {report}: there is no folder {report.parent}")
    with _progress() as on_progress:
        result = run_suites(quick=quick, on_progress=on_progress)
    measured = result.to_dict()
    if report is not None:
        write_whole(report, json.dumps(measured, indent=1).encode())
    if as_json:
        print_json(measured)
    else:
        _show(result)
    return 0 if result.passed else FINDING


def _show(result: Report) -> None:
    numbers = ("measured", "limit", "runs")
    shown = table("", "gate", *numbers, right=numbers, grow=("gate",))
    for column in (column for column in shown.columns if column.header != "gate"):
        column.min_width = len("at least 0.95") if column.header == "limit" else len("measured")
    for gate in result.gates:
        shown.add_row(
            "ok" if gate.passed else "FAILED",
            gate.name,
            f"{gate.value:.3f}",
            f"{gate.sense} {gate.limit:g}",
            str(gate.runs),
        )
    console().print(shown)
    failed = sum(not gate.passed for gate in result.gates)
    summary = (
        f"{len(result.gates)} gates, {failed} failed" if failed else f"all {len(result.gates)} gates passed"
    )
    print(f"{summary} in {result.seconds:.0f} s")
    if any(not gate.passed and gate.name.startswith("seconds") for gate in result.gates):
        print(
            f"A gate of seconds asks for an idle machine; the load of this one is {os.getloadavg()[0]:.1f}."
        )
    if result.quick:
        print(
            "This was a look: few runs of each suite. Without --quick there are as many as the gates ask for."
        )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows how far each kind of suite is, in one line."""
    done: dict[str, str] = {}
    with growing("starting") as tell:

        def on_progress(what: str, at: int, of: int) -> None:
            done[what] = f"{what} {at}/{of}"
            tell(" · ".join(done.values()))

        yield on_progress
