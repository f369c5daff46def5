"""Calls that are counted and are no conversation, whatever their bodies hold."""

from __future__ import annotations

import pytest
from growth_guard import soon

from tracefork_otel.exchange import Exchange, Request, Response
from tracefork_otel.wire.counted import paid_of
from tracefork_otel.wire.counted_paths import counted_call
from tracefork_otel.wire.openai import told_usd

URL = "https://api.openai.com/v1/audio/transcriptions"


def exchange(body: bytes, said: bytes = b"{}") -> Exchange:
    """An upload and its answer."""
    return Exchange(
        process_id="1-a",
        seq=0,
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "1",
        parent_span_id=None,
        started_ns=1,
        ended_ns=2,
        request=Request(method="POST", url=URL, headers=(), body=body),
        response=Response(status=200, headers=(("content-type", "application/json"),), body=said),
        outcome="complete",
    )


def test_the_model_of_an_upload() -> None:
    """It stands in a field of the form, whatever the file holds."""
    head = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b\r\n'
    file = (
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"\0\r\n" * 99
        + b"\r\n--b--\r\n"
    )
    found = paid_of(exchange(head + file))
    assert found is not None
    assert (found.operation, found.model) == ("transcription", "whisper-1")


def test_a_form_without_an_end_is_read_at_once() -> None:
    """Its length is not squared."""
    with soon(0.05):
        paid_of(exchange(b"--x\r\n" + b'name="a"\r\n' * 400_000))


@pytest.mark.parametrize("cost", [10**400, -1, float("inf"), float("nan"), True, "1", None, 1e12])
def test_a_cost_that_is_none(cost: object) -> None:
    """A provider's own sum counts where it can be one."""
    assert told_usd({"cost": cost}) is None


def test_what_is_asked_for_is_told_of_the_request_alone() -> None:
    """As the span does, which begins before the answer."""
    found = counted_call("POST", "https://api.openai.com/v1/embeddings", b'{"model": "e", "input": "x"}')
    assert found is not None
    assert (found.provider, found.operation, found.model) == ("openai", "embeddings", "e")
    assert counted_call("POST", "https://x.example/v1/embeddings", b'{"input": "x"}') is None
    assert counted_call("GET", "https://api.openai.com/v1/embeddings", b"") is None
