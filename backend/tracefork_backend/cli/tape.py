"""`tape`: runs as files that can be kept beside tests, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from ..spelling import DIGITS, counted, run_name
from .flags.options import STORE, JsonOption, RunArgument, StoreOption, choice
from .output import print_json, say
from .refs import tape_of

if TYPE_CHECKING:
    from tracefork_otel.tape.start import HowStarted

Format: TypeAlias = Literal["tape", "otlp", "openai-messages"]
_NAMED = 3
"""Spans that are left out and named, each with its reason."""
_HEAD = 1 << 20
"""Bytes of a tape's first line, which says whose it is."""

app = typer.Typer(help="Write a run to a tape file, or read one into the store.", no_args_is_help=True)


@app.command("export")
def export(
    ref: RunArgument = "last",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: RUN.tape.jsonl.")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a run as a tape: JSON lines, one message a line, digests of every body."""
    from tracefork_otel.tape.marks import is_from_here

    from ..rerun.extent import why_short
    from ..rerun.state import lacking, with_state

    tape = tape_of(store, ref, command=True)
    if not tape.files and tape.start.state:
        tape = with_state(tape, store)
    path = output or _default_path(tape.run_id)
    tape.dump(path)
    if as_json:
        print_json(
            {
                "path": str(path),
                "run_id": tape.run_id,
                "steps": len(tape.exchanges),
                "digest": tape.digest,
                "ends": why_short(tape),
                **_carried(tape.start, from_here=is_from_here(tape)),
            }
        )
    else:
        holds = f"{len(tape.exchanges)} exchanges, {path.stat().st_size} bytes"
        print(f"{path}: run {run_name(tape.run_id)}, {holds}")
        _print_carried(tape.start, from_here=is_from_here(tape))
        print(f"check it with: tracefork-otel verify {path}")
    _say_why_short(tape.run_id, why_short(tape))
    if lacks := lacking(tape):
        say(
            f"it does not carry the state that its agent begins with, {lacks}: it is replayed from this store"
        )


def _default_path(run_id: str) -> Path:
    """Return where a run's tape goes, whichever other runs the store has; no other run's is there."""
    path = Path(f"{run_id[:DIGITS]}.tape.jsonl")
    try:
        with path.open("rb") as file:
            is_its = f'"{run_id}"'.encode() in file.readline(_HEAD)
    except OSError:
        return path
    return path if is_its else Path(f"{run_id}.tape.jsonl")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A tape, or another's trajectories: see --format.")],
    form: Annotated[
        Format,
        choice("--format", Format, "What the file is: OTLP as the Collector writes it, lists of messages."),
    ] = "tape",
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Read a tape into the store, where it is a run like any other; or what another tool wrote.

    Trajectories of others are read, queried, compared and shown; what came as messages is not replayed.
    """
    if form != "tape":
        _import_others(store, path, form, as_json=as_json)
        return
    from ..rerun.importing import import_tape

    imported = import_tape(store, path)
    if as_json:
        print_json(
            {
                **{
                    name: getattr(imported, name)
                    for name in ("run_id", "steps", "added", "already_there", "ends")
                },
                **_carried(imported.start, from_here=imported.from_here),
            }
        )
    elif imported.already_there:
        print(f"run {run_name(imported.run_id)} is in {store} already; nothing imported")
    else:
        short, steps = run_name(imported.run_id), counted(imported.steps, "exchange")
        since = "" if imported.added == imported.steps else f" ({imported.added} of them were not there)"
        print(f"run {short}, {steps}{since}, is in {store}: tracefork-otel show {short}")
        _print_carried(imported.start, from_here=imported.from_here)
    _say_why_short(imported.run_id, imported.ends)


def _import_others(
    store: Path, path: Path, form: Literal["otlp", "openai-messages"], *, as_json: bool
) -> None:
    from ..network.trajectories import import_trajectories

    taken = import_trajectories(store, path, form)
    if as_json:
        print_json(asdict(taken))
        return
    for why in taken.left_out[:_NAMED]:
        say(f"left out: {why}")
    if len(taken.left_out) > _NAMED:
        say(f"left out: {counted(len(taken.left_out) - _NAMED, 'span')} more")
    if not taken.runs:
        print(f"{path}: there is no trajectory in it; nothing imported")
    elif not taken.steps and not taken.new:
        are = "is" if len(taken.runs) == 1 else "are"
        print(f"{counted(len(taken.runs), 'run')} of {path} {are} in {store} already; nothing imported")
    else:
        old = len(taken.runs) - taken.new
        more = f" ({old} were there already)" if old else ""
        what = f"{counted(taken.new, 'run')}, {counted(taken.steps, 'step')}{more}"
        print(f"{what}, in {store}: tracefork-otel ls")


def _say_why_short(run_id: str, why: str | None) -> None:
    if why is not None:
        more = "; export it again when it has ended, and import that too" if "still" in why else ""
        say(f"run {run_name(run_id)}: {why}{more}")


def _carried(start: HowStarted, *, from_here: bool) -> dict[str, object]:
    """Return what a tape says of its start, for machines."""
    told = {"command": start.command, "entrypoint": start.entrypoint, "folder": start.cwd}
    return {"start": {**told, "environment": sorted(start.environment)}, "from_here": from_here}


def _print_carried(start: HowStarted, *, from_here: bool) -> None:
    """Say what a replay of it would start, and whether it would ask first."""
    from ..rerun.trust import told

    print("it carries how to start its agent:")
    for line in told(start, portable=False):
        print(f"  {line}")
    if from_here:
        print("  mark         recorded by you on this machine: a replay starts it here, elsewhere by --trust")
    else:
        print("  mark         none of yours: a replay shows this, and starts it with --trust")
