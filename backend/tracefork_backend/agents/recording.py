"""A command run in the foreground, as if typed, while every Python process of it records."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import cast

import tracefork_otel
from tracefork_otel.errors import AgentFailed, StoreError
from tracefork_otel.recording.process import process_started
from tracefork_otel.redaction import redact
from tracefork_otel.session.interpreter import program_of
from tracefork_otel.session.process import git_commit, remote_parent
from tracefork_otel.settings import Settings
from tracefork_otel.state.keeping import in_use, keep
from tracefork_otel.state.kept import kept_of, text_of
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.store.wal import Wal
from tracefork_otel.tape.marks import marked
from tracefork_otel.tape.start import STATE, STATE_LOST, HowStarted, given_as_bytes, kept_input

from ..network.agents import Route, behind_proxy, routes_of
from ..spelling import run_name
from ..store import Store, open_store, outgoing, states
from ..store.drawn import shortfalls
from ..store.lost import losses
from ..store.unseen import unseen
from ..writeback.sending import CLOSE_S, endpoint
from .environment import inside_another, reaching, recordable, traced
from .foreground import INTERRUPTED, run_inherited
from .given_input import LIMIT, GivenInput, given_input
from .kept_output import kept_output
from .left import Left, left_by, noted, still_left
from .nested import said_inside
from .output import Output, output_attributes
from .reach import reached, short_name, unwritable, why_nothing
from .watching import Watch

SCOPE = "tracefork"
_NOTHING_CAPTURED = AgentFailed.exit_status


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run that the command made."""

    run_id: str
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What came of a recorded command."""

    exit_status: int
    """The command's own; 3 if it was 0 and nothing could be captured."""
    launch_id: str
    runs: tuple[RecordedRun, ...]
    """In order of their start."""
    problems: tuple[str, ...]
    """What is missing from the recording, each with the line that mends it."""


def record(
    store: str | Path,
    argv: Sequence[str],
    *,
    provider: bool = False,
    proxy: bool = False,
    draws: bool = False,
    rules: str | Path | None = None,
    skip_hosts: Sequence[str] = (),
    state: Sequence[str | Path] = (),
) -> Recorded:
    """Run the command on our terminal, and seal what its processes exchanged into the store.

    With `proxy` it is seen from outside, between the agent and its providers, whatever language it is in.
    With `draws` what it reads from clocks, ids and randomness is recorded too.
    `skip_hosts` are left out as housekeeping, beside the environment's and the known ones.
    What is at the paths `state` is kept as it is before the command starts, beside the environment's.
    `rules` is a file of redaction rules, instead of the environment's. Raises UsageError if there is no such
    command, or the rules cannot be read; inside of another run, where they would not hold, if there are any.
    """
    directory = Path(store).absolute()
    if inside_another(os.environ):
        flags = {
            "--provider": provider,
            "--proxy": proxy,
            "--draws": draws,
            "--skip-host": skip_hosts,
            "--state": state,
        }
        said = said_inside(os.environ, directory, {**flags, "--redact": rules})
        status = run_inherited(argv, os.environ)
        return Recorded(exit_status=status, launch_id=_launch_around(), runs=(), problems=(said,))
    # The rules themselves, as the command may run in other folders, and the file may change.
    told = recording = redact.with_rules(Settings.from_env(), None if rules is None else Path(rules))
    launch = _Launch(directory, tuple(argv), secrets.token_hex(16), secrets.token_hex(8), time.time_ns())
    fixed = _fixed(os.environ) if draws else {}
    skipped = (*recording.skip_hosts, *skip_hosts)
    recording = replace(
        recording,
        mode="record",
        store=directory,
        provider=provider or recording.provider,
        skip_hosts=skipped,
        state=(),  # it is kept here, for all processes
    )
    if skip_hosts:
        fixed = {**fixed, "TRACEFORK_SKIP_HOSTS": ",".join(skipped)}
    below = (launch.trace_id, launch.span_id)
    # As a script says it now; and what goes by a proxy is seen there, whoever asks.
    started = reaching(argv)
    left = () if proxy else left_by(started, Path.cwd(), recording=True)
    watch = None if proxy else Watch()
    env = {**traced(os.environ, recording, launch=below), **fixed}
    routes = routes_of(os.environ) if proxy else ()
    with (
        _keeping((*told.state, *state), directory, told) as kept,
        behind_proxy(routes, recording, launch=below, name=program_of(argv)) as behind,
    ):
        launch = replace(
            launch, redactor=redact.of(recording), extra={**fixed, **behind.recorded}, state=kept
        )
        with _kept(launch) as head:
            with given_input() as given, kept_output() as printed:
                environment = {**env, **behind.environment}
                status = run_inherited(started, environment, given.source, printed, watch, launch.trace_id)
            launch = replace(launch, given=given, printed=printed.output)
            ended_ns = time.time_ns()
            found = reached(directory, launch.trace_id)
            left = left if watch is None else (*left, *watch.left(found[0], left))
            gone = (*map(Left.of, found[1]), *still_left(left, found[0]))
            try:
                runs, problems = launch.settle(head, status, ended_ns, gone)
                if runs and not proxy and _left_at_work(directory, launch.trace_id):
                    problems.append(
                        "a process that the command left is still at work: what it exchanges is recorded "
                        "too, and a replay waits for it"
                    )
                problems += _sent(directory, launch.trace_id, runs)
            except StoreError as error:
                runs, problems = (), [f"nothing captured: {error}"]
    if not runs:
        why = f"nothing captured: no request came to the proxy; the agent must read {_named(routes)}"
        if status == INTERRUPTED:
            nothing = "nothing captured: Ctrl-C ended the command"
        else:
            nothing = why if proxy else why_nothing(argv, *found, still_left(left, found[0]))
        problems = problems or [unwritable(directory) or nothing]
        status = status or _NOTHING_CAPTURED
    return Recorded(exit_status=status, launch_id=launch.trace_id, runs=runs, problems=tuple(problems))


@contextlib.contextmanager
def _keeping(paths: Sequence[str | Path], store: Path, settings: Settings) -> Iterator[str | None]:
    """Keep what is at the paths, and give what is known of it; nothing is left of it without a run."""
    if not paths:
        yield None
        return
    there = store.exists()
    try:
        with in_use(store):
            look = redact.of(settings).why_not_kept
            yield text_of(keep(paths, store, limit=settings.state_limit, look=look))
    finally:
        states.tidy(store, there=there)


def _launch_around() -> str:
    """Return the trace of the command that started us, as far as the environment says."""
    parent = remote_parent()
    return "" if parent is None else f"{parent[0]:032x}"


@dataclass(frozen=True, slots=True)
class _Launch:
    store: Path
    argv: tuple[str, ...]
    trace_id: str
    span_id: str
    started_ns: int
    extra: Mapping[str, str] = field(default_factory=dict[str, str])
    """What a replay needs besides the environment of the command."""
    redactor: redact.Redactor = field(default_factory=redact.Redactor)
    given: GivenInput = field(default_factory=GivenInput)
    printed: Output | None = None
    state: str | None = None
    """What was kept of the files that the command uses."""
    state_lost: str | None = None

    def settle(
        self, head: Wal, status: int, ended_ns: int, left: Sequence[Left]
    ) -> tuple[tuple[RecordedRun, ...], list[str]]:
        """Write the command's own span if its processes exchanged anything, and seal all.

        The programs that were left out are named in each of its runs.
        """
        with open_store(self.store) as opened:
            run_ids = opened.runs_of_launch(self.trace_id)
            if not run_ids:
                return (), []
            problems: list[str] = []
            try:
                head.append(self._with_own(opened, run_ids).root(status, ended_ns))
            except StoreError as error:
                problems.append(f"how the command was started is not recorded: {error}")
            allowed = Settings.from_env().allow_hosts
            for run_id, one in product(run_ids, dict.fromkeys(left)):
                if one.program not in allowed:
                    head.append(noted(one, time_ns=ended_ns, run_id=run_id))
            head.close()
            runs = tuple(
                RecordedRun(run_id=run_id, steps=opened.run(run_id).steps) for run_id in run_ids
            )  # the store sees the new WAL, and seals it
            return runs, [*problems, *_losses(opened, run_ids)]

    def _with_own(self, store: Store, run_ids: Sequence[str]) -> _Launch:
        """Return the launch with what its processes kept themselves of what the command did not."""
        kept, lost = {one.path: one for one in kept_of(self.state)}, self.state_lost
        for told in (note.attributes for run_id in run_ids for note in store.notes(run_id)):
            for one in kept_of(str(told.get(STATE) or "")):
                kept.setdefault(one.path, one)
            lost = lost or cast("str | None", told.get(STATE_LOST))
        return replace(self, state=text_of(kept.values()), state_lost=lost)

    def _input(self) -> tuple[str | None, str | None]:
        """Return what was read of standard input, as the user's rules let it be kept, and why it is not."""
        if self.given.beyond:
            return None, f"its command read more than {LIMIT} bytes of standard input"
        if not self.given.data:
            return None, None
        kept, redactor = kept_input(bytes(self.given.data)), self.redactor
        if redactor.unreadable or (redactor.rules and given_as_bytes(kept)):
            return None, "its command read standard input in which redaction rules cannot look"
        return redactor.text(kept), None

    def root(self, status: int | None = None, ended_ns: int | None = None) -> SpanRecord:
        """Return the command's own span, as far as it is known."""
        argv = self.redactor.command(self.argv)
        kept, withheld = recordable(os.environ, self.redactor)
        stdin, lost = self._input()
        start = HowStarted(
            command=argv,
            cwd=os.getcwd(),
            environment={**kept, **self.extra},
            withheld=withheld,
            git_commit=git_commit(Path.cwd()),
            versions={"tracefork_otel": tracefork_otel.__version__},
            exit_status=status,
            stdin=stdin,
            stdin_kind=self.given.kind if stdin is not None or self.given.kind == "closed" else None,
            stdin_lost=lost,
            state=self.state,
            state_lost=self.state_lost,
        )
        told, printed = start.attributes(), self.printed
        if printed is not None:
            told |= output_attributes(printed.text(), printed.missing, self.redactor)
        return SpanRecord(
            trace_id=self.trace_id,
            span_id=self.span_id,
            parent_span_id=None,
            name=short_name(argv),
            kind="INTERNAL",
            started_ns=self.started_ns,
            ended_ns=ended_ns,
            status="ERROR" if status else "UNSET",
            status_message=f"exit status {status}" if status else None,
            service=os.environ.get("OTEL_SERVICE_NAME") or program_of(argv),
            scope=SCOPE,
            attributes=marked(self.trace_id, {**told, "tracefork.run.kind": "record"}),
        )


@contextlib.contextmanager
def _kept(launch: _Launch) -> Iterator[Wal]:
    """Keep a WAL with the command's span, known whatever ends us; remove it if nothing was captured."""
    there = launch.store.exists()
    head = Wal(launch.store, process_started(mode="record", via="backend", launch_id=launch.trace_id))
    with contextlib.suppress(StoreError):
        # Where nothing can be written, the end says so.
        head.append(launch.root())
    try:
        yield head
    except KeyboardInterrupt:
        head.close()  # what was exchanged until then is known by it
        raise
    finally:
        if not head.closed:
            with contextlib.suppress(OSError):
                # Before the lock goes, or somebody could seal it.
                head.path.unlink()
            head.close()
            with contextlib.suppress(OSError):
                head.path.parent.rmdir()
                if not there:
                    launch.store.rmdir()


def _fixed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what has draws recorded, and keeps the order of sets the same in a replay."""
    seed = environ.get("PYTHONHASHSEED", "random")
    # Any fixed seed does, so it is another one for each recording, as it would have been.
    known = seed if seed.isdecimal() else str(secrets.randbelow(2**32))
    return {"TRACEFORK_DRAWS": "1", "PYTHONHASHSEED": known}


def _named(routes: Sequence[Route]) -> str:
    return ", ".join(route.variable for route in routes)


def _left_at_work(store: Path, launch_id: str) -> bool:
    """Return whether a process that the command started still records."""
    with open_store(store) as opened:
        return bool(opened.ask("extent", run_ids=[], launch_id=launch_id)[0]["at_work"])


def _sent(store: Path, launch_id: str, runs: Sequence[RecordedRun]) -> tuple[str, ...]:
    """Send the runs where the environment says, if the agent does not do so itself; return what failed."""
    if not runs or endpoint() is None:
        return ()
    with open_store(store) as opened:
        if outgoing.has_provider(opened, launch_id):
            return ()
        sent = outgoing.send([opened.run(run.run_id) for run in runs], close_s=CLOSE_S)
    return sent.problems


def _losses(store: Store, run_ids: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for run_id in run_ids:
        notes = store.notes(run_id)
        found.update(dict.fromkeys(f"run {run_name(run_id)}: {line}" for line in unseen(notes)))
        for note in notes:
            why = f"run {run_name(run_id)} is incomplete: {note.attributes.get('why', 'unknown')}"
            if note.kind == "incomplete":
                found[why] = None
        for loss in losses(notes):
            found[f"run {run_name(run_id)} is incomplete: {loss.why}"] = None
        open_steps = store.open_steps(run_id)
        if open_steps:
            named = ", ".join(map(str, open_steps))
            which = f"step {named} was" if len(open_steps) == 1 else f"steps {named} were"
            found[f"run {run_name(run_id)} is incomplete: {which} open when the command ended"] = None
        for note in shortfalls(notes):
            found[f"run {run_name(run_id)}: {note.attributes['why']}; a replay draws them for real"] = None
    return list(found)
