"""A run forked at a step: its prefix replayed, one thing changed, and the agent left to go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Tail
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.tape.tape import Tape

from ..grading.oracle import Oracle
from ..store import Run, Store
from .edits import Edit, checked
from .forker import DEFAULT_TIMEOUT, Forker, Gate, OnDone, Planned
from .result import Fork, Problem, ProblemKind
from .starting import Agent

__all__ = ["Fork", "Forker", "Gate", "OnDone", "Planned", "Problem", "ProblemKind", "fork"]


@overload
def fork(
    run: Run | Tape,
    *,
    at: int,
    edit: Edit,
    agent: Agent | None = ...,
    tail: Tail = ...,
    times: Literal[1] = ...,
    jobs: int = ...,
    timeout: float | None = ...,
    store: Store | None = ...,
    oracle: Oracle | None = ...,
    on_done: OnDone | None = ...,
    match: MatchMode = ...,
    ignore: Sequence[str] = ...,
    allow_hosts: Sequence[str] = ...,
    tools: ToolsMode | None = ...,
) -> Fork: ...
@overload
def fork(
    run: Run | Tape,
    *,
    at: int,
    edit: Edit,
    agent: Agent | None = ...,
    tail: Tail = ...,
    times: int,
    jobs: int = ...,
    timeout: float | None = ...,
    store: Store | None = ...,
    oracle: Oracle | None = ...,
    on_done: OnDone | None = ...,
    match: MatchMode = ...,
    ignore: Sequence[str] = ...,
    allow_hosts: Sequence[str] = ...,
    tools: ToolsMode | None = ...,
) -> list[Fork]: ...
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
    tools: ToolsMode | None = None,
) -> Fork | list[Fork]:
    """The fork of a run that is changed by this edit at this step; a list of them if `times` is not 1.

    `on_done` is given each fork as it ends; `timeout` holds for agents in processes of their own; `tools`
    says what calls of `@tool` functions get, as it does to `replay`. What goes wrong with an agent is the
    fork's `problem`, not an exception. Raises UsageError if the edit does not fit the step or nothing says
    how to start the agent, StoreError if the forks cannot be kept.
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
        tools=tools,
        warm=times > 1,
    ) as forker:
        planned = Planned(change=edit.bind(forker.tape, at, tail=tail))
        made = forker.forks([planned] * times, oracle=oracle, on_done=on_done)
    return made[0] if times == 1 else made
