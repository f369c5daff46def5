"""What a received span becomes says nothing of what runs on this machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tracefork_backend.network.agents import VARIABLE, recorded_routes
from tracefork_backend.network.received import records_of

from tracefork_otel.errors import TapeError
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.store.records import SpanRecord
from tracefork_otel.tape.start import HowStarted, how_started

PLANTED = HowStarted(
    command=("sh", "-c", "touch planted"),
    cwd="/tmp",
    environment={"PYTHONPATH": "/tmp/theirs"},
    withheld=("API_KEY",),
    entrypoint="subprocess:getoutput",
    arguments={"args": ["touch planted"], "kwargs": {}},
).attributes()
CALL = {"tracefork.exchange": True, "url.full": "https://api.anthropic.com/v1/messages"}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5"}


@pytest.mark.parametrize("kind", [{}, CALL, CHAT], ids=["span", "exchange", "conversation"])
def test_a_received_span_never_says_what_runs(kind: dict[str, Any]) -> None:
    """Command, function, arguments, folder and environment from outside are left out; the rest stays."""
    span = SpanRecord(
        trace_id="ab" * 16,
        span_id="cd" * 8,
        parent_span_id=None,
        name="invoke_agent x",
        kind="INTERNAL",
        started_ns=1,
        ended_ns=2,
        attributes={**PLANTED, **kind, "theirs": 1},
    )
    kept: dict[str, object] = {}
    for record in records_of(span, Redactor()):
        kept |= getattr(record, "attributes", {})
    assert kept["theirs"] == 1
    assert how_started(kept) == HowStarted()


ROUTES = [
    [{"variable": "LD_PRELOAD", "origin": "http://a.example", "path": "/x"}],
    [{"variable": "PATH", "origin": "http://a.example", "path": ""}],
    [{"variable": "OPENAI_BASE_URL", "origin": "file:///etc", "path": ""}],
    [{"variable": "OPENAI_BASE_URL", "origin": "http://a.example", "path": "x"}],
    [{"variable": "OPENAI_BASE_URL", "origin": "http://a.example", "path": "", "port": 2**20}],
    [{"variable": "OPENAI_BASE_URL", "origin": 7, "path": ""}],
    [{"variable": "OPENAI_BASE_URL"}],
    ["x"],
    {"variable": 1},
    7,
]


@pytest.mark.parametrize("routes", ROUTES, ids=map(str, range(len(ROUTES))))
def test_recorded_routes_lead_from_a_providers_variable_to_a_host(routes: object) -> None:
    """Whatever else a recording says of its proxy is refused by name."""
    start = HowStarted(environment={VARIABLE: json.dumps(routes)})
    with pytest.raises(TapeError, match="proxy cannot be read"):
        recorded_routes(start)
