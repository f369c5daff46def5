"""`show`: one run as a list of steps, or one step with both bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracefork_otel.errors import UsageError

from ..spelling import money
from .flags.options import STORE, JsonOption, StoreOption
from .opening import reading
from .output import cell, console, duration, print_json, table

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange, Headers, Response

    from ..store import Run, Store


def show(
    ref: Annotated[
        str, typer.Argument(metavar="RUN[@STEP]", help="`last`, `last@2`, a unique prefix …")
    ] = "last",
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Show a run's steps, or one step's exchange with both bodies."""
    from ..store import parse_ref

    name, step = parse_ref(ref)
    with reading(store) as opened:
        run = opened.run(name)
        rows = opened.ask("steps_of_run", run_id=run.run_id)
        if step is None:
            _show_run(opened, run, rows, as_json)
            return
        if not 0 <= step < len(rows):
            raise UsageError(f"run {run.run_id[:8]} has steps 0 to {len(rows) - 1}, none {step}")
        _show_step(run.exchanges[step], rows[step], as_json)


def _show_run(opened: Store, run: Run, rows: list[dict[str, Any]], as_json: bool) -> None:
    from ..rerun.evidence import Redaction
    from ..store.drawn import recorded_line

    (summary,) = opened.ask("run_by_id", run_id=run.run_id)
    launched = opened.draws_of_launch(run.launch_id) if run.launch_id else ()
    drawn = recorded_line(launched or run.notes)
    replaced = Redaction(run.exchanges).recorded()
    if as_json:
        incomplete = list(run.incomplete_reasons)
        print_json(
            {**summary, "exchanges": rows, "incomplete": incomplete, "draws": drawn, "redacted": replaced}
        )
        return
    out = console()
    print_line = partial(out.print, markup=False, soft_wrap=True)
    print_line(
        f"run {run.run_id}  {summary['name']}  {summary['service']}  "
        f"{summary['started_at']:%Y-%m-%d %H:%M:%S} UTC  {duration(summary['duration_ms'])}  "
        f"{money(summary['cost_usd'])}  {summary['status']}"
    )
    if summary["command"] or summary["entrypoint"]:
        print_line(f"started by  {_command_line(summary)}")
    steps = table(
        "STEP", "WHAT", "IN", "OUT", "COST", "TIME", "STATUS",
        right=("STEP", "IN", "OUT", "COST", "TIME"), grow=("WHAT",),
    )  # fmt: skip
    for row, exchange in zip(rows, run.exchanges, strict=True):
        steps.add_row(
            str(row["step"]),
            _what(row, exchange),
            cell(row["input_tokens"]),
            cell(row["output_tokens"]),
            money(row["cost_usd"]),
            duration(row["duration_ms"]),
            _status(row, exchange),
        )
    out.print(steps)
    if drawn is not None:
        print_line(f"draws  {drawn}")
    if replaced is not None:
        print_line(f"rules  {replaced}")
    print_line(_closing_line(run))


def _closing_line(run: Run) -> str:
    whole = sum(1 for exchange in run.exchanges if exchange.damage is None)
    line = f"{whole} of {len(run.exchanges)} exchanges whole"
    if run.incomplete_reasons:
        return line + "; incomplete: " + "; ".join(run.incomplete_reasons)
    return line + f"; read one: tracefork-otel show {run.run_id[:8]}@0"


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

    facts = facts_of(exchange)
    if facts is None:
        return f"{row['method']} {row['url']}"
    reply: list[str] = []
    for message in facts.reply:
        if message.kind == "tool_use":
            reply.append(f"→ {message.name}({cell(message.content, 80)})")
        elif message.kind == "text" and message.content.strip():
            reply.append(json.dumps(cell(message.content, 80), ensure_ascii=False))
    return f"{row['model'] or facts.provider}  {' '.join(reply)}".rstrip()


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
    body = b"" if response is None else _decoded(response)
    replaced = _replaced(exchange)
    if as_json:
        print_json(
            {
                **row,
                "redacted": None if replaced is None else json.loads(str(replaced)),
                "request_headers": request.headers,
                "request": _text(request.body),
                "response_headers": None if response is None else response.headers,
                "response": None if response is None else _text(body),
                "error": exchange.error_message,
            }
        )
        return
    print_line = partial(console().print, markup=False, soft_wrap=True)
    print_line(f"step {row['step']}  {_what(row, exchange)}")
    print_line(f"{request.method} {request.url}")
    print_line(_message(request.headers, request.body) + "\n")
    if replaced is not None:
        print_line(f"redacted: {replaced}")
    if response is None:
        print_line(f"no response: {exchange.error_type or exchange.outcome}: {exchange.error_message or ''}")
        return
    print_line(
        f"{response.http_version} {response.status}  {exchange.outcome}, {len(response.body)} bytes in "
        f"{len(response.chunk_sizes)} chunks, first byte after {duration(row['ttfb_ms']) or 'no time'}, "
        f"whole after {duration(row['duration_ms']) or 'no time'}"
    )
    print_line(_message(response.headers, body))
    if exchange.error_type:
        print_line(f"ended by {exchange.error_type}: {exchange.error_message or ''}")
    if exchange.damage:
        print_line(f"damaged: {exchange.damage}")


def _replaced(exchange: Exchange) -> object:
    """Return what the rules of redaction replaced, None where nothing was."""
    from tracefork_otel.redaction.redact import ATTRIBUTE

    return exchange.attributes.get(ATTRIBUTE)


def _decoded(response: Response) -> bytes:
    """Return the body with its content encoding undone, as it came where that cannot be done."""
    from tracefork_otel.wire.facts import recorded_body

    decoded = recorded_body(response)
    return response.body if decoded is None else decoded


def _message(headers: Headers, body: bytes) -> str:
    return "\n".join([*(f"  {name}: {value}" for name, value in headers), "", _pretty(body)])


def _text(body: bytes) -> object:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body


def _pretty(body: bytes) -> str:
    """Return a body for a person: JSON indented, other text as it is, bytes as a count and their start."""
    if not body:
        return "(empty body)"
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode().rstrip("\n")
    except UnicodeDecodeError:
        return f"({len(body)} bytes, not text: {body[:32].hex(' ')} …)"
