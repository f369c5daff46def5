"""Results of batches: lines of JSON, each the answer to one request, at the price of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .json_values import loads, mapping, string
from .messages import Reply, Usage
from .registry import load

_BATCH = (("processing", "batch"),)


def anthropic_results(content: bytes) -> Usage | None:
    """Return what the results of a message batch count, None where these are none."""
    lines = list(_lines(content))
    if not any("custom_id" in line and "result" in line for line in lines):
        return None
    messages = (mapping(mapping(line.get("result")).get("message")) for line in lines)
    return _total(load("anthropic").read_reply(one) for one in messages if one)


def openai_results(content: bytes) -> Usage | None:
    """Return what a file of results counts, None where it is another file."""
    lines = list(_lines(content))
    if not any("custom_id" in line and "response" in line for line in lines):
        return None
    return _total(
        reply for line in lines if (reply := _read(mapping(mapping(line.get("response")).get("body"))))
    )


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield each line that is an object, as far as the first ones are."""
    for number, line in enumerate(content.splitlines()):
        said = mapping(loads(line)) if line[:1] == b"{" else {}
        if not said and number == 0:
            return
        yield said


def _read(body: dict[str, Any]) -> Reply | None:
    if not mapping(body.get("usage")):
        return None
    if string(body.get("object")) == "list":  # embeddings
        counted = Usage(input_tokens=load("openai_chat").read_reply(body).usage.input_tokens)
        return Reply(model=string(body.get("model")), usage=counted)
    form = load("openai_responses" if isinstance(body.get("output"), list) else "openai_chat")
    return form.read_reply(body)


def _total(replies: Iterable[Reply]) -> Usage:
    parts = [
        replace(one.usage, of_model=one.model, served=_BATCH, pending=False)
        for one in replies
        if one.usage.is_counted
    ]
    # Requests that failed are not paid for.
    return Usage.total(parts) if parts else Usage(told_usd=0.0)
