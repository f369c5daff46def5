"""What a replay found: what matched, what drifted, and whether it was bit-exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tracefork_otel.errors import Drift
from tracefork_otel.exchange import Exchange, Request
from tracefork_otel.play.meaning import meant
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.tape.digest import digest_of
from tracefork_otel.tape.tape import Tape

from ..displayed import Displayed
from ..spelling import counted, run_name
from .answering import answers
from .evidence import Draws, Evidence, Exchanges, Redaction, Tools, uncompared
from .extent import why_short
from .records import DriftReport, Leak, Records, last_line

_SIGNALLED = 128
"""Statuses above this mean that a signal ended the process: who killed the recorded agent is not here now."""

_LEFT = ("closed", "abandoned", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult(Displayed):
    """How a replay compares with its tape."""

    run_id: str
    replay_run_id: str
    matched: int
    """Recorded exchanges that were served."""
    total: int
    drifts: tuple[DriftReport, ...] = ()
    missing: tuple[int, ...] = ()
    """Steps that nobody asked for."""
    leaks: tuple[Leak, ...] = ()
    problems: tuple[str, ...] = ()
    """Why what was seen is not all there was."""
    tape_digest: str
    replay_digest: str
    """The same hash chain over what the replay itself sent and was given."""
    exact: bool = True
    """Whether the digests must be equal; not where paths are ignored or JSON is compared as values."""
    exit_status: int | None = None
    expected_exit_status: int | None = None
    answered: str | None = None
    """How a request to a web application was answered, beside how it was then; None if it is none."""
    result: object = None
    """What the agent function returned: the object itself in place, else its text."""
    stdout: str = ""
    stderr: str = ""
    """The beginning and the end of both, if the agent had a process of its own; else of its error."""
    left_out: int = 0
    """How many bytes of the middle of the result, or else of the output, are not in it."""
    outcome: bool | None = None
    """What the oracle said of it, if one was given and the replay passed: the recorded run's own outcome."""
    kept: bool = True
    """Whether the replay is a run of the store."""
    draws: str | None = None
    """What became of the recorded clocks, ids and random values; None where none were recorded."""
    tools: str | None = None
    """What became of the calls of `@tool` functions; None where there were none."""
    ends: str | None = None
    """Where and why the recording ends before its agent had, and what the agent asked for there."""
    renewed: tuple[int, ...] = ()
    """Steps whose requests have other bytes that a transport makes up, and are the same else."""
    uncompared: tuple[int, ...] = ()
    """Steps with values that redaction replaced and that could not be compared."""
    ended_early: str | None = None
    """Why the agent was ended before it had done all that it does; None if it was not."""
    programs: tuple[str, ...] = ()
    """What is said of programs that nothing plays to, and that were not seen to ask anybody."""
    went_out: bool = False
    """Whether a request that is no part of the run was made over the network; a note says whose."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the tape; none of it fails the replay."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs, nothing is missing and nothing left unseen."""
        same = self.replay_digest == self.tape_digest or not self.exact
        found = self.drifts or self.missing or self.leaks or self.problems or self.ended_early
        return same and not found

    @property
    def receipt(self) -> tuple[str, ...]:
        """The lines for a person; the first is the sum, the last says PASS or FAIL."""
        same = self.replay_digest == self.tape_digest
        verdict = "equal" if same else "not equal" if self.exact else "not compared"
        lines = [
            f"{self.matched} of {self.total} exchanges served from the tape, 0 bytes from the network"
            if not (self.leaks or self.problems or self.programs or self.went_out)
            else f"{self.matched} of {self.total} exchanges served from the tape",
            f"digest  {self.replay_digest}",
            f"tape    {self.tape_digest}  {verdict}",
        ]
        if self.draws is not None:
            lines.append(f"draws   {self.draws}")
        if self.tools is not None:
            lines.append(f"tools   {self.tools}")
        if self.exit_status is not None and not self.ended_early:
            known = self.expected_exit_status
            lines.append(f"exit    {self.exit_status}" + ("" if known is None else f", recorded {known}"))
        if self.answered is not None and not self.ended_early:
            lines.append(f"answer  {self.answered}")
        if self.kept and self.matched:
            lines.append(f"replay  {run_name(self.replay_run_id)}")
        for drift in self.drifts:
            lines += [f"drift   {drift.text}", *([f"at      {drift.site}"] if drift.site else [])]
        if self.missing and (self.ended_early or any(drift.cause != "missing" for drift in self.drifts)):
            so_far = "not asked for so far" if self.ended_early else "never asked for"
            lines.append(f"missing {_steps(self.missing)}: {so_far}")
        lines += [f"leak    {leak.text}" for leak in self.leaks]
        lines += [f"problem {problem}" for problem in self.problems]
        lines += [f"ends    {self.ends}"] if self.ends else []
        lines += [f"ended   {self.ended_early}"] if self.ended_early else []
        lines += [f"note    {note}" for note in (*self.programs, *self.notes)]
        if self.passed:
            as_far = "" if self.ends is None else ", as far as the recording goes"
            exact = self.exact and not (self.renewed or self.uncompared)
            return (*lines, f"PASS    {'bit-exact' if exact else 'equal in what was compared'}{as_far}")
        return (*lines, f"FAIL    {self._failure()}")

    def _failure(self) -> str:
        if self.drifts:
            first = self.drifts[0]
            return f"{first.cause} at step {first.step}"
        if self.leaks:
            programs = sum(leak.port is None for leak in self.leaks)
            kinds = {"connection": len(self.leaks) - programs, "program": programs}
            return f"{' and '.join(counted(n, kind) for kind, n in kinds.items() if n)} went round the tape"
        if self.problems:
            return self.problems[0]
        return "it was not seen to its end" if self.ended_early else "the bytes differ from the tape's"

    def raise_for_drift(self) -> ReplayResult:
        """Return this result, if it passed; raise Drift with the receipt's findings otherwise."""
        if not self.passed:
            found = [
                line for line in self.receipt if line.startswith(("drift", "at ", "leak", "problem", "FAIL"))
            ]
            raise Drift("\n".join(found))
        return self


def compare(
    tape: Tape,
    records: Records,
    *,
    exit_status: int | None,
    stderr: str,
    tools: ToolsMode | None = None,
    whole: bool = True,
    answered: object = None,
) -> dict[str, Any]:
    """Return the fields of a ReplayResult that the replay's records decide; `tools` is what was asked for.

    `answered` is what a web application answered when it was recorded, as JSON, where that is known.
    Of an agent that was not seen to its end (not `whole`) nothing is missing that it may have come to.
    """
    exchanges, calls, draws = Exchanges(tape), Tools(tape, tools), Draws(tape)
    kinds: tuple[Evidence, ...] = (exchanges, calls, draws, Redaction(tape.exchanges))
    served, problems = exchanges.served(records)
    missing = tuple(step for step in range(tape.steps) if step not in served)
    drifts = records.drifts()
    absent = next(filter(None, (tuple(kind.missing(records)) for kind in kinds)), ())
    again = {step: _as_recorded(tape.exchanges[step], served[step]) for step in sorted(served)}
    renewed = tuple(step for step, one in again.items() if one is not served[step])
    ends = why_short(tape)
    if ends is not None and not absent:
        # All that was recorded came again: what goes beyond it was not recorded, and is no drift.
        ends += _beyond(records)
        drifts = ()
    elif whole and not drifts and crashed(tape, exit_status, missing=bool(missing)):
        drifts = (_agent_error(tape, min(missing, default=tape.steps), exit_status, stderr),)
    answer = None if answered is None else answers(tape, answered, records.result())
    if whole and not drifts and answer is not None:
        drifts = answer.drifts
    return {
        "matched": len(served),
        "total": tape.steps,
        "missing": missing,
        "drifts": drifts or (absent if whole else ()),
        "leaks": records.leaks(),
        "programs": records.programs(),
        "went_out": records.went_out,
        "problems": (*problems, *(f"the replay was not recorded whole: {why}" for why in records.losses())),
        "draws": draws.line(records),
        "tools": calls.line(records),
        "tape_digest": tape.digest,
        "replay_digest": digest_of(
            (_as_it_was_left(tape, step, one) for step, one in again.items()), tape.format
        ),
        "renewed": renewed,
        "uncompared": tuple(step for step, one in sorted(served.items()) if uncompared(one)),
        "exit_status": exit_status,
        "expected_exit_status": tape.start.exit_status,
        "answered": None if answer is None else answer.text,
        "notes": (
            *records.at_import(),
            *(remark for kind in kinds for remark in kind.remarks(records)),
            *_said_of(renewed),
            *records.telemetry(),
            *records.written(),
        ),
        "ends": ends,
    }


def _as_recorded(recorded: Exchange, served: Exchange) -> Exchange:
    """Return the exchange with the recorded body where its own differs in what a transport makes up alone."""
    asked, before = served.request, recorded.request
    if asked.sha256 == before.sha256 or meant(asked) != meant(before):
        return served
    body = before.body
    return replace(
        served, request=Request(method=asked.method, url=asked.url, headers=asked.headers, body=body)
    )


def _said_of(renewed: Sequence[int]) -> tuple[str, ...]:
    if not renewed:
        return ()
    return (
        f"{_steps(renewed)}: the request differs in what its transport makes up (a multipart boundary, trace "
        "context, a content coding), which is not compared",
    )


def _as_it_was_left(tape: Tape, step: int, served: Exchange) -> Exchange:
    """Return the exchange; one that the agent left as it was ended itself has the ending from there."""
    outcome = tape.exchanges[step].outcome
    stopped = tape.cut_short is not None and outcome in _LEFT and served.outcome in ("cut", "failed")
    return replace(served, outcome=outcome) if stopped else served


def _beyond(records: Records) -> str:
    """Return, as the end of a sentence, what the agent first asked for that was not recorded."""
    first = next(iter(records.refused()), None)
    if first is None:
        return ""
    asked = f"{first.request.method} {first.request.url}" if isinstance(first, Exchange) else first.name
    return f"; the agent went on to {asked}, which has no recorded answer"


def crashed(tape: Tape, exit_status: int | None, *, missing: bool) -> bool:
    """Return whether the agent ended in another way than in the recording, as far as that is known."""
    expected = tape.start.exit_status
    if exit_status is None or exit_status == expected:
        return False
    if expected is None:  # nobody saw the recorded process end: a failure counts if it cost calls
        return exit_status != 0 and missing
    return expected <= _SIGNALLED


def _agent_error(tape: Tape, step: int, got: int | None, stderr: str) -> DriftReport:
    expected, last = tape.start.exit_status, last_line(stderr)
    return DriftReport(
        step=step,
        cause="agent_error",
        text=f"step {step}: the agent ended with status {got}, recorded {expected}"
        + (f": {last}" if last else ""),
        path="exit status",
        recorded=None if expected is None else str(expected),
        got=str(got),
    )


def _steps(steps: Sequence[int]) -> str:
    listed = ", ".join(map(str, steps[:8]))
    return f"step{'s' if len(steps) > 1 else ''} {listed}{', …' if len(steps) > 8 else ''}"
