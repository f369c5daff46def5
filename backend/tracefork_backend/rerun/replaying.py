"""A run's agent started again, every request of it answered from the tape, and the two compared."""

from __future__ import annotations

from collections.abc import Sequence

from tracefork_otel.errors import AgentFailed
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Settings, Timing
from tracefork_otel.tape.tape import Tape

from ..store import Run, Store
from ..writeback.spans import RootSpan
from .receipt import ReplayResult, compare, crashed
from .records import DriftReport, Leak, Records
from .stage import Stage
from .starting import Agent, Ended, own_words, playable

__all__ = ["DriftReport", "Leak", "ReplayResult", "replay"]


def replay(
    source: Run | Tape,
    *,
    agent: Agent | None = None,
    store: Store | None = None,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
    timing: Timing = "none",
    timeout: float | None = 600.0,
    allow_hosts: Sequence[str] = (),
    tools: ToolsMode | None = None,
) -> ReplayResult:
    """Start the agent again on its tape and compare it with its recording; no request leaves the machine.

    `agent` is `pkg.mod:fn` or a function to call in this process, instead of what was recorded; `timeout`
    holds for agents in a process of their own. `tools` says what calls of `@tool` functions get: `recorded`
    results (the default where there are any), a `live` call, or none but recorded ones (`refuse`). The replay
    is a run of the store, if there is one. Raises AgentFailed if the agent cannot be started or does not end,
    UsageError if nothing says how to start it.
    """
    how = playable(
        Settings(
            mode="replay",
            match=match,
            ignore=tuple(ignore),
            timing=timing,
            allow_hosts=tuple(allow_hosts),
            tools=tools,
        )
    )
    if store is None and isinstance(source, Run):
        store = source.store
    kept = store is not None and store.writable  # one that does not exist yet is not made for it
    with Stage(source, how, agent=agent, store=store.path if store is not None and kept else None) as stage:
        tape = stage.tape
        root = _root(stage, store)
        ended, records = stage.run(stage.workspace.trial(), root, timeout=timeout)
        _check(tape, ended, records)
        result = ReplayResult(
            run_id=tape.run_id,
            replay_run_id=root.trace_id,
            stdout=ended.stdout,
            stderr=ended.stderr,
            result=ended.result if ended.in_place else records.result(),
            kept=kept,
            exact=match == "exact" and not ignore,
            **compare(tape, records, exit_status=ended.exit_status, stderr=ended.stderr, tools=tools),
        )
        root.end(
            attributes={
                "tracefork.exit_status": result.exit_status,
                "tracefork.replay.passed": result.passed,
                "tracefork.tape.digest": result.tape_digest,
                "tracefork.replay.digest": result.replay_digest,
            },
            status="UNSET" if result.passed else "ERROR",
            message=None if result.passed else result.receipt[-1],
        )
    return result


def _root(stage: Stage, store: Store | None) -> RootSpan:
    """Open the span above all of the replay's, linked to the one above all of its run's."""
    tape = stage.tape
    above = None if store is None else store.root_of(tape.run_id)
    if above is None and tape.exchanges:
        above = tape.exchanges[0].parent_span_id or tape.exchanges[0].span_id
    return stage.spans.open_replay(
        name=tape.name,
        parent_run_id=tape.run_id,
        parent_root_span_id=above,
        attributes=stage.start_attributes(),
    )


def _check(tape: Tape, ended: Ended, records: Records) -> None:
    """Raise AgentFailed if the agent was never at work, or did not end."""
    if ended.not_started is not None:
        raise AgentFailed(ended.not_started)
    if ended.timed_out is not None:
        refused = [
            f"\n{one.error_message}" for one in records.exchanges if "tracefork.drift" in one.attributes
        ]
        raise AgentFailed(
            f"{ended.name} did not end within {ended.timed_out:g} s and was ended; raise --timeout if it "
            f"needs longer{own_words(ended.stderr)}{''.join(refused)}"
        )
    nothing = not records.exchanges and tape.steps and not ended.in_place
    if nothing and crashed(tape, ended.exit_status, missing=True):
        raise AgentFailed(
            f"{ended.name} ended with status {ended.exit_status} before its first request"
            f"{own_words(ended.stderr)}"
        )
