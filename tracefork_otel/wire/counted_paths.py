"""Where calls are asked for that are counted and are no conversation: what a request alone tells.

An agent's first request to anywhere is looked up here, so that nothing is loaded which reads answers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from .registry import Call, host_of, model_of, place


class CountedPath(NamedTuple):
    """One kind of such calls."""

    path: str
    """Of how the path ends; its groups `model` and `id` are the model and what is fetched."""
    operation: str
    provider: str
    """On a host that is in no table."""
    reads: str
    """What reads its counts, by its name in `counted.py`."""
    method: str = "POST"


_CALLS = (
    CountedPath(
        r"/embeddings|/multimodalembeddings|/contextualizedembeddings", "embeddings", "openai", "embedding"
    ),
    CountedPath(r"/v[12]/embed|/v[12]/embed-jobs", "embeddings", "cohere", "embedding"),
    CountedPath(r"/api/embed(?:dings)?", "embeddings", "ollama", "embedding"),
    CountedPath(
        r"/models/(?P<model>[^/:]+):(?:batchEmbedContents|embedContent|embedText)",
        "embeddings",
        "gcp.gemini",
        "embedding",
    ),
    CountedPath(r"/model/(?P<model>.*embed[^/]*)/invoke", "embeddings", "aws.bedrock", "embedding"),
    CountedPath(r"/(?:v[12]/)?rerank", "rerank", "cohere", "ranking"),
    CountedPath(r"/moderations", "moderation", "openai", "moderation"),
    CountedPath(r"/images/(?:generations|edits|variations)", "image_generation", "openai", "image"),
    CountedPath(r"/audio/speech", "speech", "openai", "speech"),
    CountedPath(r"/audio/(?:transcriptions|translations)", "transcription", "openai", "transcription"),
    CountedPath(r"/v1/messages/batches", "batch", "anthropic", "anthropic_batch"),
    CountedPath(r"/v1/ocr", "ocr", "mistral_ai", "pages"),
    CountedPath(
        r"/v1/messages/batches/(?P<id>[^/]+)/results", "batch", "anthropic", "anthropic_results", method="GET"
    ),
    CountedPath(r"/v1/files/(?P<id>[^/]+)/content", "batch", "openai", "openai_results", method="GET"),
)


_ASKED_FOR = {
    "embeddings": "embeddings",
    "rerank": "a ranking",
    "moderation": "a moderation",
    "image_generation": "a picture",
    "speech": "speech",
    "transcription": "a transcription",
    "batch": "a batch",
    "ocr": "the text of a document",
}


def no_conversation(method: str, url: str, body: bytes) -> str:
    """Say what a request is that is no model call, and what can be changed of it."""
    host, path = place(url)
    found, call, known = counted_path(path, method.upper()), counted_call(method, url, body), host_of(host)
    what = f"{method} {url} is no model call of a known provider"
    if found is not None and (call is not None or known is not None):
        provider = found[0].provider if known is None else known.provider
        of = f" of {call.model}" if call is not None and call.model else ""
        what = f"it asks {provider} for {_ASKED_FOR[found[0].operation]}{of}, which is no conversation"
    ways = "--response FILE, --fault and --resample work here"
    if body.lstrip()[:1] == b"{":
        named = ", such as --set model=NAME" if b'"model"' in body else ""
        ways = f"--set PATH=VALUE{named}, {ways}"
    return f"{what}: {ways}"


def counted_call(method: str, url: str, body: bytes) -> Call | None:
    """Return what a request asks for that is counted and is no conversation; None where it is none."""
    host, path = place(url)
    found = counted_path(path, "POST") if method.upper() == "POST" else None
    if found is None:
        return None
    call, named, _ = found
    known, model = host_of(host), named or model_of(body)
    if model is None and known is None:
        return None
    return Call("", call.provider if known is None else known.provider, call.operation, model)


@lru_cache(maxsize=512)
def counted_path(path: str, method: str) -> tuple[CountedPath, str | None, str | None] | None:
    """Return which of them is asked for there, with the model and the id that the path names."""
    for call in _CALLS:
        found = re.search(f"(?:{call.path})\\Z", path) if call.method == method else None
        if found is not None:
            named = found.groupdict()
            return call, named.get("model"), named.get("id")
    return None
