"""Calls that are counted and are no conversation: embeddings, rankings, pictures, speech, batches' results.

Where each is asked for is in `counted_paths.py`; what reads its counts is here. Nobody writes such an answer,
so they are no wire forms. Every function here is pure, and none raises on any body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .batches import anthropic_results, openai_results
from .codings import plain_request
from .counted_paths import counted_path
from .facts import facts_of, recorded_body
from .json_values import clean, count, loads, mapping, mappings, string
from .messages import Facts, Usage, billed
from .openai import told_usd
from .registry import host_of, place

if TYPE_CHECKING:
    from ..exchange import Exchange

Json = dict[str, Any]


class Read(NamedTuple):
    """What was counted, and the model that the answer names."""

    usage: Usage
    model: str | None = None
    kept: str | None = None
    """By what the provider keeps the answer."""


def paid_of(exchange: Exchange) -> Facts | None:
    """Return the facts of an exchange that somebody pays for, None of any other."""
    return facts_of(exchange) or counted_of(exchange)


def counted_of(exchange: Exchange) -> Facts | None:
    """Return what a call that is no conversation counts; None where it is none, or not told of one."""
    asked, response = exchange.request, exchange.response
    host, path = place(asked.url)
    found = counted_path(path, asked.method.upper())
    if found is None:
        return None
    call, named, kept = found
    body = plain_request(asked)
    request = mapping(loads(body)) if body[:1] == b"{" else _fields(body)
    content = (recorded_body(response) if response is not None else None) or b""
    whole = mapping(loads(content)) if content[:1] == b"{" else {}
    read = _READERS[call.reads](request, whole, content)
    known = host_of(host)
    if read is None:
        return None
    model = named or string(request.get("model")) or read.model
    if model is None and known is None:
        return None
    return Facts(
        form="",
        provider=call.provider if known is None else known.provider,
        operation=call.operation,
        model=None if model is None else clean(model),
        response_model=None if read.model is None else clean(read.model),
        response_id=None,
        finish_reason=None,
        usage=read.usage,
        streamed=False,
        reply=(),
        text="",
        stored_id=read.kept or kept,
    )


_PARTS, _HEAD, _SHORT = 64, 1_000, 200
"""Parts of a form that are looked at, and bytes of a part's head and of a short field."""


def _fields(body: bytes) -> Json:
    """Return the short fields of a form with files, as an upload has them."""
    if not body.startswith(b"--"):
        return {}
    found: Json = {}
    for part in body.split(b"\r\n--", _PARTS):
        head, _, value = part.partition(b"\r\n\r\n")
        named = re.search(rb'name="(\w+)"', head[:_HEAD])
        if named is not None and 0 < len(value) <= _SHORT:
            found[named[1].decode()] = value.decode("utf-8", "replace")
    return found


def _embedding(request: Json, whole: Json, content: bytes) -> Read:
    """Read OpenAI's count, Voyage's, Cohere's and Gemini's."""
    usage = mapping(whole.get("usage"))
    units = mapping(mapping(whole.get("meta")).get("billed_units"))
    given = (
        usage.get("prompt_tokens"),
        usage.get("total_tokens"),
        _whole(units.get("input_tokens")),
        mapping(whole.get("usageMetadata")).get("promptTokenCount"),
        whole.get("inputTextTokenCount"),
        whole.get("prompt_eval_count"),
    )
    told = next((found for one in given if (found := count(one)) is not None), None)
    return Read(
        Usage(
            input_tokens=told,
            units=billed(images=_whole(units.get("images"))),
            told_usd=told_usd(usage),
        ),
        string(whole.get("model")),
    )


def _ranking(request: Json, whole: Json, content: bytes) -> Read:
    """Read Cohere's searches, and the tokens of those who count tokens."""
    meta, usage = mapping(whole.get("meta")), mapping(whole.get("usage"))
    units = mapping(meta.get("billed_units")) or usage
    total = count(usage.get("total_tokens"))
    tokens = count(mapping(meta.get("tokens")).get("input_tokens")) if total is None else total
    searches = _whole(units.get("search_units"))
    used = Usage(
        input_tokens=None if searches else tokens,
        units=billed(rerank_searches=searches),
        told_usd=told_usd(usage),
    )
    return Read(used, string(whole.get("model")))


def _moderation(request: Json, whole: Json, content: bytes) -> Read:
    """Read OpenAI's moderation, which costs nothing, or a copier's, which counts its tokens."""
    usage = mapping(whole.get("usage"))
    tokens = count(usage.get("prompt_tokens"))
    free = tokens is None and bool(mappings(whole.get("results")))
    return Read(Usage(input_tokens=tokens, told_usd=0.0 if free else None), string(whole.get("model")))


def _image(request: Json, whole: Json, content: bytes) -> Read:
    """Read the tokens of pictures; older models are billed by the picture, which no list knows."""
    ended = [loads(line[5:]) for line in content.splitlines() if line.startswith(b"data:")]
    whole = next((one for one in map(mapping, reversed(ended)) if one.get("usage")), whole)
    usage = mapping(whole.get("usage"))
    given, said = (mapping(usage.get(f"{one}_tokens_details")) for one in ("input", "output"))
    tokens = count(usage.get("input_tokens"))
    made = 0 if tokens is not None else len(mappings(whole.get("data")))
    return Read(
        Usage(
            input_tokens=tokens,
            output_tokens=count(usage.get("output_tokens")),
            units=billed(
                images=made,
                input_image_tokens=count(given.get("image_tokens")),
                output_image_tokens=count(said.get("image_tokens")),
            ),
            told_usd=told_usd(usage),
        ),
        string(whole.get("model")),
    )


def _speech(request: Json, whole: Json, content: bytes) -> Read:
    """Read the characters that were spoken, and the tokens where a stream tells them."""
    ended = [mapping(loads(line[5:])) for line in content.splitlines() if line.startswith(b"data:")]
    usage = next((found for one in reversed(ended) if (found := mapping(one.get("usage")))), {})
    tokens, text = count(usage.get("input_tokens")), string(request.get("input"))
    output = count(usage.get("output_tokens"))
    return Read(
        Usage(
            input_tokens=tokens,
            output_tokens=output,
            units=billed(
                input_characters=len(text) if text and tokens is None else None, output_audio_tokens=output
            ),
        )
    )


def _transcription(request: Json, whole: Json, content: bytes) -> Read:
    """Read the seconds that were heard, or the tokens."""
    ended = [mapping(loads(line[5:])) for line in content.splitlines() if line.startswith(b"data:")]
    usage = next(
        (found for one in reversed(ended) if (found := mapping(one.get("usage")))),
        mapping(whole.get("usage")),
    )
    given = mapping(usage.get("input_token_details"))
    seconds = usage.get("seconds", usage.get("prompt_audio_seconds", whole.get("duration")))
    heard = float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1e12 else None
    tokens = count(usage.get("input_tokens", usage.get("prompt_tokens")))
    if tokens is not None and "prompt_audio_seconds" not in usage:
        heard = None
    return Read(
        Usage(
            input_tokens=tokens,
            output_tokens=count(usage.get("output_tokens", usage.get("completion_tokens"))),
            units=billed(
                audio_seconds=heard,
                input_audio_seconds=heard,
                input_audio_tokens=count(given.get("audio_tokens")),
            ),
        ),
        string(whole.get("model")),
    )


def _pages(request: Json, whole: Json, content: bytes) -> Read:
    """Read the pages of documents that Mistral read."""
    pages = count(mapping(whole.get("usage_info")).get("pages_processed"))
    annotated = {"bbox_annotation_format", "document_annotation_format"} & request.keys()
    units = billed(input_document_pages=pages, input_annotated_document_pages=pages if annotated else None)
    return Read(Usage(units=units), string(whole.get("model")))


def _anthropic_batch(request: Json, whole: Json, content: bytes) -> Read | None:
    if "results_url" not in whole and "processing_status" not in whole:
        return None
    return Read(Usage(pending=True), _first_model(request), string(whole.get("id")))


def _first_model(request: Json) -> str | None:
    asked = (mapping(one.get("params")) for one in mappings(request.get("requests")))
    return next((model for one in asked if (model := string(one.get("model")))), None)


def _anthropic_results(request: Json, whole: Json, content: bytes) -> Read | None:
    used = anthropic_results(content)
    return None if used is None else Read(used, used.parts[0].of_model if used.parts else None)


def _openai_results(request: Json, whole: Json, content: bytes) -> Read | None:
    used = openai_results(content)
    return None if used is None else Read(used, used.parts[0].of_model if used.parts else None)


def _whole(value: Any) -> int | None:
    """Return a number that is whole, also where it is spelled with a point."""
    return count(int(value)) if isinstance(value, float) and value.is_integer() else count(value)


_READERS: Mapping[str, Callable[[Json, Json, bytes], Read | None]] = {
    "anthropic_batch": _anthropic_batch,
    "anthropic_results": _anthropic_results,
    "embedding": _embedding,
    "image": _image,
    "moderation": _moderation,
    "openai_results": _openai_results,
    "pages": _pages,
    "ranking": _ranking,
    "speech": _speech,
    "transcription": _transcription,
}
