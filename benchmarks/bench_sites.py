"""Call sites: what it costs to find the agent's own line, from below the frames of an SDK."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from report import Figure, report

from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.seam import sites

CALLS, ROUNDS = 5_000, 9
FRAMES = 25
"""Frames of libraries between the agent's line and the seam: SDKs have 10 to 20."""
MOST = 5.0
"""Microseconds that a call may take."""
# As a library's code, so that none of its frames counts as the agent's.
LIBRARY = """
def timed(ask, calls, clock, depth):
    if depth > 1:
        return timed(ask, calls, clock, depth - 1)
    started = clock()
    for _ in range(calls):
        ask()
    return (clock() - started) / calls / 1000

async def task(*told):
    return timed(*told)
"""


def library() -> dict[str, Any]:
    """The names of that library, with a file among the installed packages."""
    names: dict[str, Any] = {"__name__": "library"}
    exec(compile(LIBRARY, str(Path(httpx2.__file__)), "exec"), names)
    return names


def nothing() -> None:
    """What a call costs by itself."""


async def gathered(task: Callable[..., Any], *told: object) -> float:
    """Microseconds of a call in a task whose own frames are a library's alone."""
    (found,) = await asyncio.gather(task(*told))
    return found


def main() -> None:
    """Measure a call that finds its site beside one that does nothing, round by round."""
    names, ask = library(), partial(sites.site, Redactor())
    timed, task = names["timed"], names["task"]
    sites.begin()
    how = CALLS, time.process_time_ns, FRAMES
    plain: list[float] = []
    awaited: list[float] = []
    for _ in range(ROUNDS):
        besides = timed(nothing, *how)
        plain.append(timed(ask, *how) - besides)
        awaited.append(asyncio.run(gathered(task, ask, *how)) - besides)
    beneath = f"below {FRAMES} frames of a library"
    report(
        "sites",
        (
            Figure(f"the agent's line, {beneath}", statistics.median(plain), "µs", MOST),
            Figure(
                "where the agent gathers a library's task, the same", statistics.median(awaited), "µs", 10
            ),
        ),
    )


if __name__ == "__main__":
    main()
