"""A run's agent started again, every request of it answered from the tape, and the two compared."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tracefork_otel.decorators.main import NOT_STARTED
from tracefork_otel.errors import AgentFailed, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.match import parse_paths
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.settings import Settings
from tracefork_otel.store.records import ProcessStarted, SpanRecord
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.tape.tape import Tape

from ..agents import (
    executable,
    given_back,
    kept_settings,
    run_command,
    traced,
    unstartable,
    working_directory,
    write_spans,
)
from ..agents.in_place import call, playing
from ..agents.reach import reached, why_nothing
from ..network.agents import behind_proxy, recorded_routes
from ..store import Run, Store
from .receipt import ReplayResult, compare, crashed
from .reconstruct import reconstruct, with_script_folder
from .records import DriftReport, Leak, Records
from .starting import check_tools

__all__ = ["DriftReport", "Leak", "ReplayResult", "replay"]

Agent: TypeAlias = str | Callable[..., Any]
MatchMode: TypeAlias = Literal["exact", "json"]
Timing: TypeAlias = Literal["none", "recorded"]

# No replay takes a day: what is older was left by one that was killed.
_STALE_S = 24 * 3600

# The agent's own error is shown whole up to this length, its end if it is longer.
_ERROR_LENGTH = 4000


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
    """How the agent, started again on its tape, compares with its recording; no request leaves the machine.

    `agent` is `pkg.mod:fn` or a function to call in this process, instead of what was recorded; `timeout`
    holds for agents in a process of their own. `tools` says what calls of `@tool` functions get: `recorded`
    results (the default where there are any), a `live` call, or none but recorded ones (`refuse`). The replay
    is a run of the store, if there is one. Raises AgentFailed if the agent cannot be started or does not end,
    UsageError if nothing says how to start it.
    """
    parse_paths(tuple(ignore))
    check_tools(tools)
    if isinstance(agent, str) and ":" not in agent:
        raise UsageError(f"the agent {agent!r} names no function: write it like pkg.mod:fn")
    if isinstance(source, Run):
        store = store or source.store
        tape = reconstruct(store, source, command=agent is None)
    else:
        tape = source
    with _workspace(store) as space:
        (space.tape.parent / (space.tape.name + ".claims")).mkdir()
        tape.dump(space.tape)
        kept = Settings.from_env(kept_settings(tape.start))
        settings = replace(
            kept,
            mode="replay",
            store=space.store,
            tape=space.tape,
            match=match,
            ignore=tuple(ignore),
            timing=timing,
            allow_hosts=tuple(allow_hosts),
            tools=tools,
            seal=False,
        )
        attempt = _Attempt(tape, space, settings, portable=isinstance(source, Tape))
        ended = attempt.in_place(agent) if callable(agent) else attempt.in_process(agent, timeout)
        found = attempt.collect(ended)
        result = replace(found, kept=_keeps(store), exact=match == "exact" and not ignore)
        attempt.write_root(result)
        if store is not None and _keeps(store):
            space.keep(store)
    return result


def _keeps(store: Store | None) -> bool:
    """Whether there is a store to keep the replay in; one that does not exist yet is not made for it."""
    return store is not None and store.writable


@dataclass(frozen=True, slots=True)
class _Workspace:
    """A store of the replay's own: nobody seals its WALs while they are read."""

    folder: Path

    @property
    def tape(self) -> Path:
        """The tape file."""
        return self.folder / "run.tape.jsonl"

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.folder / "store"

    def keep(self, store: Store) -> None:
        """What was recorded here is in the store."""
        target = store.path / "wal"
        target.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(self.store.glob("wal/*")):
            os.rename(path, target / path.name)


@contextlib.contextmanager
def _workspace(store: Store | None) -> Iterator[_Workspace]:
    # Beside the store's own files, so that what was recorded can be moved there.
    within = store.path if store is not None and _keeps(store) else None
    for left in within.glob(".replay-*") if within else ():
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".replay-", dir=within))
    try:
        yield _Workspace(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How the agent ended."""

    exit_status: int | None
    stdout: str = ""
    stderr: str = ""
    result: object = None
    argv: tuple[str, ...] | None = None
    """None if it ran in this process."""
    timed_out: float | None = None


class _Attempt:
    """One replay of one tape."""

    def __init__(self, tape: Tape, space: _Workspace, settings: Settings, *, portable: bool) -> None:
        self.tape = tape
        self.space = space
        self.settings = settings
        self.portable = portable
        self.trace_id = secrets.token_hex(16)
        self.span_id = secrets.token_hex(8)
        self.started_ns = time.time_ns()

    def in_place(self, agent: Callable[..., Any]) -> _Ended:
        """The function was called in this process; what it raised is data, not raised again."""
        with playing(self.settings, self.trace_id, self.span_id):
            try:
                result = call(agent, self.tape.start.arguments)
            except Exception:
                return _Ended(exit_status=1, stderr=traceback.format_exc())
            return _Ended(exit_status=0, result=result)

    def in_process(self, agent: str | None, timeout: float | None) -> _Ended:
        """The agent ran in a process of its own, of which nothing is left."""
        start = self.tape.start
        stdin: bytes | None = None
        entrypoint = agent if agent is not None else None if start.command else start.entrypoint
        if entrypoint is not None:
            argv = (sys.executable, "-m", "tracefork_otel.decorators.main", entrypoint)
            stdin = json.dumps(start.arguments).encode()
            start = with_script_folder(start)
        elif start.command:
            argv = executable(start.command)
        else:
            raise unstartable(self.tape.run_id, "replayed by", "--replay RUN")
        with behind_proxy(
            recorded_routes(start), self.settings, launch=(self.trace_id, self.span_id), name=self.tape.name
        ) as behind:
            finished = run_command(
                argv,
                env={**self._environment(start), **behind.environment},
                cwd=working_directory(start, portable=self.portable),
                timeout=timeout,
                stdin=stdin,
            )
        return _Ended(
            exit_status=finished.exit_status,
            stdout=finished.stdout.text(),
            stderr=finished.stderr.text(),
            argv=argv,
            timed_out=timeout if finished.reason == "timeout" else None,
        )

    def _environment(self, start: HowStarted) -> dict[str, str]:
        settings = self.settings
        return traced(
            given_back(start, os.environ),
            mode="replay",
            store=settings.store,
            trace_id=self.trace_id,
            span_id=self.span_id,
            settings={
                "TRACEFORK_TAPE": str(settings.tape),
                "TRACEFORK_MATCH": settings.match,
                "TRACEFORK_IGNORE": ",".join(settings.ignore),
                "TRACEFORK_TIMING": settings.timing,
                "TRACEFORK_ALLOW_HOSTS": ",".join(settings.allow_hosts),
                "TRACEFORK_TOOLS": settings.tools or "",
                "TRACEFORK_SEAL": "0",
                **kept_settings(start),
            },
        )

    def collect(self, ended: _Ended) -> ReplayResult:
        """The comparison; raises AgentFailed if the agent was never at work, or did not end."""
        records = Records.read(self.space.store)
        self._check(ended, records.processes, records.exchanges)
        fields: dict[str, Any] = compare(
            self.tape,
            records,
            exit_status=ended.exit_status,
            stderr=ended.stderr,
            tools=self.settings.tools,
        )
        return ReplayResult(
            run_id=self.tape.run_id,
            replay_run_id=self.trace_id,
            stdout=ended.stdout,
            stderr=ended.stderr,
            result=ended.result if ended.argv is None else records.result(),
            **fields,
        )

    def _check(
        self, ended: _Ended, processes: Sequence[ProcessStarted], exchanges: Sequence[Exchange]
    ) -> None:
        if ended.argv is None:
            return
        named = " ".join(ended.argv[-1:] if ended.argv[1:2] == ("-m",) else ended.argv)
        if ended.timed_out is not None:
            drifted = [str(one.error_message) for one in exchanges if "tracefork.drift" in one.attributes]
            raise AgentFailed(
                f"{named} did not end within {ended.timed_out:g} s and was ended; raise --timeout if it "
                f"needs longer{_own_words(ended.stderr)}"
                + "".join(f"\n{text}" for text in dict.fromkeys(drifted))
            )
        if ended.exit_status == NOT_STARTED:
            raise AgentFailed(f"the agent {named} cannot be imported{_own_words(ended.stderr)}")
        if not processes:
            if ended.exit_status:
                raise AgentFailed(f"{named} ended with status {ended.exit_status}{_own_words(ended.stderr)}")
            why = why_nothing(ended.argv, *reached(self.space.store, self.trace_id))
            raise AgentFailed(f"{named} ran outside of the replay: {why}")
        if not exchanges and self.tape.steps and crashed(self.tape, ended.exit_status, missing=True):
            raise AgentFailed(
                f"{named} ended with status {ended.exit_status} before its first request"
                f"{_own_words(ended.stderr)}"
            )

    def write_root(self, result: ReplayResult) -> None:
        """The span above all of the replay's, which says what was replayed and how that went."""
        tape = self.tape
        links = [
            {
                "trace_id": exchange.trace_id,
                "span_id": exchange.parent_span_id or exchange.span_id,
                "attributes": {"tracefork.link": "parent"},
            }
            for exchange in tape.exchanges[:1]
        ]
        root = SpanRecord(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_span_id=None,
            name=f"replay {tape.name}".strip(),
            kind="INTERNAL",
            started_ns=self.started_ns,
            ended_ns=time.time_ns(),
            status="UNSET" if result.passed else "ERROR",
            status_message=None if result.passed else result.receipt[-1],
            service="tracefork",
            scope="tracefork",
            attributes={
                **tape.start.attributes(),
                "tracefork.run.kind": "replay",
                "tracefork.parent.run_id": tape.run_id,
                "tracefork.replay.passed": result.passed,
                "tracefork.tape.digest": result.tape_digest,
                "tracefork.replay.digest": result.replay_digest,
            },
            links=links,
        )
        write_spans(self.space.store, self.trace_id, [root], mode="replay")


def _own_words(stderr: str) -> str:
    text = stderr.strip()
    if len(text) > _ERROR_LENGTH:
        text = "…" + text[-_ERROR_LENGTH:]
    return f"; it said:\n{text}" if text else ""
