"""`doctor`: what is whole, what was lost, and why a run is not replayable."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .flags.options import STORE, JsonOption, StoreOption
from .output import FINDING, print_json, say


def doctor(
    store: StoreOption = STORE,
    compact: Annotated[
        bool, typer.Option("--compact", help="Merge the segments first: see `compact`.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take in segments that the manifest does not name first.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Check every file and every digest; exit 1 if something is damaged or was lost."""
    from tracefork_otel.store.manifest import FILE, is_damaged
    from tracefork_otel.wire.registry import refused

    from ..store import doctor as examine
    from ..store import open_store
    from ..store.compacting import pack

    if repair:
        from ..rerun.workspace import adopt_left
        from ..store.repairing import repair as repaired

        adopt_left(store)
        for one in repaired(store):
            say(f"{'repaired' if one.done else 'left as it is'}: {one.text}")
    elif store.is_dir() and is_damaged(store):
        why = f"{store / FILE}: the manifest cannot be read; `doctor --repair` makes it anew from the "
        why += "segments, and keeps what is there now"
        if as_json:
            print_json({"path": str(store), "healthy": False, "incomplete": [why]})
        else:
            print(f"unreadable: {why}")
        return FINDING
    if compact:
        with open_store(store) as opened:
            pack(opened.path)
    report = examine(store)
    left_out = refused()
    if as_json:
        plugins = [{"name": name, "why": why} for name, why in left_out]
        told = {"plugins": plugins, "healthy": report.healthy}
        lacking = [
            problem.why for problem in report.files if problem.what in ("unreadable", "unnamed", "partial")
        ]
        print_json({**asdict(report), **told, **({"incomplete": lacking} if lacking else {})})
    else:
        for name, why in left_out:
            print(f"left out: the plugin {name}: {why}")
        print("\n".join(report.lines()))
    return 0 if report.healthy else FINDING
