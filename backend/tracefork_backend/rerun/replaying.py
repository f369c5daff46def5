"""A run's agent started again, every request of it answered from the tape, and the two compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tracefork_otel.errors import AgentFailed, TraceforkError
from tracefork_otel.play.match import MatchMode
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Timing
from tracefork_otel.tape.tape import Tape

from ..grading.graded import Graded, graded_run
from ..grading.oracle import Oracle, grade
from ..store import Run, Store
from ..writeback.spans import RootSpan
from .answering import is_request
from .receipt import ReplayResult, compare, crashed
from .records import DriftReport, Leak, Records
from .said import Said
from .stage import Stage
from .starting import Agent, Ended, own_words, playable
from .watch import OnDrift

INTERRUPTED = "the replay was interrupted: this is what is known so far"

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
    skip_hosts: Sequence[str] = (),
    tools: ToolsMode | None = None,
    trust: bool = False,
    go_on: bool = False,
    on_drift: OnDrift | None = None,
    oracle: Oracle | None = None,
) -> ReplayResult:
    """Start the agent again on its tape and compare it with its recording; no request leaves the machine.

    `agent` is `pkg.mod:fn` or a function to call in this process, instead of what was recorded; `timeout`
    holds for agents in a process of their own. `tools` says what calls of `@tool` functions get: `recorded`
    results (the default where there are any), a `live` call, or none but recorded ones (`refuse`). The replay
    is a run of the store, if there is one. What this machine's own recorder did not record is started only
    with `trust`. `on_drift` is given the first drift in words when it happens; an agent in a process of its
    own that then gets nothing from its tape for some seconds is ended, unless it may `go_on`. What interrupts
    the replay has the receipt, as far as it goes, as its note. `oracle` grades what a replay that passes put
    out: the recorded run did the same. Raises AgentFailed if the agent cannot be started or does not end,
    UsageError if nothing that is trusted says how to start it, or the oracle cannot be asked.
    """
    how = playable(
        "replay",
        match=match,
        ignore=ignore,
        timing=timing,
        allow_hosts=allow_hosts,
        skip_hosts=skip_hosts,
        tools=tools,
    )
    if store is None and isinstance(source, Run):
        store = source.store
    kept = store is not None and store.writable  # one that does not exist yet is not made for it
    with Stage(
        source,
        how,
        agent=agent,
        store=store.path if store is not None and kept else None,
        trust=trust,
        go_on=go_on,
        on_drift=on_drift,
    ) as stage:
        tape = stage.tape
        root = _root(stage, store)
        space = stage.workspace.trial()

        def result_of(ended: Ended, records: Records, ended_early: str | None) -> ReplayResult:
            found = compare(
                tape,
                records,
                exit_status=ended.exit_status,
                stderr=ended.stderr,
                tools=tools,
                whole=ended_early is None,
                answered=graded_run(source).output if is_request(tape) else None,
            )
            said = Said(ended=ended, records=records, space=space)
            if ended.given_up and found["ends"] and not found["missing"]:
                ended_early = None  # it went on beyond the end of its recording, and was ended there
            if ended.rested and not found["missing"]:
                ended_early, found["notes"] = None, (*found["notes"], ended.rested)
            return ReplayResult(
                run_id=tape.run_id,
                replay_run_id=root.trace_id,
                kept=kept,
                exact=match == "exact" and not ignore,
                ended_early=ended_early,
                **found,
                **said.fields(),
            )

        try:
            ended, records = stage.run(space, root, timeout=timeout)
        except KeyboardInterrupt as stopped:
            # What is half written may not be readable, and is no reason to end otherwise.
            with suppress(TraceforkError, OSError):
                far = result_of(Ended(exit_status=None, name=""), stage.records(space), INTERRUPTED)
                stopped.add_note("\n".join(far.receipt))
            root.end(attributes={"tracefork.replay.passed": False}, status="ERROR", message=INTERRUPTED)
            raise
        _check(tape, ended, records)
        result = result_of(ended, records, ended.given_up or ended.rested or ended.too_long)
        said = Said(ended=ended, records=records, space=space)
        if oracle is not None and result.passed:
            graded = Graded(
                run_id=tape.run_id,
                exit_status=result.exit_status,
                last_text=graded_run(tape).last_text,
                stderr=result.stderr,
                **said.graded(),
            )
            result = replace(result, outcome=grade(oracle, graded, limit_s=timeout))
        root.end(
            outcome=result.outcome,
            attributes={
                **said.attributes(stage.redactor),
                "tracefork.exit_status": result.exit_status,
                "tracefork.replay.passed": result.passed,
                "tracefork.tape.digest": result.tape_digest,
                "tracefork.replay.digest": result.replay_digest,
            },
            status="UNSET" if result.passed else "ERROR",
            message=None if result.passed else result.receipt[-1],
        )
        said.close()
    if ended.too_long is not None:
        raise AgentFailed("\n".join((ended.too_long + own_words(ended.stderr), *result.receipt)))
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
    """Raise AgentFailed if the agent was never at work."""
    if ended.not_started is not None:
        raise AgentFailed(ended.not_started)
    nothing = not records.exchanges and tape.steps and not ended.in_place and ended.timed_out is None
    if nothing and crashed(tape, ended.exit_status, missing=True):
        raise AgentFailed(
            f"{ended.name} ended with status {ended.exit_status} before its first request"
            f"{own_words(ended.stderr)}"
        )
