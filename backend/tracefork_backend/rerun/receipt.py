"""What a replay found: what matched, what drifted, and whether it was bit-exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracefork_otel.errors import Drift
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.match import Cause, Explanation
from tracefork_otel.play.tools import ToolsMode, mode_of
from tracefork_otel.store.records import Note, SpanRecord, ToolCall
from tracefork_otel.tape.tape import Tape, digest_of

from . import called, drawn, redacted

# Statuses above this mean that a signal ended the process: who killed the recorded agent is not here now.
_SIGNALLED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One way in which a replay differs from its tape."""

    step: int
    cause: Cause
    text: str
    """One line for a person."""
    path: str = ""
    recorded: str | None = None
    got: str | None = None
    nearest: int | None = None
    differences: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A connection that went round the seam."""

    host: str
    port: int | None
    caller: str


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
        """This result, if it passed; raises Drift with the receipt's findings otherwise."""
        if not self.passed:
            found = [line for line in self.receipt if line.startswith(("drift", "leak", "problem", "FAIL"))]
            raise Drift("\n".join(found))
        return self


def compare(
    tape: Tape,
    exchanges: Sequence[Exchange],
    notes: Sequence[Note],
    *,
    exit_status: int | None,
    stderr: str,
    spans: Sequence[SpanRecord] = (),
    tools: ToolsMode | None = None,
) -> dict[str, object]:
    """The fields of a ReplayResult that the replay's own records decide; `tools` is what was asked for."""
    steps = {exchange.span_id: step for step, exchange in enumerate(tape.exchanges)}
    served: dict[int, Exchange] = {}
    problems: list[str] = []
    for exchange in exchanges:
        if "tracefork.drift" in exchange.attributes:
            continue
        if exchange.served_span_id in steps:
            step = steps[str(exchange.served_span_id)]
            if step in served:
                problems.append(f"step {step} was served twice, to two processes that sent the same request")
            served.setdefault(step, exchange)
        else:
            where = f"{exchange.request.method} {exchange.request.url}"
            problems.append(f"{where} was not served: {exchange.error_message or 'it went over the network'}")
    missing = tuple(step for step in range(tape.steps) if step not in served)
    return {
        "matched": len(served),
        "total": tape.steps,
        "missing": missing,
        "drifts": _drifts(tape, _explained([*exchanges, *spans]), missing, exit_status, stderr, spans)
        or _unasked(tape, spans, tools),
        "leaks": _leaks(notes),
        "problems": (*problems, *_losses(notes)),
        "draws": drawn.account(tape, notes),
        "tools": called.account(tape, spans),
        "tape_digest": tape.digest,
        "replay_digest": digest_of(served[step] for step in sorted(served)),
        "exit_status": exit_status,
        "expected_exit_status": tape.start.exit_status,
        "notes": (
            *(f"the recording is incomplete: {note.attributes.get('why', note.kind)}" for note in tape.notes),
            *called.others(spans),
            *filter(None, (redacted.note(tape.exchanges),)),
        ),
    }


def _explained(recorded: Sequence[Exchange | SpanRecord]) -> list[Explanation]:
    """Why requests, and calls of tools, were refused: each reason once, the first one first."""
    found: dict[str, Explanation] = {}
    for one in sorted(recorded, key=lambda one: one.started_ns):
        told = one.attributes.get("tracefork.drift")
        if isinstance(told, str):
            explanation = Explanation.from_json(told)
            found.setdefault(explanation.fingerprint, explanation)
    return list(found.values())


def _unasked(tape: Tape, spans: Sequence[SpanRecord], tools: ToolsMode | None) -> tuple[DriftReport, ...]:
    """Recorded calls of tools that did not come, where nothing else explains that."""
    if mode_of(tools, tape.tools) == "live":
        return ()
    found: list[DriftReport] = []
    for call in called.unasked(tape, spans):
        step = called.step_before(tape, call)
        what = f"tool {call.name}({call.arguments})"
        found.append(
            DriftReport(
                step=step,
                cause="missing",
                text=f"step {step}: {what} was recorded, but never called (missing): "
                "the agent makes fewer calls",
                recorded=what,
            )
        )
    return tuple(found)


def _drifts(
    tape: Tape,
    explained: Sequence[Explanation],
    missing: tuple[int, ...],
    exit_status: int | None,
    stderr: str,
    spans: Sequence[SpanRecord],
) -> tuple[DriftReport, ...]:
    """The drifts; a crash and calls that did not come are told where no drift explains them."""
    found = [
        DriftReport(
            step=one.step,
            cause=one.cause,
            text=one.text(),
            path=one.path,
            recorded=one.recorded,
            got=one.got,
            nearest=one.nearest,
            differences=one.differences,
        )
        for one in explained
    ]
    if found:
        return tuple(found)
    if crashed(tape, exit_status, missing=bool(missing)):
        expected = tape.start.exit_status
        return (_agent_error(min(missing, default=tape.steps), exit_status, expected, stderr),)
    served = called.served(tape, spans)
    return tuple(_missing(tape, step, served) for step in missing)


def crashed(tape: Tape, exit_status: int | None, *, missing: bool) -> bool:
    """Whether the agent ended in another way than in the recording, as far as that is known."""
    expected = tape.start.exit_status
    if exit_status is None or exit_status == expected:
        return False
    if expected is None:  # nobody saw the recorded process end: a failure counts if it cost calls
        return exit_status != 0 and missing
    return expected <= _SIGNALLED


def _agent_error(step: int, got: int | None, expected: int | None, stderr: str) -> DriftReport:
    last = last_line(stderr)
    return DriftReport(
        step=step,
        cause="agent_error",
        text=f"step {step}: the agent ended with status {got}, recorded {expected}"
        + (f": {last}" if last else ""),
        path="exit status",
        recorded=None if expected is None else str(expected),
        got=str(got),
    )


def last_line(text: str) -> str:
    """The last line that says something: of a traceback, the error."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _missing(tape: Tape, step: int, tools: Sequence[ToolCall]) -> DriftReport:
    """A request that did not come, during whose recorded making one of these calls went on, or none."""
    request, started_ns = tape.exchanges[step].request, tape.exchanges[step].started_ns
    shown = f"{request.method} {request.url}"
    during = next((one.name for one in tools if one.started_ns <= started_ns <= one.ended_ns), None)
    why = (
        "the agent makes fewer calls"
        if during is None
        else f"it was made during a call of the tool {during}, whose result was served: let it run, "
        "with --tools live"
    )
    return DriftReport(
        step=step,
        cause="missing",
        text=f"step {step}: {shown} was recorded, but never asked for (missing): {why}",
        recorded=shown,
        nearest=step,
    )


def _leaks(notes: Sequence[Note]) -> tuple[Leak, ...]:
    found: dict[Leak, None] = {}
    for note in notes:
        if note.kind == "leak":
            port = note.attributes.get("port")
            leak = Leak(
                host=str(note.attributes.get("host", "?")),
                port=port if isinstance(port, int) else None,
                caller=str(note.attributes.get("caller", "?")),
            )
            found.setdefault(leak)
    return tuple(found)


def _losses(notes: Sequence[Note]) -> list[str]:
    return [
        f"the replay was not recorded whole: {note.attributes.get('why', 'unknown')}"
        for note in notes
        if note.kind == "lost"
    ]


def _steps(steps: Sequence[int]) -> str:
    listed = ", ".join(map(str, steps[:8]))
    return f"step{'s' if len(steps) > 1 else ''} {listed}{', …' if len(steps) > 8 else ''}"
