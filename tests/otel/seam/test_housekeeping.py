"""Housekeeping of frameworks is left out of recordings, replays and receipts; a model's call never is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import httpx2
import pytest
import requests
from conftest import Capture
from recorded import fetch, launched, read_store, run_python

from tracefork_otel import Tape
from tracefork_otel.session.housekeeping import KNOWN, Housekeeping


@pytest.mark.parametrize(
    ("host", "path", "who"),
    [
        ("os-api.agno.com", "/telemetry/runs", "agno"),
        ("eu.i.posthog.com", "/batch/", "PostHog"),
        ("api.openai.com", "/v1/traces/ingest", "openai-agents"),
        ("api.openai.com", "/v1/responses", None),
        ("huggingface.co", "/api/models/x/y", "huggingface_hub"),
        ("huggingface.co", "/x/y/resolve/main/config.json", None),
        ("config.mlflow-telemetry.io", "/3.5.0.json", "MLflow"),
        ("api.wandb.ai", "/graphql", "wandb"),
        ("api.inference.wandb.ai", "/v1/chat/completions", None),
        ("trace.wandb.ai", "/call/upsert_batch", "Weave"),
        ("trace.wandb.ai", "/obj/read", None),
        ("eu.api.smith.langchain.com", "/runs/multipart", "LangSmith"),
        ("api.smith.langchain.com", "/info", "LangSmith"),
        ("api.smith.langchain.com", "/commits/owner/prompt/latest", None),
        ("app.crewai.com", "/crewai_plus/api/v1/tracing/ephemeral/batches", "CrewAI"),
        ("mine.test", "/metrics/1", ""),
        ("mine.test", "/metrics?a=1", ""),
        ("mine.test", "/metricsome", None),
        ("mine.test", "/v1", None),
        ("mine.test", None, None),
        ("huggingface.co", None, None),
        ("os-api.agno.com", None, "agno"),
        ("a.b.fleet.test", "/", ""),
        ("fleet.test", "/", None),
        ("notposthog.com", "/", None),
    ],
)
def test_known_and_named_places(host: str, path: str | None, who: str | None) -> None:
    """A place is known by whole names, by what is below a name, and by the beginning of its path."""
    assert Housekeeping(("https://mine.test/metrics", "*.fleet.test")).of(host, path, 443) == who


@pytest.mark.parametrize(
    ("named", "url", "is_one"),
    [
        ("localhost:4000", "http://localhost:4000/v1", True),
        ("localhost:4000", "http://localhost:4001/v1", False),
        ("http://localhost:4000/up", "http://localhost:4000/up?a=1", True),
        ("localhost:4000/up", "http://localhost:4000/upper", False),
        ("mine.test:443", "https://mine.test/x", True),
        ("mine.test:80", "https://mine.test/x", False),
        ("*.fleet.test:8080", "http://a.fleet.test:8080/", True),
        ("*.fleet.test:8080", "http://a.fleet.test/", False),
        ("[::1]:4000", "http://[::1]:4000/", True),
        ("[::1]:4000", "http://[::1]:4001/", False),
        ("::1", "http://[::1]:4001/", True),
        ("fe80::1234", "http://[fe80::1234]/", True),
    ],
)
def test_places_with_a_port(named: str, url: str, is_one: bool) -> None:
    """A port that is named is the only one; without one all are meant."""
    assert (Housekeeping((named,)).of_url(url) == "") is is_one


def test_every_known_place_is_one() -> None:
    """No line of the list is misspelt so that it matches nothing."""
    for who, place in KNOWN:
        host, slash, path = place.replace("*", "any").partition("/")
        assert Housekeeping().of(host, slash + path, 443) == who


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_is_skipped_is_not_recorded(kind: str, capture: Capture, raw: str) -> None:
    """It goes out as if we were not there; a model's call to the same host is recorded."""
    capture.on(skip_hosts=["127.0.0.1"])
    assert fetch(httpx2, kind, "GET", f"{raw}/204").status_code == 204
    body = {"model": "m", "max_tokens": 1, "messages": []}
    fetch(httpx2, kind, "POST", raw.removesuffix("/raw") + "/v1/messages", json=body)
    assert capture.read().only().request.url.endswith("/v1/messages")


@pytest.mark.parametrize("by", ["requests", "aiohttp"])
def test_by_any_client_it_is_no_step(by: str, capture: Capture, raw: str) -> None:
    """What is sent by requests or aiohttp is left out likewise; what is said beside it is a step."""

    async def ask(path: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(f"{raw}/{path}") as got:
            return got.status

    capture.on(skip_hosts=["127.0.0.1/raw/204"])
    for path, status in (("204", 204), ("bytes/3", 200)):
        found = (
            requests.get(f"{raw}/{path}", timeout=5).status_code
            if by == "requests"
            else asyncio.run(ask(path))
        )
        assert found == status
    assert capture.read().only().request.url.endswith("/bytes/3")


@pytest.mark.slow
def test_a_part_of_a_host_is_no_way_round_the_tape(raw: str, tmp_path: Path) -> None:
    """A connection shows no path: where a part of its host is housekeeping it leaks, httpx aside."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "run.tape")
    code = f"""
import asyncio, httpx2
async def main():
    async with httpx2.AsyncClient() as client:
        assert (await client.get("{raw}/204")).status_code == 204
assert httpx2.get("{raw}/204").status_code == 204
asyncio.run(main())
"""
    env = {"TRACEFORK_TAPE": str(tmp_path / "run.tape"), "TRACEFORK_SKIP_HOSTS": "127.0.0.1/raw"}
    run_python(code, store=tmp_path / "let", **launched(TRACEFORK_MODE="replay", **env))  # type: ignore[arg-type]
    assert {note.kind for note in read_store(tmp_path / "let").notes} == {"telemetry"}
    code = f"import urllib.request\nurllib.request.urlopen('{raw}/204')"
    run_python(code, store=tmp_path / "seen", **launched(TRACEFORK_MODE="replay", **env))  # type: ignore[arg-type]
    assert "leak" in {note.kind for note in read_store(tmp_path / "seen").notes}


def test_a_replay_lets_it_out_and_names_it(raw: str, tmp_path: Path) -> None:
    """Httpx and any other client alike: a note, and neither a drift nor a leak."""
    Tape(run_id="0" * 32, exchanges=()).dump(tmp_path / "run.tape")
    port = int(raw.rsplit(":", 1)[1].partition("/")[0])
    code = f"""
import httpx2, socket, urllib.request
assert httpx2.get("{raw}/204").status_code == 204
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *a, **k: real("127.0.0.1", {port}, *a, **k)
urllib.request.urlopen("http://os-api.agno.com/raw/204")
"""
    tape = str(tmp_path / "run.tape")
    env = launched(TRACEFORK_MODE="replay", TRACEFORK_TAPE=tape, TRACEFORK_SKIP_HOSTS="127.0.0.1")
    run_python(code, store=tmp_path / "store", **env)  # type: ignore[arg-type]
    recorded = read_store(tmp_path / "store")
    assert not recorded.exchanges
    assert {note.kind for note in recorded.notes} == {"telemetry"}
