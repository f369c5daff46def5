"""`replay`: run the agent again on its tape, with no network."""

from __future__ import annotations

from dataclasses import asdict

from .flags.options import STORE, JsonOption, RunArgument, StoreOption, StrictOption
from .flags.start import ReplayFlags
from .interrupt import terminable
from .opening import reading, told
from .output import FINDING, print_json, say_drift
from .refs import named


def replay(
    ref: RunArgument = "last",
    *,
    store: StoreOption = STORE,
    start: ReplayFlags,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> int:
    """Run the agent again, served from the tape; exit 0 if bit-exact, 1 with the drift explained."""
    from ..rerun.replaying import replay as replay_tape

    with terminable(), reading(store, strict=strict) as opened:
        source = named(opened, ref)
        result = replay_tape(source, store=opened, on_drift=say_drift, **start.asked())
        if as_json:
            print_json({**asdict(result), "passed": result.passed, **told(opened)})
        else:
            print("\n".join(result.receipt))
    return 0 if result.passed else FINDING
