"""OpenAI's formats, Chat Completions and Responses: at its own host, on Azure, and at all who copy them."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import openai_chat, openai_chat_writing, openai_responses, openai_responses_writing
from .json_values import top_level_string
from .sse import streams_by_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .messages import Message, Reply
    from .writing import WireForm

NAME = "openai"
HOSTS: Mapping[str, str] = MappingProxyType(
    {
        "api.openai.com": "openai",
        ".api.openai.com": "openai",
        ".openai.azure.com": "azure.ai.openai",
        ".cognitiveservices.azure.com": "azure.ai.openai",
        ".services.ai.azure.com": "azure.ai.inference",
        "openrouter.ai": "openrouter",
        "api.groq.com": "groq",
        "api.deepseek.com": "deepseek",
        "api.mistral.ai": "mistral_ai",
        "api.x.ai": "x_ai",
        "api.perplexity.ai": "perplexity",
        "api.together.xyz": "together",
        "api.fireworks.ai": "fireworks",
        "generativelanguage.googleapis.com": "gcp.gemini",
        "api.anthropic.com": "anthropic",
    }
)

_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


def operation(path: str) -> str | None:
    """Return "chat" for the paths that generate; stored responses, models and embeddings do not."""
    return "chat" if path.endswith("/chat/completions") or _is_responses(path) else None


def path_model(path: str) -> str | None:
    """Return the deployment in an Azure path, None elsewhere."""
    found = _DEPLOYMENT.search(path)
    return found[1] if found else None


def requested_model(path: str, body: bytes) -> str | None:
    """Return the model that the body names, else the deployment in the path."""
    return top_level_string(body, "model") or path_model(path)


def provider_at(path: str) -> str:
    """Return the format's owner: no path tells more."""
    return NAME


streams = streams_by_body


def form(path: str) -> WireForm:
    """Return what writes replies for this path."""
    return openai_responses_writing if _is_responses(path) else openai_chat_writing


def request_messages(request: dict[str, Any]) -> tuple[Message, ...]:
    """Return the request as messages; which of the two formats it is shows in its keys."""
    form = openai_chat if "messages" in request else openai_responses
    return form.request_messages(request)


def reply(path: str, response: dict[str, Any]) -> Reply:
    """Return what a whole JSON response says."""
    return (openai_responses if _is_responses(path) else openai_chat).reply(response)


def streamed_reply(path: str, body: bytes) -> Reply:
    """Return what a stream says, as far as it goes."""
    return (openai_responses if _is_responses(path) else openai_chat).streamed_reply(body)


def _is_responses(path: str) -> bool:
    """Return whether the path creates a response in the Responses format."""
    return path.endswith("/responses")
