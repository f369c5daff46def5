"""What a behaviour sees of a request, what it answers with, and the ids that go with an answer."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Provider = Literal["anthropic", "openai", "gemini"]
Operation = Literal["messages", "chat", "responses", "generate_content"]
Fault = Literal["429", "500", "529", "disconnect", "slow"]
Encoding = Literal["gzip", "deflate", "br", "zstd"]

# The providers bill English text at about four bytes a token.
_BYTES_PER_TOKEN = 4
# A seeded server dates its answers with one fixed instant, so that two runs of it give the same bytes.
_SEEDED_NOW = 1_760_000_000
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool that the model calls, with its arguments; without an id the server makes one."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    id: str | None = None

    @property
    def arguments(self) -> str:
        """The arguments as the JSON text that goes on the wire."""
        return json.dumps(self.input, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts instead of the estimate, where not None; `input_tokens` includes the cached ones."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the model, as a behaviour sees it."""

    provider: Provider
    operation: Operation
    index: int
    """How many model requests reached this server before this one."""
    body: Mapping[str, Any]
    """The request's JSON; of Gemini's with the `model` and the `stream` that its URL tells."""
    system: str
    messages: tuple[tuple[str, str], ...]
    """(role, text) of each message; a tool result's text is in the message that carries it."""
    tool_uses: tuple[ToolUse, ...]
    """Every tool call of the conversation so far, oldest first."""
    tool_results: tuple[tuple[str, str], ...]
    """(tool name, text) of every tool result so far, oldest first; the call's id where no call names it."""
    tools: tuple[str, ...]
    """Names of the tools on offer."""
    headers: Mapping[str, str]
    rng: random.Random
    """Random numbers for this request, which a seeded server draws by the body and how often it came."""

    @property
    def model(self) -> str:
        """The model that the request names."""
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        """Whether the request asks for a stream."""
        return self.body.get("stream") is True

    @property
    def prompt(self) -> str:
        """The text of the first user message, which is the task in most agents."""
        return next((text for role, text in self.messages if role == "user"), "")

    @property
    def last(self) -> str:
        """The text of the last message."""
        return self.messages[-1][1] if self.messages else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model answers, how it is cut and paced on the wire, and what goes wrong with it."""

    text: str | None = None
    thinking: str | None = None
    tools: tuple[ToolUse, ...] = ()
    stop: str | None = None
    """The provider's own stop or finish reason, where it is not the usual one."""
    usage: Usage | None = None
    pieces: tuple[str, ...] = ()
    """The exact deltas that `text` is streamed in; `text` may then be left out."""
    chunk_chars: int = 16
    """Length of a delta where `pieces` does not say."""
    chunk_bytes: int | None = None
    """Cut the stream into writes of so many bytes, across events and characters; None: a write per event."""
    first_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    status: int = 200
    """A status of 400 and above answers with the provider's error body, `text` as its message."""
    fault: Fault | None = None
    retry_after: float | None = None
    """Seconds in the retry-after header of an error; a 429 has one in any case."""
    cut_after_events: int | None = None
    """A disconnect closes after this many events of a stream (0: before the head); a 429, 500 or 529 with it
    answers 200 and breaks the stream with an error event at that place."""
    encoding: Encoding | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def content(self) -> str:
        """The whole text of the answer."""
        return "".join(self.pieces) if self.pieces else self.text or ""

    def deltas(self) -> tuple[str, ...]:
        """Return the text, cut as it is streamed."""
        return self.pieces or cut(self.content, self.chunk_chars)


Behaviour = Callable[[Call], Reply | Awaitable[Reply]]
"""Answers a request. It runs on the server's event loop: delays go into the reply, or it is a coroutine."""


class Ids:
    """Random ids in the providers' shapes, and the time that an answer is dated with."""

    def __init__(self, rng: random.Random, *, seeded: bool) -> None:
        """Ids come from `rng`; a seeded server's answers all bear one date."""
        self._rng = rng
        self.now = _SEEDED_NOW if seeded else int(time.time())

    def base58(self, prefix: str, length: int) -> str:
        """Return a prefix and random base58 characters, as in Anthropic's ids."""
        return prefix + "".join(self._rng.choices(_BASE58, k=length))

    def hex(self, prefix: str, length: int) -> str:
        """Return a prefix and random hex digits, as in OpenAI's ids."""
        return prefix + "".join(self._rng.choices("0123456789abcdef", k=length))

    def number(self, low: int, high: int) -> int:
        """Return a random whole number between both ends."""
        return self._rng.randint(low, high)


def cut(text: str, length: int) -> tuple[str, ...]:
    """Return the text in pieces of at most `length` characters."""
    step = max(1, length)
    return tuple(text[at : at + step] for at in range(0, len(text), step))


def count_tokens(length: int) -> int:
    """Return about how many tokens so many bytes are, at least one."""
    return max(1, -(-length // _BYTES_PER_TOKEN))
