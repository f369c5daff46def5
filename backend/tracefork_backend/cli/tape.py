"""`tape`: runs as files that can be kept beside tests, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .flags.options import STORE, JsonOption, RunArgument, StoreOption
from .output import print_json
from .refs import tape_of

app = typer.Typer(help="Write a run to a tape file, or read one into the store.", no_args_is_help=True)


@app.command("export")
def export(
    ref: RunArgument = "last",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: RUN.tape.jsonl.")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a run as a tape: JSON lines, one message a line, digests of every body."""
    tape = tape_of(store, ref, command=True)
    path = output or Path(f"{tape.run_id[:8]}.tape.jsonl")
    tape.dump(path)
    if as_json:
        print_json(
            {"path": str(path), "run_id": tape.run_id, "steps": len(tape.exchanges), "digest": tape.digest}
        )
    else:
        print(f"{path}: run {tape.run_id[:8]}, {len(tape.exchanges)} exchanges, {path.stat().st_size} bytes")
        print(f"check it with: tracefork-otel verify {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A tape file.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Read a tape into the store, where it is a run like any other."""
    from ..rerun.importing import import_tape

    imported = import_tape(store, path)
    if as_json:
        print_json(
            {"run_id": imported.run_id, "steps": imported.steps, "already_there": imported.already_there}
        )
    elif imported.already_there:
        print(f"run {imported.run_id[:8]} is in {store} already; nothing imported")
    else:
        short = imported.run_id[:8]
        print(f"run {short}, {imported.steps} exchanges, is in {store}: tracefork-otel show {short}")
