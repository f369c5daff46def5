"""`send`: stored runs given to an OTLP backend."""

from __future__ import annotations

from typing import Annotated

import typer

from tracefork_otel.errors import UsageError

from ..spelling import counted, run_name
from .flags.options import STORE, JsonOption, StoreOption
from .opening import reading, told
from .output import FAILED, print_json, say


def send(
    runs: Annotated[
        list[str], typer.Argument(help="Runs: last, last~2, the first digits of an id.", show_default=False)
    ],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> int:
    """Send runs where OTEL_EXPORTER_OTLP_* points, with their own ids and times.

    Sent a second time they are the same spans. What agents say stays in the store, unless
    TRACEFORK_EVENT_BODY_LIMIT or OpenTelemetry's setting for message content asks for it.
    """
    from ..store import outgoing
    from ..writeback.names import jaeger_url
    from ..writeback.sending import endpoint

    where = endpoint()
    if where is None:
        raise UsageError(
            "OTEL_EXPORTER_OTLP_ENDPOINT names no backend: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 "
            "tracefork-otel send …"
        )
    with reading(store) as opened:
        found = list({run.run_id: run for run in map(opened.run, runs)}.values())
        sent = outgoing.send(found)
        if as_json:
            ids = [run.run_id for run in found]
            print_json(
                {
                    "runs": ids,
                    "spans": sent.spans,
                    "of": sent.of,
                    "endpoint": where,
                    "problems": sent.problems,
                    **told(opened),
                }
            )
        else:
            listed = ", ".join(run_name(run.run_id) for run in found)
            for why in sent.problems:
                say(f"warning: {why}")
            if sent.spans or not sent.problems:
                some = "" if sent.spans == sent.of else f"{sent.spans} of "
                what = f"{some}{counted(sent.of, 'span')} of {counted(len(found), 'run')} ({listed})"
                print(f"{what} sent to {where}")
            for url in filter(None, map(jaeger_url, sent.runs)):
                print(f"jaeger: {url}")
    return FAILED if sent.problems else 0
