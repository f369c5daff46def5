"""`replay`: run the agent again on its tape, with no network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from .options import (
    STORE,
    AgentOption,
    AllowHostOption,
    IgnoreOption,
    JsonOption,
    MatchOption,
    RunArgument,
    StoreOption,
    TimeoutOption,
    TimingOption,
    ToolsOption,
    one_of,
)
from .output import print_json

if TYPE_CHECKING:
    from tracefork_otel.play.tools import ToolsMode

    from ..rerun.replaying import ReplayResult
    from ..store import Store

FINDING = 1
MATCHES = ("exact", "json")
TIMINGS = ("none", "recorded")


def replay(
    ref: RunArgument = "last",
    store: StoreOption = STORE,
    agent: AgentOption = None,
    match: MatchOption = "exact",
    ignore: IgnoreOption = None,
    timing: TimingOption = "none",
    timeout: TimeoutOption = 600.0,
    allow_host: AllowHostOption = None,
    tools: ToolsOption = None,
    as_json: JsonOption = False,
) -> int:
    """Run the agent again, served from the tape; exit 0 if bit-exact, 1 with the drift explained."""
    from ..store import open_store

    with open_store(store) as opened:
        result = replay_ref(
            opened,
            ref,
            agent=agent,
            match=match,
            ignore=tuple(ignore or ()),
            timing=timing,
            timeout=timeout,
            allow_hosts=tuple(allow_host or ()),
            tools=tools,
        )
    if as_json:
        print_json({**asdict(result), "passed": result.passed})
    else:
        print("\n".join(result.receipt))
    return 0 if result.passed else FINDING


def replay_ref(
    opened: Store,
    ref: str,
    *,
    agent: str | None,
    match: str,
    ignore: tuple[str, ...],
    timing: str = "none",
    timeout: float,
    allow_hosts: tuple[str, ...],
    tools: str | None = None,
) -> ReplayResult:
    """The result of replaying a run of the store, or the tape file of that path."""
    from tracefork_otel.tape.tape import Tape

    from ..rerun.replaying import replay as replay_tape

    one_of("--match", match, MATCHES)
    one_of("--timing", timing, TIMINGS)
    asked = tools_asked(tools)
    path = Path(ref)
    source = Tape.load(path) if path.is_file() else opened.run(ref)
    return replay_tape(
        source,
        agent=agent,
        store=opened,
        match=cast('Literal["exact", "json"]', match),
        ignore=ignore,
        timing=cast('Literal["none", "recorded"]', timing),
        timeout=timeout,
        allow_hosts=allow_hosts,
        tools=asked,
    )


def tools_asked(value: str | None) -> ToolsMode | None:
    """The value of --tools; raises UsageError if it is none."""
    from tracefork_otel.play.tools import TOOLS_MODES

    if value is not None:
        one_of("--tools", value, TOOLS_MODES)
    return cast("ToolsMode | None", value)
