"""What calls cost: all that the price list knows is passed to it, and what it does not know is said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from stored import Recorder
from tracefork_backend.store import open_store
from tracefork_backend.store.prices import PENDING, Bill, Price, Rates, bill, exchange_price

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.wire.counted import paid_of

NOW = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1e9)
OPENAI, ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com"
CHAT, RESPONSES, MESSAGES = (
    f"{OPENAI}/v1/chat/completions",
    f"{OPENAI}/v1/responses",
    f"{ANTHROPIC}/v1/messages",
)
GEMINI = "https://generativelanguage.googleapis.com/v1beta/models/{}:generateContent"


def call(url: str, asked: Any, said: Any, *, method: str = "POST", at: int = NOW, **more: Any) -> Exchange:
    """An exchange of that request and that answer, bytes or JSON."""
    sent, came = (one if isinstance(one, bytes) else json.dumps(one).encode() for one in (asked, said))
    response = Response(status=more.pop("status", 200), headers=(), body=came, chunk_sizes=(len(came),))
    return Exchange(
        trace_id="a" * 32,
        span_id=more.pop("span_id", "b" * 16),
        parent_span_id=None,
        process_id="p",
        seq=0,
        name="n",
        service="s",
        started_ns=at,
        ended_ns=at + 1,
        request=Request(method=method, url=url, headers=(), body=sent),
        response=response,
        outcome="complete",
        **more,
    )


def price(url: str, asked: Any, said: Any, **more: Any) -> Price:
    """What that call cost."""
    exchange = call(url, asked, said, **more)
    found = paid_of(exchange)
    assert found is not None
    return exchange_price(exchange, found)


def chat(model: str = "gpt-5", *, details: Any = None, said: Any = None, **more: Any) -> dict[str, Any]:
    """A completion of 23000 tokens to 1000."""
    usage = {"prompt_tokens": 23000, "completion_tokens": 1000, "total_tokens": 24000}
    usage |= {"prompt_tokens_details": details or {}, "completion_tokens_details": said or {}}
    return {"id": "c", "model": model, "choices": [], "usage": usage, **more}


def message(model: str, **usage: Any) -> dict[str, Any]:
    """An answer of Anthropic's that counts this."""
    counted = {"input_tokens": 23000, "output_tokens": 1000, **usage}
    return {"id": "m", "type": "message", "model": model, "content": [], "usage": counted}


def response(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A response of 23000 tokens to 1000."""
    usage = {"input_tokens": 23000, "output_tokens": 1000, "total_tokens": 24000}
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5",
        "output": list(output),
        "usage": usage,
        **more,
    }


def grounded(model: str, *queries: str, **usage: Any) -> dict[str, Any]:
    """An answer of Gemini's after these searches."""
    counted = {"promptTokenCount": 1000, "candidatesTokenCount": 100, **usage}
    candidate = {"content": {"parts": []}, "groundingMetadata": {"webSearchQueries": list(queries)}}
    return {"candidates": [candidate], "modelVersion": model, "usageMetadata": counted}


SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
OPENED = {"type": "web_search_call", "action": {"type": "open_page"}}
COMPACTED = [
    {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500},
    {"type": "message", "input_tokens": 23000, "output_tokens": 1000},
]
BATCH = b"".join(
    json.dumps(
        {"custom_id": str(n), "result": {"type": "succeeded", "message": message("claude-opus-4-8")}}
    ).encode()
    + b"\n"
    for n in range(2)
)
FILE = b"\n".join(
    json.dumps({"custom_id": str(n), "response": {"status_code": 200, "body": body}}).encode()
    for n, body in enumerate([chat(), response()])
)


@pytest.mark.parametrize(
    ("url", "asked", "said", "usd"),
    [
        (CHAT, {}, chat(), 0.03875),
        (CHAT, {}, chat(service_tier="flex"), 0.019375),
        (CHAT, {}, chat(service_tier="priority"), 0.0775),
        (MESSAGES, {}, message("claude-opus-4-8"), 0.14),
        (MESSAGES, {}, message("claude-opus-4-8", speed="fast"), 0.28),
        (MESSAGES, {}, message("claude-opus-4-8", service_tier="batch"), 0.07),
        (MESSAGES, {}, message("claude-opus-4-8", server_tool_use={"web_search_requests": 3}), 0.17),
        (MESSAGES, {}, message("claude-sonnet-5", iterations=COMPACTED), 0.451),
        (RESPONSES, {}, response(SEARCH, OPENED, SEARCH), 0.03875 + 0.02),
        (RESPONSES, {}, response({"type": "file_search_call"}), 0.03875 + 0.0025),
        # A prompt that was searched for is one to older models; those from the third on bill each query.
        (
            GEMINI.format("gemini-2.5-flash"),
            {},
            grounded("gemini-2.5-flash", "a", "b"),
            0.0003 + 0.00025 + 0.035,
        ),
        (CHAT, {"model": "gpt-audio"}, chat("gpt-audio", details={"audio_tokens": 3000}), None),
        # What the provider itself says: OpenRouter, Perplexity, xAI.
        (
            CHAT,
            {},
            {**chat("x/y"), "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.25}},
            0.25,
        ),
        (CHAT, {}, {**chat("sonar"), "usage": {"prompt_tokens": 1, "cost": {"total_cost": 0.125}}}, 0.125),
        (
            CHAT,
            {},
            {**chat("grok-4"), "usage": {"prompt_tokens": 1, "cost_in_usd_ticks": 5_000_000_000}},
            0.5,
        ),
        (
            f"{OPENAI}/v1/embeddings",
            {"model": "text-embedding-3-small"},
            {"data": [], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 10**6}},
            0.02,
        ),
        (
            f"{OPENAI}/v1/moderations",
            {"model": "omni-moderation-latest"},
            {"results": [{"flagged": False}]},
            0.0,
        ),
        (f"{OPENAI}/v1/audio/speech", {"model": "tts-1", "input": "x" * 1000}, b"ID3\x00", 0.015),
        (
            f"{OPENAI}/v1/audio/transcriptions",
            b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--x--\r\n',
            {"text": "hi", "usage": {"type": "duration", "seconds": 600}},
            0.06,
        ),
        (
            f"{OPENAI}/v1/images/generations",
            {"model": "gpt-image-1"},
            {"data": [{}], "usage": {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}},
            0.005 + 0.04,
        ),
    ],
)
def test_everything_that_is_counted_has_its_price(url: str, asked: Any, said: Any, usd: float | None) -> None:
    """Tiers, speed, searches, compaction, audio, pictures: as the price list has it at that time."""
    found = price(url, asked, said)
    assert found.reason is None
    assert found.usd is not None
    if usd is None:
        assert found.usd > (price(url, asked, chat("gpt-audio")).usd or 0)  # audio is dearer than text
    else:
        assert found.usd == pytest.approx(usd)


@pytest.mark.parametrize(
    ("url", "said", "usd"),
    [
        (f"{MESSAGES}/batches/msgbatch_1/results", BATCH, 0.14),
        (f"{OPENAI}/v1/files/file-1/content", FILE, 0.03875),
    ],
)
def test_a_batch_costs_half_where_its_results_are_fetched(url: str, said: bytes, usd: float) -> None:
    """Each line is a call of its own, at the price of a batch; another file is none."""
    assert price(url, b"", said, method="GET").usd == pytest.approx(usd)
    assert paid_of(call(url, b"", b"%PDF-1.7", method="GET")) is None
    assert paid_of(call(url, b"", b'{"a": 1}\n{"b": 2}\n', method="GET")) is None


@pytest.mark.parametrize(
    ("url", "said", "reason"),
    [
        (CHAT, chat("no-such-model"), "the price of no-such-model is not known"),
        (CHAT, {**chat(), "usage": None}, "no tokens were counted"),
        (CHAT, chat("gpt-4o", service_tier="flex"), "no price for service_tier flex"),
        (CHAT, chat(service_tier="scale"), "no price for service_tier scale"),
        (MESSAGES, message("claude-opus-4-8", inference_geo="us"), "no price for inference_geo us"),
        (MESSAGES, message("claude-opus-4-8", speed="ludicrous"), "no price for speed ludicrous"),
        (RESPONSES, response({"type": "code_interpreter_call"}), "no price for the programs that it ran"),
        (RESPONSES, response({"type": "image_generation_call"}), "no price for the images that it made"),
        (f"{OPENAI}/v1/images/generations", {"model": "dall-e-3", "data": [{}]}, "price of dall-e-3 is not"),
    ],
)
def test_what_the_list_does_not_know_is_said(url: str, said: Any, reason: str) -> None:
    """No price of another tier, or of the tokens alone, stands in for one that is not known."""
    found = price(url, {"model": said["model"]}, said)
    assert found.usd is None
    assert reason in (found.reason or "")


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "no tokens were counted"), (None, "its answer was cut before its tokens were counted")],
)
def test_a_stream_that_said_its_end_was_not_cut(finish: str | None, reason: str) -> None:
    """OpenAI's client closes a stream at `[DONE]`; without `include_usage` its tokens are not counted."""
    choice = {"index": 0, "delta": {"content": "Oslo"}, "finish_reason": finish}
    said = f"data: {json.dumps({'model': 'gpt-5', 'choices': [choice]})}\n\n".encode()
    streamed = replace(call(CHAT, {"model": "gpt-5", "stream": True}, said), outcome="closed")
    found = paid_of(streamed)
    assert found is not None
    assert exchange_price(streamed, found) == Price(None, reason)


def test_a_price_is_that_of_its_day() -> None:
    """A tier that the list has from October on is not priced in September."""
    september = int(datetime(2026, 9, 1, tzinfo=UTC).timestamp() * 1e9)
    assert "service_tier flex" in (price(CHAT, {}, chat(service_tier="flex"), at=september).reason or "")
    assert price(CHAT, {}, chat(), at=september).usd == pytest.approx(0.03875)


def test_a_part_is_priced_by_its_own_length() -> None:
    """Two iterations below the step of a price are not one above it."""
    parts = [{"input_tokens": 150000, "output_tokens": 0}] * 2
    long = message("claude-haiku-5-5", input_tokens=150000, output_tokens=0)
    once = price(MESSAGES, {}, long).usd
    twice = price(MESSAGES, {}, {**long, "usage": {**long["usage"], "iterations": parts}}).usd
    assert once is not None
    assert twice == pytest.approx(2 * once)


def test_a_price_that_a_person_gave_counts() -> None:
    """It stands before the list's, also for a model that no list has; 0 is a price."""
    exchange = call(CHAT, {}, chat("mine"))
    assert bill([exchange]).unpriced == 1
    assert bill([exchange], {"mine": Rates(1.0, 2.0)}) == Bill(
        usd=pytest.approx(0.025), dearest_usd=pytest.approx(0.025)
    )
    assert bill([exchange], {"mine": Rates(0.0, 0.0)}) == Bill(usd=0.0)


def test_a_model_on_this_machine_costs_nothing() -> None:
    """On loopback, what is in no list is free; what is in one may be a proxy's, and is priced."""
    local = "http://127.0.0.1:8000/v1/chat/completions"
    assert price(local, {"model": "qwen3"}, chat("qwen3")) == Price(0.0)
    assert price(local, {"model": "qwen3"}, {**chat("qwen3"), "usage": None}) == Price(0.0)
    assert price(local, {"model": "gpt-5"}, chat()).usd == pytest.approx(0.03875)


def test_an_error_and_a_refused_connection_cost_nothing() -> None:
    """Nothing was made; a call whose answer was lost may have been."""
    failed = call(CHAT, {"model": "gpt-5"}, {"error": {"message": "slow down"}}, status=429)
    lost = call(CHAT, {"model": "gpt-5"}, {}, error_type="httpx2.ReadTimeout")
    lost, refused = (
        type(lost)(
            **{**{name: getattr(lost, name) for name in lost.__slots__}, "response": None, "error_type": kind}
        )
        for kind in ("httpx2.ReadTimeout", "httpx2.ConnectError")
    )
    assert bill([failed, refused]) == Bill(usd=0.0)
    assert bill([lost]).unpriced == 1


def test_a_response_in_the_background_is_paid_for_once(tmp_path: Path) -> None:
    """The POST has no counts, the GET that brings them has, a second GET nothing more; in SQL as here."""
    begun = {**response(), "usage": None, "status": "queued", "background": True}
    working = {**begun, "status": "in_progress"}
    done = {**response(), "status": "completed", "background": True}
    where = f"{RESPONSES}/resp_1"
    calls = [
        call(RESPONSES, {"model": "gpt-5"}, begun),
        *(
            call(where, b"", said, method="GET", span_id=str(n) * 16)
            for n, said in enumerate([working, done, done])
        ),
    ]
    assert bill(calls) == Bill(usd=pytest.approx(0.03875), dearest_usd=pytest.approx(0.03875))
    assert bill(calls[:2]) == Bill(usd=0.0, unpriced=1, running=1, reasons=(PENDING,))
    recorder = Recorder(tmp_path)
    run_id = "c" * 32
    for one in calls:
        assert one.response is not None
        recorder.exchange(
            run_id, one.request.body, one.response.body, url=one.request.url, method=one.request.method
        )
    recorder.exchange(
        run_id, json.dumps({"model": "odd"}).encode(), json.dumps(chat("odd")).encode(), url=CHAT
    )
    recorder.close()
    store = open_store(tmp_path)
    (run,) = store.sql("select input_tokens, output_tokens, cost_usd, unpriced from runs").fetchall()
    assert run == (46000, 2000, pytest.approx(0.03875), 1)
    rows = store.sql("select cost_reason from exchanges where cost_reason is not null").fetchall()
    assert rows == [("the price of odd is not known",)]


def test_answers_with_one_id_are_each_paid_for(tmp_path: Path) -> None:
    """Caches and some servers give one id to all; to fetch an answer that its POST brought costs nothing."""
    done = {**response(), "status": "completed"}
    told = {**done, "background": False}
    where = f"{RESPONSES}/resp_1"
    asked = {"model": "gpt-5"}
    twice = [call(RESPONSES, asked, one, span_id=at * 16) for at, one in (("1", done), ("2", told))]
    again = call(where, b"", told, method="GET", span_id="3" * 16)
    assert bill([*twice, again]) == Bill(usd=pytest.approx(2 * 0.03875), dearest_usd=pytest.approx(0.03875))
    cut = call(RESPONSES, {"model": "gpt-5"}, {**told, "usage": None}, span_id="4" * 16)
    assert bill([cut, again]).unpriced == 1  # what its stream took is not known by the other's counts
    recorder = Recorder(tmp_path)
    for one in (*twice, again):
        assert one.response is not None
        recorder.exchange(
            "c" * 32, one.request.body, one.response.body, url=one.request.url, method=one.request.method
        )
    recorder.close()
    (run,) = open_store(tmp_path).sql("select input_tokens, cost_usd, unpriced from runs").fetchall()
    assert run == (46000, pytest.approx(2 * 0.03875), 0)


def test_cached_audio_has_its_own_price() -> None:
    """Gemini tells which of the cached tokens were sound; else the list would have to guess."""
    url = GEMINI.format("gemini-2.5-flash")
    details = {
        "cachedContentTokenCount": 600,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 800}],
    }
    told = grounded(
        "gemini-2.5-flash", cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 600}], **details
    )
    # USD per million: 0.3 text, 1 audio, 0.1 cached audio, 2.5 out.
    assert price(url, {}, told).usd == pytest.approx((200 * 0.3 + 200 * 1 + 600 * 0.1 + 100 * 2.5) / 1e6)
    assert "counts contradict" in (price(url, {}, grounded("gemini-2.5-flash", **details)).reason or "")
