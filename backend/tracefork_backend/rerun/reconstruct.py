"""A recorded run made into a tape: its exchanges in step order, and how its agent was started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tracefork_otel.errors import StoreError, TruncatedBody, UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.redaction.redact import WITHHELD
from tracefork_otel.session.housekeeping import Housekeeping
from tracefork_otel.store.records import Note
from tracefork_otel.tape.fidelity import FIDELITY, TRUNCATED
from tracefork_otel.tape.marks import mark_of_tape
from tracefork_otel.tape.reads import Draw
from tracefork_otel.tape.start import FROM_OUTSIDE, HowStarted
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.registry import recognise

from ..spelling import named, run_name
from ..store import Run, Store
from ..store.drawn import draws_of, of_one_call, shortfalls
from .extent import how_far
from .tool_spans import calls_of

_KEPT_NOTES = ("lost", "incomplete")


def reconstruct(store: Store, run: Run, *, command: bool = False) -> Tape:
    """Return the tape of a run, and of all runs of the command that made it, which a replay repeats.

    Where no command of ours started its process, `command` says that the process's own is repeated, all runs
    of which are then on the tape; without it an agent that the caller names makes this run alone.
    Raises TruncatedBody naming the step whose bytes are not whole, StoreError naming a file that has changed
    since it was written, and UsageError while the run goes on and none of its calls has ended. The calls that
    are open then are not on the tape, which says that it is a part.
    """
    start, marked = run.beginning
    launched = _launched(store, run)
    run_ids = (run.run_id, *repeated_with(store, run, command=command))
    if launched:
        start, marked = launched
    elif start.entrypoint:
        start = _by_entrypoint(start, run)
    exchanges: list[Exchange] = []
    notes: list[Note] = []
    drawn: list[Note] = []
    for run_id in run_ids:
        exchanges += run.exchanges if run_id == run.run_id else store.exchanges(run_id)
        for note in store.notes(run_id):
            if note.kind == "draws":
                drawn.append(note)
            elif note.kind in _KEPT_NOTES and note not in notes:
                notes.append(note)
    cut_short, left_ns = how_far(store, run_ids, run.launch_id if launched else None, start)
    if cut_short == "running":
        ended = [exchange for exchange in exchanges if exchange.outcome != "in_flight"]
        if exchanges and not ended:
            raise UsageError(
                f"run {run_name(run.run_id)} still goes on, and none of its calls has ended: wait"
            )
        exchanges = ended
    whole = tuple(_whole(exchanges, run))
    # The bodies are those that were sent, but which of them, and what was started, other files say.
    if changed := store.why_changed((*run_ids, *filter(None, (run.launch_id,)))):
        raise StoreError(
            f"run {run_name(run.run_id)} cannot be replayed: {changed}; see `tracefork-otel doctor`"
        )
    if launched:  # also what a process drew that exchanged nothing itself
        drawn += store.draws_of_launch(str(run.launch_id))
    whole_process = launched or not start.entrypoint
    tape = Tape(
        run_id=run.run_id,
        name=run.name,
        exchanges=whole,
        start=start,
        notes=(*notes, *shortfalls(drawn)),
        tools=calls_of(store.tools_of(run_ids, run.launch_id if launched else None)),
        draws=draws_of(drawn) if whole_process else tuple(of_one_call(_of_call(drawn, run))),
        cut_short=cut_short,
        left_ns=left_ns,
    )
    return replace(tape, mark=mark_of_tape(tape)) if marked and not store.came_in(run_ids) else tape


def repeated_with(store: Store, run: Run, *, command: bool = True) -> tuple[str, ...]:
    """Return the ids of the other runs on the run's tape, in which their steps follow its own in order."""
    start, _ = run.beginning
    others: tuple[str, ...] = ()
    if _launched(store, run):
        others = store.runs_of_launch(str(run.launch_id))
    elif start.command and not start.entrypoint and command:
        others = store.runs_beside(run.run_id)
    return tuple(run_id for run_id in dict.fromkeys(others) if run_id != run.run_id)


def without_housekeeping(tape: Tape, skip_hosts: Iterable[str]) -> Tape:
    """Return the tape without exchanges that a recording of today leaves out."""
    housekeeping = Housekeeping(skip_hosts)

    def is_work(exchange: Exchange) -> bool:
        request = exchange.request
        return (
            housekeeping.of_url(request.url) is None
            or recognise(request.method, request.url, request.body) is not None
        )

    kept = tuple(filter(is_work, tape.exchanges))
    return tape if len(kept) == tape.steps else replace(tape, exchanges=kept)


def _of_call(notes: Iterable[Note], run: Run) -> Iterable[Draw]:
    """Yield the draws of the run's own call, and those that its modules made when they were imported."""
    own = [note for note in notes if note.trace_id in (None, run.run_id)]
    during = {(note.process_id, note.attributes["batch"]) for note in own if note.trace_id == run.run_id}
    for note in own:
        inside = (note.process_id, note.attributes["batch"]) in during
        yield from (draw for draw in draws_of([note]) if inside or ":<module>" in draw.site)


def _of_launch(store: Store, launch_id: str) -> tuple[HowStarted, bool] | None:
    """Return how the command started, and whether that is marked, if the span that says so is there."""
    start, marked = store.beginning(launch_id, None)
    return (start, marked) if start.command else None


def _launched(store: Store, run: Run) -> tuple[HowStarted, bool] | None:
    """Return how the command began that a replay of the run starts again; None where it starts none.

    A request to a server, or a worker's task, is made again by itself: the command would wait for somebody.
    """
    if run.launch_id is None or (run.start.entrypoint or "").startswith(FROM_OUTSIDE):
        return None
    return _of_launch(store, run.launch_id)


def _by_entrypoint(start: HowStarted, run: Run) -> HowStarted:
    """Return the start of a run that is one call of an agent function: a replay makes that call, no more."""
    status = {"ok": 0, "error": 1}.get(run.status)
    return replace(start, command=None, script=script_folder(start), exit_status=status)


def script_folder(start: HowStarted) -> str | None:
    """Return the folder of the script that was started, in which alone the agent's module may be."""
    script = next((word for word in (start.command or ())[1:] if word.endswith(".py")), None)
    return start.script if script is None else str(Path(script).parent)


def _check_received(exchange: Exchange, step: int, run: Run) -> None:
    """Raise UsageError or TruncatedBody where what came by OTLP is not enough to play it back."""
    where = f"run {run_name(run.run_id)} cannot be replayed: step {step} ({named(exchange.name)})"
    if exchange.attributes.get(FIDELITY) == "messages":
        raise UsageError(
            f"{where} came as messages on a span (fidelity = messages), not as bytes; it can be read and "
            "queried. To replay it, record the agent: tracefork-otel run -- …"
        )
    withheld = exchange.attributes.get(WITHHELD)
    if withheld:
        raise TruncatedBody(f"{where}: a body was withheld when it was recorded: {withheld}")
    cut = exchange.attributes.get(TRUNCATED)
    if cut:
        raise TruncatedBody(
            f"{where}: {cut}; send bodies whole: TRACEFORK_EVENT_BODY_LIMIT=unlimited in the agent"
        )


def _whole(exchanges: Iterable[Exchange], run: Run) -> Iterable[Exchange]:
    """Yield the exchanges as they are played; raise TruncatedBody or UsageError for one that cannot be."""
    for step, exchange in enumerate(exchanges):
        if exchange.damage:
            raise TruncatedBody(
                f"run {run_name(run.run_id)} cannot be replayed: step {step} ({exchange.request.method} "
                f"{exchange.request.url}): {exchange.damage}; see `tracefork-otel doctor`"
            )
        _check_received(exchange, step, run)
        response = exchange.response
        if response is not None and response.body and not response.chunk_sizes:
            # It came without its cuts (by OTLP): it is played back in one piece, and the tape says so.
            response = replace(response, chunk_sizes=(len(response.body),), chunk_offsets_us=(0,))
            exchange = replace(exchange, response=response)
        yield exchange
