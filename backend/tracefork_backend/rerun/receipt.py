"""What a replay found: what matched, what drifted, and whether it was bit-exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import Drift
from tracefork_otel.play.tools import ToolsMode
from tracefork_otel.tape.digest import digest_of
from tracefork_otel.tape.tape import Tape

from .evidence import Draws, Evidence, Exchanges, Redaction, Tools
from .records import DriftReport, Leak, Records, last_line

_SIGNALLED = 128
"""Statuses above this mean that a signal ended the process: who killed the recorded agent is not here now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
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
    result: object = None
    """What the agent function returned: the object itself in place, else its text."""
    stdout: str = ""
    stderr: str = ""
    """The beginning and the end of both, if the agent had a process of its own; else of its error."""
    kept: bool = True
    """Whether the replay is a run of the store."""
    draws: str | None = None
    """What became of the recorded clocks, ids and random values; None where none were recorded."""
    tools: str | None = None
    """What became of the calls of `@tool` functions; None where there were none."""
    notes: tuple[str, ...] = ()
    """What a reader should know of the tape; none of it fails the replay."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs, nothing is missing and nothing left unseen."""
        same = self.replay_digest == self.tape_digest or not self.exact
        return same and not (self.drifts or self.missing or self.leaks or self.problems)

    @property
    def receipt(self) -> tuple[str, ...]:
        """The lines for a person; the first is the sum, the last says PASS or FAIL."""
        same = self.replay_digest == self.tape_digest
        verdict = "equal" if same else "not equal" if self.exact else "not compared"
        lines = [
            f"{self.matched} of {self.total} exchanges served from the tape, 0 bytes from the network"
            if not (self.leaks or self.problems)
            else f"{self.matched} of {self.total} exchanges served from the tape",
            f"digest  {self.replay_digest}",
            f"tape    {self.tape_digest}  {verdict}",
        ]
        if self.draws is not None:
            lines.append(f"draws   {self.draws}")
        if self.tools is not None:
            lines.append(f"tools   {self.tools}")
        if self.exit_status is not None:
            known = self.expected_exit_status
            lines.append(f"exit    {self.exit_status}" + ("" if known is None else f", recorded {known}"))
        if self.kept and self.matched:
            lines.append(f"replay  {self.replay_run_id[:8]}")
        lines += [f"drift   {drift.text}" for drift in self.drifts]
        if self.missing and any(drift.cause != "missing" for drift in self.drifts):
            lines.append(f"missing {_steps(self.missing)}: never asked for")
        lines += [
            f"leak    {leak.host}:{leak.port} by {leak.caller}: not served from the tape; if that is meant: "
            f"--allow-host {leak.host}"
            for leak in self.leaks
        ]
        lines += [f"problem {problem}" for problem in self.problems]
        lines += [f"note    {note}" for note in self.notes]
        if self.passed:
            return (*lines, "PASS    bit-exact" if self.exact else "PASS    equal in what was compared")
        return (*lines, f"FAIL    {self._failure()}")

    def _failure(self) -> str:
        if self.drifts:
            first = self.drifts[0]
            return f"{first.cause} at step {first.step}"
        if self.leaks:
            return f"{len(self.leaks)} connection(s) went round the tape"
        return self.problems[0] if self.problems else "the bytes differ from the tape's"

    def raise_for_drift(self) -> ReplayResult:
        """Return this result, if it passed; raise Drift with the receipt's findings otherwise."""
        if not self.passed:
            found = [line for line in self.receipt if line.startswith(("drift", "leak", "problem", "FAIL"))]
            raise Drift("\n".join(found))
        return self


def compare(
    tape: Tape, records: Records, *, exit_status: int | None, stderr: str, tools: ToolsMode | None = None
) -> dict[str, Any]:
    """Return the fields of a ReplayResult that the replay's records decide; `tools` is what was asked for."""
    exchanges, calls, draws = Exchanges(tape), Tools(tape, tools), Draws(tape)
    kinds: tuple[Evidence, ...] = (exchanges, calls, draws, Redaction(tape.exchanges))
    served, problems = exchanges.served(records)
    missing = tuple(step for step in range(tape.steps) if step not in served)
    drifts = records.drifts()
    if not drifts and crashed(tape, exit_status, missing=bool(missing)):
        drifts = (_agent_error(tape, min(missing, default=tape.steps), exit_status, stderr),)
    return {
        "matched": len(served),
        "total": tape.steps,
        "missing": missing,
        "drifts": drifts or next(filter(None, (tuple(kind.missing(records)) for kind in kinds)), ()),
        "leaks": records.leaks(),
        "problems": (*problems, *(f"the replay was not recorded whole: {why}" for why in records.losses())),
        "draws": draws.line(records),
        "tools": calls.line(records),
        "tape_digest": tape.digest,
        "replay_digest": digest_of(served[step] for step in sorted(served)),
        "exit_status": exit_status,
        "expected_exit_status": tape.start.exit_status,
        "notes": tuple(remark for kind in kinds for remark in kind.remarks(records)),
    }


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
