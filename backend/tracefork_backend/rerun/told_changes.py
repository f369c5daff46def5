"""What a fork's root says of its changes in requests, so that a replay of the fork makes them again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from tracefork_otel.errors import TapeError
from tracefork_otel.exchange import Request
from tracefork_otel.play.changed import changed_by
from tracefork_otel.play.intervention import Intervention, changes_of, with_change
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.tape.start import CHANGES, CHANGES_LOST
from tracefork_otel.tape.tape import Tape
from tracefork_otel.wire.rewriting import Part

from ..spelling import run_name
from .edits.request import spelled


def told_changes(
    tape: Tape, change: Intervention, redactor: Redactor
) -> tuple[Intervention, dict[str, str | None]]:
    """Return the change as it may be labelled, and the attributes that say it, or why it is not kept.

    Nothing is told that rules of redaction replace in a request: those for places in JSON would not find it.
    """
    told = with_change(tape.start.changes, change)
    if told is None or told == tape.start.changes:
        return _labelled(change, redactor, shown=True), {CHANGES: told}
    why = "the rules of redaction are unreadable" if redactor.unreadable else None
    if why is None and redactor.rules and redactor.rules.of("json", "request"):
        why = _replaced(tape, change, redactor)
    kept = redactor.text(told)
    if why is None:
        try:
            changes_of(kept)
        except TapeError:
            why = "a rule of redaction replaces a part of it"
        else:
            return _labelled(change, redactor, shown=True), {CHANGES: kept}
    again = f"fork {run_name(tape.run_id)}@{change.step} anew, with the same change"
    lost = f"its requests were changed, and the change is not kept: {why}; {again}"
    return _labelled(change, redactor, shown=False), {CHANGES_LOST: lost}


def _replaced(tape: Tape, change: Intervention, redactor: Redactor) -> str | None:
    """Return why the first request that has the change would not be recorded with it; None if it would."""
    for exchange in tape.exchanges[change.step :]:
        _, *changed = changed_by((change, *change.also), exchange.request)
        if not changed:
            continue
        counts: Counter[str] = Counter()
        if all(_stays(one, redactor, counts) for one in changed):
            return None
        return f"a rule of redaction replaces it in a request ({', '.join(sorted(counts))})"
    return "it is not known what a rule of redaction replaces of it"


def _stays(request: Request, redactor: Redactor, counts: Counter[str]) -> bool:
    recorded, withheld = redactor.request_body(request, request.body, counts)
    return withheld is None and recorded == request.body


def _labelled(change: Intervention, redactor: Redactor, *, shown: bool) -> Intervention:
    """Return the change with labels that say nothing that rules replace; if not `shown`, no value at all."""
    if redactor.rules is None and redactor.unreadable is None:
        return change
    sets = [
        (path, value)
        for one in (change, *change.also)
        for path, value in (*one.edits, *((part.path, part.value) for part in _parts(one)))
    ]

    def label(text: str) -> str:
        for path, value in () if shown else sets:
            text = text.replace(f"{path}={spelled(value)}", f"{path}=…")
        return redactor.text(text)

    onward = change.onward
    if onward is not None:
        parts = tuple(replace(part, label=label(part.label)) for part in onward.parts)
        onward = replace(onward, parts=parts, label=label(onward.label))
    also = tuple(_labelled(one, redactor, shown=shown) for one in change.also)
    return replace(change, label=label(change.label), onward=onward, also=also)


def _parts(change: Intervention) -> tuple[Part, ...]:
    return () if change.onward is None else change.onward.parts
