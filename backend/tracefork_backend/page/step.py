"""One step as the page shows it: its prompt, what is new in it, how it differs, what went over the wire."""

from __future__ import annotations

import base64
import binascii
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.redaction.redact import ATTRIBUTE
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.facts import facts_of
from tracefork_otel.wire.growing import Growing, Grown
from tracefork_otel.wire.messages import Facts, Message

from ..report.bodies import decoded, pretty, said
from ..report.content import Change
from ..report.shapes import Piece, side_by_side
from ..spelling import no_step, run_name
from ..store import Run, Store

TABS = ("conversation", "prompt", "changes", "request", "response", "headers", "draws", "spans")
"""What is shown of a step, the first where nothing is asked for."""
CUT = 4_000
"""Characters of a text that are shown at first."""
PIECE = 90_000
"""Characters of it that are added at a time: less than 1 MB also where each is written as an escape."""
SHOWN = 100
"""Messages of one tab."""
_DRAWS = 500
"""Draws of a run that are shown."""
_BEFORE = 3
"""So many earlier calls are looked through for the conversation that this one goes on with."""
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{60,}={0,2}\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One message as it is shown."""

    place: int
    """Its place among the messages of the step, by which the rest of it is asked for."""
    role: str
    kind: str
    name: str | None
    text: str
    left: int
    """Characters of it that are not shown."""
    picture: bool = False
    answer: bool = False
    """Whether the model said it in answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShown:
    """A step and what one tab of it shows."""

    run: Run
    step: int
    steps: int
    row: Mapping[str, Any]
    tab: str
    is_model: bool
    new: int
    """Messages of the request that no earlier one of the conversation had."""
    total: int
    said: tuple[Said, ...] = ()
    hidden: int = 0
    """Messages that are not shown."""
    text: str = ""
    left: int = 0
    """Characters of `text` that are not shown."""
    headers: tuple[tuple[str, Sequence[tuple[str, str]]], ...] = ()
    before: int | None = None
    """The step with which this one's prompt is compared."""
    old: tuple[Piece, ...] = ()
    now: tuple[Piece, ...] = ()
    redacted: str | None = None
    damage: str | None = None
    error: str | None = None
    fork: str = ""
    """What to type for a fork here."""


def shown(store: Store, run: Run, step: int, tab: str) -> StepShown:
    """Return what the tab shows of the step; raise UsageError where there is none."""
    rows = _steps(store, run, step)
    if tab not in TABS:
        raise UsageError(f"tab={tab}: use one of {', '.join(TABS)}")
    row = rows[step]
    exchange = store.exchange(run.run_id, row["span_id"])
    facts = facts_of(exchange)
    asked, kept, before = _asked(store, run, rows, step, exchange, facts)
    reply = facts.reply if facts is not None else ()
    told: dict[str, Any] = {}
    if tab == "conversation" and facts is not None:
        fresh = [(at, one) for at, one in enumerate(asked) if at >= kept]
        answers = [(len(asked) + at, one) for at, one in enumerate(reply)]
        chosen = fresh[-SHOWN:]
        told["said"] = tuple(_said(at, one, answer=at >= len(asked)) for at, one in (*chosen, *answers))
        told["hidden"] = len(fresh) - len(chosen)
    elif tab == "prompt" and facts is not None:
        told["said"] = tuple(_said(at, one) for at, one in list(enumerate(asked))[-SHOWN:])
        told["hidden"] = max(0, len(asked) - SHOWN)
    elif tab in ("conversation", "prompt", "request", "response"):
        told["text"], told["left"] = cut(body_text(exchange, response=tab in ("response", "conversation")))
    elif tab == "changes":
        told |= _changes(store, run, rows, step, exchange, before)
    elif tab == "headers":
        sides = [("request", exchange.request.headers)]
        if exchange.response is not None:
            sides.append(("response", exchange.response.headers))
        told["headers"] = tuple(sides)
    elif tab == "draws":
        told["text"] = _draws(store, run)
    elif tab == "spans":
        told["text"], told["left"] = cut(_span(store, run, exchange))
    replaced = exchange.attributes.get(ATTRIBUTE)
    return StepShown(
        run=run,
        step=step,
        steps=len(rows),
        row=row,
        tab=tab,
        is_model=facts is not None,
        new=len(asked) - kept,
        total=len(asked),
        redacted=None if replaced is None else str(replaced),
        damage=exchange.damage,
        error=None
        if exchange.error_type is None
        else f"{exchange.error_type}: {exchange.error_message or ''}",
        fork=f"tracefork-otel fork {run_name(run.run_id)}@{step} --resample",
        **told,
    )


def exchange_at(store: Store, run: Run, step: int) -> Exchange:
    """Return the exchange of the step; raise UsageError where there is none."""
    return store.exchange(run.run_id, _steps(store, run, step)[step]["span_id"])


def _steps(store: Store, run: Run, step: int) -> list[dict[str, Any]]:
    """Return the rows of all steps, that one among them."""
    rows = store.ask("steps_of_run", run_id=run.run_id)
    if 0 <= step < len(rows):
        return rows
    raise UsageError(no_step(run.run_id, step, len(rows)))


def messages_of(store: Store, run: Run, step: int) -> list[Message]:
    """Return the messages of the step's request and its answer, in the order of `Said.place`."""
    exchange = exchange_at(store, run, step)
    facts = facts_of(exchange)
    if facts is None:
        return []
    grown = Growing[Grown[Any]]().read(facts.form, plain_request(exchange.request), lambda one: one)
    return [*_messages(grown), *facts.reply]


def body_text(exchange: Exchange, *, response: bool) -> str:
    """Return one side of the exchange as people read it."""
    if not response:
        return pretty(plain_request(exchange.request))
    if exchange.response is None:
        return f"no response: {exchange.error_type or exchange.outcome}: {exchange.error_message or ''}"
    return "\n".join(said(exchange)) or pretty(decoded(exchange.response))


def cut(text: str, begin: int = 0, most: int = CUT) -> tuple[str, int]:
    """Return the text from there on, no longer than that, and how many characters follow."""
    return text[begin : begin + most], max(0, len(text) - begin - most)


def picture_of(message: Message) -> tuple[str, bytes] | None:
    """Return the picture that a message holds, as its own bytes say what it is; None where it holds none."""
    for text in _texts(message.wire):
        coded = text.partition(",")[2] if text.startswith("data:") else text
        if not _BASE64.match(coded):
            continue
        try:
            data = base64.b64decode(coded.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            continue
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return "image/webp", data
        found = next((kind for start, kind in _PICTURES.items() if data.startswith(start)), None)
        if found is not None:
            return found, data
    return None


def curl(exchange: Exchange) -> str:
    """Return the request as a command line that sends it; what redaction replaced stays replaced."""
    words = ["curl", "-X", exchange.request.method, exchange.request.url]
    for name, value in exchange.request.headers:
        if name.lower() not in ("content-length", "host", "accept-encoding", "content-encoding"):
            words += ["-H", f"{name}: {value}"]
    body = plain_request(exchange.request)
    if body:
        words += ["--data-binary", body.decode("utf-8", "backslashreplace")]
    return shlex.join(words)


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < 8 and isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one, depth + 1)


def _said(place: int, message: Message, *, answer: bool = False) -> Said:
    text, left = cut(message.content)
    if message.kind == "tool_use":
        text, left = cut(pretty(message.content.encode("utf-8", "backslashreplace")))
    has_picture = message.wire is not None and picture_of(message) is not None
    return Said(
        place=place,
        role=message.role,
        kind=message.kind,
        name=message.name,
        text=text,
        left=left,
        picture=has_picture,
        answer=answer,
    )


def _messages(grown: Grown[Any] | None) -> list[Message]:
    return [] if grown is None else [*grown.system, *(one for turn in grown.turns for one in turn)]


def _asked(
    store: Store,
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    step: int,
    exchange: Exchange,
    facts: Facts | None,
) -> tuple[list[Message], int, int | None]:
    """Return the messages of the request, how many of them are not new, and which step had those."""
    if facts is None:
        before = _like(rows, step)
        return [], 0, before
    earlier = [one for one in range(step - 1, -1, -1) if rows[one]["model"] is not None][:_BEFORE]
    growing: Growing[tuple[int, Grown[Any]]] = Growing()
    known: dict[int, set[Message]] = {}
    for one in reversed(earlier):
        was = store.exchange(run.run_id, rows[one]["span_id"])
        told = facts_of(was)
        if told is None:
            continue
        read = growing.read(told.form, plain_request(was.request), lambda grown, one=one: (one, grown))
        if read is not None:
            known[one] = {*_messages(read[1])}
    read = growing.read(facts.form, plain_request(exchange.request), lambda grown: (step, grown))
    if read is None:
        return [], 0, None
    grown = read[1]
    asked = _messages(grown)
    before = grown.before[0] if grown.before is not None else next(iter(earlier), None)
    if before not in known:
        return asked, 0, before
    kept = 0
    for one in asked:
        if one not in known[before]:
            break
        kept += 1
    return asked, kept, before


def _like(rows: Sequence[Mapping[str, Any]], step: int) -> int | None:
    """Return the last step before that one which asked the same address."""
    return next((one for one in range(step - 1, -1, -1) if rows[one]["url"] == rows[step]["url"]), None)


def _changes(
    store: Store,
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    step: int,
    exchange: Exchange,
    before: int | None,
) -> dict[str, Any]:
    """Return the request beside an earlier one, their differing words marked."""
    if before is None:
        return {"before": None}
    was = store.exchange(run.run_id, rows[before]["span_id"])
    found = side_by_side(
        Change(
            step=step, label="", old=body_text(was, response=False), new=body_text(exchange, response=False)
        )
    )
    return {"before": before, "old": _folded(found.old), "now": _folded(found.new), "left": found.left_out}


def _folded(pieces: tuple[Piece, ...], around: int = 200) -> tuple[Piece, ...]:
    """Return the pieces with what is long and the same on both sides cut in its middle."""
    made: list[Piece] = []
    for piece in pieces:
        text = piece.text
        if not piece.changed and len(text) > 3 * around:
            text = f"{text[:around]}\n… {len(text) - 2 * around:,} characters the same …\n{text[-around:]}"
        made.append(Piece(text, piece.changed))
    return tuple(made)


def _draws(store: Store, run: Run) -> str:
    """Return what the run drew from clocks and randomness, a line each."""
    rows = store.ask("draws_of_run", run_id=run.run_id, limit=_DRAWS + 1)
    if not rows:
        return "none recorded: clocks and randomness are recorded by `run --draws`"
    lines = [f"{row['position']:6} {row['source']:24} {row['value']}  {row['site'] or ''}" for row in rows]
    if len(rows) > _DRAWS:
        lines[-1] = "… the others are in the view draws"
    return "\n".join(lines)


def _span(store: Store, run: Run, exchange: Exchange) -> str:
    """Return the exchange's own span and the spans that it lies in, as JSON."""
    spans = {one["span_id"]: one for one in store.ask("own_spans_of_run", run_id=run.run_id, limit=20_000)}
    told = [
        {
            "span_id": exchange.span_id,
            "trace_id": exchange.span_trace_id or exchange.trace_id,
            "parent_span_id": exchange.parent_span_id,
            "attributes": exchange.attributes,
        }
    ]
    at, seen = exchange.parent_span_id, set[str]()
    while at is not None and at in spans and at not in seen:
        seen.add(at)
        above = spans[at]
        told.append(
            {
                "name": above["name"],
                "span_id": above["span_id"],
                "parent_span_id": above["parent_span_id"],
                "scope": above["scope"],
                "status": above["status"],
                "attributes": _parsed(above["attributes"]),
            }
        )
        at = above["parent_span_id"]
    return json.dumps(told, indent=2, ensure_ascii=False, default=str)


def _parsed(text: str | None) -> object:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
