"""`doctor`: what is whole, what was lost, and why a run is not replayable."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .flags.options import STORE, JsonOption, StoreOption
from .output import FINDING, print_json, say


def doctor(
    store: StoreOption = STORE,
    compact: Annotated[bool, typer.Option("--compact", help="Merge the segments into one first.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take in segments that the manifest does not name first.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check every file and every digest; exit 1 if something is damaged or was lost."""
    from tracefork_otel.wire.registry import refused

    from ..store import doctor as examine
    from ..store import open_store

    if repair:
        from ..store.repairing import repair as repaired

        for line in repaired(store):
            say(f"repaired: {line}")
    if compact:
        with open_store(store) as opened:
            opened.compact()
    report = examine(store)
    left_out = refused()
    if as_json:
        plugins = [{"name": name, "why": why} for name, why in left_out]
        print_json({**asdict(report), "plugins": plugins, "healthy": report.healthy})
    else:
        for name, why in left_out:
            print(f"left out: the plugin {name}: {why}")
        print("\n".join(report.lines()))
    return 0 if report.healthy else FINDING
