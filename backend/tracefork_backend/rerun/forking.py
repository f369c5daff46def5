"""`fork`: one run, one step, one change, so many times."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Literal, TypedDict, Unpack, overload

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.tape import Tape

from ..grading.oracle import Oracle
from ..store import Run, Store
from ..store.prices import NONE_GIVEN, Given
from .edits import Edit, checked
from .forker import DEFAULT_TIMEOUT, Forker, OnDone, Planned
from .result import Fork
from .starting import Agent

__all__ = ["Fork", "fork"]


class Options(TypedDict, total=False):
    """What `fork` may be told besides what is changed, where, and how often."""

    agent: Agent | None
    tail: Tail
    jobs: int
    timeout: float | None
    store: Store | None
    oracle: Oracle | None
    on_done: OnDone | None
    match: MatchMode
    ignore: Sequence[str]
    allow_hosts: Sequence[str]
    skip_hosts: Sequence[str]
    timing: Timing
    tools: ToolsMode | None
    trust: bool
    go_on: bool
    prices: Given
    executor: Executor | None
    allow_drift: bool


@overload
def fork(
    run: Run | Tape, *, at: int, edit: Edit, times: Literal[1] = ..., **options: Unpack[Options]
) -> Fork: ...
@overload
def fork(run: Run | Tape, *, at: int, edit: Edit, times: int, **options: Unpack[Options]) -> list[Fork]: ...
def fork(
    run: Run | Tape,
    *,
    at: int,
    edit: Edit,
    agent: Agent | None = None,
    tail: Tail = "live",
    times: int = 1,
    jobs: int = 1,
    timeout: float | None = DEFAULT_TIMEOUT,
    store: Store | None = None,
    oracle: Oracle | None = None,
    on_done: OnDone | None = None,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
    allow_hosts: Sequence[str] = (),
    skip_hosts: Sequence[str] = (),
    timing: Timing = "none",
    tools: ToolsMode | None = None,
    trust: bool = False,
    go_on: bool = False,
    prices: Given = NONE_GIVEN,
    executor: Executor | None = None,
    allow_drift: bool = False,
) -> Fork | list[Fork]:
    """Return the fork of a run that is changed by this edit at this step; a list of them if `times` is not 1.

    `on_done` is given each fork as it ends; `timeout` holds for agents in processes of their own; `tools`,
    `trust` and `go_on` say what they say to `replay`, `prices` what models cost. With an `executor` each
    fork is a job of its workers, `jobs` at a time; one that has another Python, other packages or another
    commit than was recorded refuses it, unless it is to `allow_drift`. What goes wrong with an agent is the
    fork's `problem`, not an exception. Raises UsageError if the edit does not fit the step, nothing that is
    trusted says how to start the agent, or a worker refuses, StoreError if the forks cannot be kept.
    """
    if times < 1:
        raise UsageError(f"times={times}: ask for at least one fork")
    edit = checked(edit)
    with Forker(
        run,
        agent=agent,
        jobs=jobs,
        timeout=timeout,
        store=store,
        match=match,
        ignore=ignore,
        allow_hosts=allow_hosts,
        skip_hosts=skip_hosts,
        timing=timing,
        tools=tools,
        trust=trust,
        go_on=go_on,
        prices=prices,
        executor=executor,
        allow_drift=allow_drift,
        warm=times > 1,
    ) as forker:
        planned = Planned(change=edit.bind(forker.tape, at, tail=tail))
        made = forker.forks([planned] * times, oracle=oracle, on_done=on_done)
    return made[0] if times == 1 else made
