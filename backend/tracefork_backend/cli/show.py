"""`show`: one run as a list of steps, or one step with both bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracefork_otel.errors import UsageError

from ..report.bodies import decoded, pretty, said
from ..spelling import counted, money, named, run_name, total_money
from .flags.options import STORE, JsonOption, StoreOption, StrictOption
from .opening import missing, reading, told
from .output import cell, console, duration, print_json, print_text, table

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange, Headers

    from ..store import Run, Store


_NAMED = 5
"""Runs of one command that are named."""


def show(
    ref: Annotated[
        str, typer.Argument(metavar="RUN[@STEP]", help="`last`, `last@2`, a unique prefix …")
    ] = "last",
    store: StoreOption = STORE,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run's steps, or one step's exchange with both bodies."""
    from ..store import parse_ref

    name, step = parse_ref(ref)
    with reading(store, strict=strict) as opened:
        run = opened.run(name)
        rows = opened.ask("steps_of_run", run_id=run.run_id)
        if step is None:
            _show_run(opened, run, rows, as_json)
            return
        if not 0 <= step < len(rows):
            raise UsageError(f"run {run_name(run.run_id)} has steps 0 to {len(rows) - 1}, none {step}")
        exchange = opened.exchange(run.run_id, rows[step]["span_id"])
        _show_step(exchange, {**rows[step], **told(opened)} if as_json else rows[step], as_json)


def _show_run(opened: Store, run: Run, rows: list[dict[str, Any]], as_json: bool) -> None:
    from ..rerun.evidence import Redaction
    from ..rerun.reconstruct import repeated_with
    from ..rerun.state import recorded_state
    from ..store.drawn import recorded_line

    (summary,) = opened.ask("run_by_id", run_id=run.run_id)
    launched = opened.draws_of_launch(run.launch_id) if run.launch_id else ()
    drawn = recorded_line(launched or run.notes)
    replaced = Redaction(run.exchanges).recorded()
    state = recorded_state(run.start)
    beside = opened.beside(run.run_id)
    forked = opened.forked(run.run_id)
    others = repeated_with(opened, run)
    if as_json:
        incomplete = [*run.incomplete_reasons, *missing(opened)]
        print_json(
            {
                **summary,
                "exchanges": rows,
                "incomplete": incomplete,
                "draws": drawn,
                "redacted": replaced,
                "state": state,
                "unseen": run.unseen,
                "problem": None if forked is None else forked.problem,
                "beside": dict(zip(("calls", "spans"), beside, strict=True)),
                "repeated_with": others,
            }
        )
        return
    print_text(
        f"run {run.run_id}  {named(summary['name'])}  {named(summary['service'])}  "
        f"{summary['started_at']:%Y-%m-%d %H:%M:%S} UTC  {duration(summary['duration_ms'])}  "
        f"{total_money(summary['cost_usd'], summary['unpriced'])}  {summary['status']}"
    )
    if summary["command"] or summary["entrypoint"]:
        print_text(f"started by  {_command_line(summary)}")
        if run.start.arguments is None and run.start.arguments_lost and summary["entrypoint"]:
            print_text(f"            {run.start.arguments_lost}")
    if state is not None:
        print_text(f"state       {state}")
    if others:
        print_text(f"with it     {_with_it(opened, others, len(rows))}")
    if forked is not None:
        print_text(f"fork of     {forked.parent}  {forked.change}")
        if forked.problem is not None:
            print_text(f"problem     {forked.problem}")
    steps = table(
        "STEP", "WHAT", "IN", "OUT", "COST", "TIME", "STATUS",
        right=("STEP", "IN", "OUT", "COST", "TIME"), grow=("WHAT",),
    )  # fmt: skip
    exchanges = {one.span_id: one for one in run.exchanges}
    for row in rows:
        exchange = exchanges.get(row["span_id"])
        if exchange is None:  # its segment could not be read to the end
            continue
        steps.add_row(
            str(row["step"]),
            _what(row, exchange),
            cell(row["input_tokens"]),
            cell(row["output_tokens"]),
            "?" if row["cost_reason"] else money(row["cost_usd"]),
            duration(row["duration_ms"]),
            _status(row, exchange),
        )
    console().print(steps)
    for reason, steps_of_it in _without_price(rows).items():
        many = "s" if len(steps_of_it) > 1 else ""
        print_text(f"no price: step{many} {', '.join(map(str, steps_of_it))}: {reason}")
    if any(beside):
        what = " and ".join(counted(n, noun) for n, noun in zip(beside, ("call", "span"), strict=True) if n)
        print_text(
            f"beside it: {what} of its trace came by OTLP or a proxy's port, and are no part of the run"
        )
    for line in run.unseen:
        print_text(f"maybe incomplete: not recorded: {line}")
    if drawn is not None:
        print_text(f"draws  {drawn}")
    if replaced is not None:
        print_text(f"rules  {replaced}")
    print_text(_closing_line(run))


def _with_it(opened: Store, others: Sequence[str], step: int) -> str:
    """Return the other runs of the command, each with the steps that it has where this run is forked."""
    told: list[str] = []
    for run_id in others[:_NAMED]:
        steps = opened.ask("run_by_id", run_id=run_id)[0]["steps"]
        of_it = f"steps {step} to {step + steps - 1}" if steps > 1 else f"step {step}"
        told.append(f"{run_name(run_id)} ({of_it})")
        step += steps
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"{', '.join(told)}{more}: runs of the same command, which a replay or fork repeats whole"


def _without_price(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Return the steps that have no price, by the reason."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if row["cost_reason"]:
            found.setdefault(row["cost_reason"], []).append(row["step"])
    return found


def _closing_line(run: Run) -> str:
    whole = sum(1 for exchange in run.exchanges if exchange.damage is None)
    line = f"{whole} of {len(run.exchanges)} exchanges whole"
    if run.incomplete_reasons:
        return line + "; incomplete: " + "; ".join(run.incomplete_reasons)
    return line + f"; read one: tracefork-otel show {run_name(run.run_id)}@0"


def _command_line(summary: Mapping[str, Any]) -> str:
    import shlex

    from tracefork_otel.tape.start import argv_of

    if summary["entrypoint"]:
        return str(summary["entrypoint"])
    command = summary["command"]
    # A span of somebody's own may have any text in its place.
    return shlex.join(argv_of(command) or (str(command),))


def _what(row: Mapping[str, Any], exchange: Exchange) -> str:
    """Return the step in a few words: the model and what it answered, or the request line."""
    from tracefork_otel.wire.facts import facts_of
    from tracefork_otel.wire.websocket import is_websocket

    if is_websocket(exchange):
        return f"{row['method']} {row['url']}  {_how_many_said(exchange)}"
    facts = facts_of(exchange)
    if facts is None and row["operation"] and row["model"]:
        return f"{named(row['model'])}  {named(row['operation'])}"
    if facts is None:
        return f"{row['method']} {row['url']}"
    reply: list[str] = []
    for message in facts.reply:
        if message.kind == "tool_use":
            reply.append(f"→ {named(message.name)}({cell(message.content, 80)})")
        elif message.kind == "text" and message.content.strip():
            reply.append(json.dumps(cell(message.content, 80), ensure_ascii=False))
    return f"{named(row['model'] or facts.provider)}  {' '.join(reply)}".rstrip()


def _status(row: Mapping[str, Any], exchange: Exchange) -> str:
    parts = (
        row["status_code"] if (row["status_code"] or 0) >= 400 else None,
        row["outcome"] if row["outcome"] != "complete" else None,
        exchange.error_type and exchange.error_type.rpartition(".")[2],
        "replayed" if row["replayed"] else None,
        row["intervention"],
        "redacted" if _replaced(exchange) is not None else None,
        "damaged" if exchange.damage else None,
    )
    return " ".join(str(part) for part in parts if part) or "ok"


def _show_step(exchange: Exchange, row: Mapping[str, Any], as_json: bool) -> None:
    request, response = exchange.request, exchange.response
    from tracefork_otel.wire.codings import plain_request

    body = b"" if response is None else decoded(response)
    asked = plain_request(request)
    replaced = _replaced(exchange)
    if as_json:
        print_json(
            {
                **row,
                "redacted": None if replaced is None else json.loads(str(replaced)),
                "request_headers": request.headers,
                "request": _text(asked),
                "response_headers": None if response is None else response.headers,
                "response": None if response is None else _text(body),
                "error": exchange.error_message,
            }
        )
        return
    print_text(f"step {row['step']}  {_what(row, exchange)}")
    print_text(f"{request.method} {request.url}")
    if exchange.site is not None:
        print_text(f"asked at {exchange.site}")
    print_text(_message(request.headers, asked) + "\n")
    if replaced is not None:
        print_text(f"redacted: {replaced}")
    if response is None:
        print_text(f"no response: {exchange.error_type or exchange.outcome}: {exchange.error_message or ''}")
        return
    lines = said(exchange)
    print_text(
        f"{response.http_version} {response.status}  {exchange.outcome}, {len(response.body)} bytes in "
        f"{len(response.chunk_sizes)} chunks, first byte after {duration(row['ttfb_ms']) or 'no time'}, "
        f"whole after {duration(row['duration_ms']) or 'no time'}"
    )
    print_text(_message(response.headers, body) if not lines else "\n".join(lines))
    if exchange.error_type:
        print_text(f"ended by {exchange.error_type}: {exchange.error_message or ''}")
    if exchange.damage:
        print_text(f"damaged: {exchange.damage}")


def _how_many_said(exchange: Exchange) -> str:
    """Return how many messages each side of a websocket sent."""
    from tracefork_otel.wire.websocket import messages

    assert exchange.response is not None
    try:
        senders = [one.sender for one in messages(exchange.response.chunks()) if one.data is not None]
    except ValueError:
        return "a websocket"
    return f"websocket: agent {senders.count('agent')}, server {senders.count('server')} messages"


def _replaced(exchange: Exchange) -> object:
    """Return what the rules of redaction replaced, None where nothing was."""
    from tracefork_otel.redaction.redact import ATTRIBUTE

    return exchange.attributes.get(ATTRIBUTE)


def _message(headers: Headers, body: bytes) -> str:
    return "\n".join([*(f"  {name}: {value}" for name, value in headers), "", pretty(body)])


def _text(body: bytes) -> object:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
