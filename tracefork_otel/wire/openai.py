"""OpenAI's formats, Chat Completions and Responses: at its own host, on Azure, and at all who copy them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import openai_chat, openai_chat_writing, openai_responses, openai_responses_writing
from .sse import streams_by_body

if TYPE_CHECKING:
    from .messages import Message, Reply
    from .writing import WireForm

_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


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
