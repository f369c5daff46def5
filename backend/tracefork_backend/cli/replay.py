"""`replay`: run the agent again on its tape, with no network."""

from __future__ import annotations

from dataclasses import asdict

from .flags.options import STORE, JsonOption, RunArgument, StoreOption
from .flags.start import ReplayFlags, TimingOption
from .opening import reading
from .output import FINDING, print_json
from .refs import named


def replay(
    ref: RunArgument = "last",
    *,
    store: StoreOption = STORE,
    start: ReplayFlags,
    timing: TimingOption = "none",
    as_json: JsonOption = False,
) -> int:
    """Run the agent again, served from the tape; exit 0 if bit-exact, 1 with the drift explained."""
    from ..rerun.replaying import replay as replay_tape

    with reading(store) as opened:
        result = replay_tape(named(opened, ref), store=opened, timing=timing, **start.asked())
    if as_json:
        print_json({**asdict(result), "passed": result.passed})
    else:
        print("\n".join(result.receipt))
    return 0 if result.passed else FINDING
