"""Bodies that unpack to a thousand times their size take no memory to speak of, whoever sent them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace

import pytest
from tracefork_backend.store import facts

from tracefork_otel.exchange import Exchange, Request, Response

MB = 2**20
URL = "https://api.openai.com/v1/chat/completions"


def exchange(number: int, text: str, *, of_request: bool) -> Exchange:
    """A call with that text, packed, on one side."""
    said = {"role": "assistant", "content": text}
    asked = json.dumps({"model": "m", "messages": [said] if of_request else []}).encode()
    answer = json.dumps({"model": "m", "choices": [{"index": 0, "message": said}]}).encode()
    packed = (("content-encoding", "gzip"), ("content-type", "application/json"))
    request = Request(method="POST", url=URL, body=asked)
    response = Response(status=200, headers=packed, body=gzip.compress(b"{}" if of_request else answer))
    if of_request:
        request = Request(method="POST", url=URL, headers=packed, body=gzip.compress(asked))
    return Exchange(
        trace_id="ab" * 16,
        span_id=f"{number:016x}",
        parent_span_id=None,
        process_id="1-ab",
        seq=number,
        started_ns=number,
        ended_ns=number + 1,
        request=request,
        response=replace(response, chunk_sizes=(len(response.body),), chunk_offsets_us=(1,)),
        outcome="complete",
    )


@pytest.mark.parametrize("of_request", [False, True])
def test_bombs_are_not_kept(monkeypatch: pytest.MonkeyPatch, of_request: bool) -> None:
    """A segment's texts have a bound beyond what is usual; what does not fit is read as bytes alone."""
    monkeypatch.setattr(facts, "_SPARE", 3 * MB)
    calls = [exchange(number, f"{number}" + "0" * MB, of_request=of_request) for number in range(12)]
    few = exchange(99, "a short text", of_request=of_request)
    reader = facts.Reader()
    tracemalloc.start()
    rows = [reader.row(one) for one in calls]
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 9 * MB, kept
    table = facts.of_exchanges([*calls, few]).to_pylist()
    said = [one["content"] for row in table for one in row["said"]]
    assert "a short text" in said
    assert 1 <= sum(len(text) > MB for text in said) <= 3
    assert len(rows) == len(calls)
