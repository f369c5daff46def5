"""The provider-neutral words: what an exchange said, and what a provider module has to offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .json_values import clean

if TYPE_CHECKING:
    from .writing import WireForm

Stream = Literal["events", "array"]
"""How a reply is streamed: as server-sent events, or as a JSON array that grows."""

Kind = Literal[
    "text",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "image",
    "document",
    "refusal",
    "other",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One piece of a conversation: a text, a thought, a tool call, a tool's result, a picture.

    `name` is the tool's name for `tool_use`; for `tool_result` it is the name of the call that it answers
    where the same body holds that call, else the call's id. `content` is text: the input as JSON for
    `tool_use`, the flattened text for `tool_result`, a short note in place of base64 data, and empty for
    `redacted_thinking`, whose data is opaque.
    """

    role: str
    kind: Kind
    name: str | None
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one exchange; `input_tokens` is all input, cache reads and cache writes included."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a provider module reads out of a response; `text` is the text of the first choice."""

    messages: tuple[Message, ...] = ()
    text: str = ""
    model: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    error_type: str | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one generation exchange asked for and got, in provider-neutral words; `form` names its wire form.

    `input_tokens` is ALL input: uncached, read from a cache (`cached_tokens`) and written to one
    (`cache_write_tokens`, of which `cache_write_1h_tokens` at the one-hour rate). `model` is what the request
    asked for; prices go by `response_model`, because a deployment's name is not a model. After a cut stream
    `reply` and `text` hold what had arrived, and token counts are the last that the wire told.
    """

    form: str
    provider: str
    operation: str
    model: str | None
    response_model: str | None
    response_id: str | None
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    cache_write_1h_tokens: int | None
    streamed: bool
    reply: tuple[Message, ...]
    text: str
    error_type: str | None = None


class ProviderModule(Protocol):
    """What one provider's file offers; every function is pure and takes any JSON without raising.

    What writes an intervention in the wire format stands in a file beside it, which `form` returns.
    """

    def streams(self, url: str, request: dict[str, Any]) -> Stream | None:
        """Return how the reply to this request is streamed, None where it comes whole."""
        ...

    def form(self, path: str) -> WireForm:
        """Return what writes replies for this path; called only where `operation` knows the path."""
        ...

    def request_messages(self, request: dict[str, Any]) -> tuple[Message, ...]:
        """Return the request as messages, what is system first."""
        ...

    def reply(self, path: str, response: dict[str, Any]) -> Reply:
        """Return what a whole JSON response says."""
        ...

    def streamed_reply(self, path: str, body: bytes) -> Reply:
        """Return what a stream says, as far as it goes."""
        ...


def message(role: str, kind: Kind, content: str, name: str | None = None) -> Message:
    """Return a message whose text can be written as UTF-8."""
    return Message(
        role=clean(role), kind=kind, name=None if name is None else clean(name), content=clean(content)
    )


def plain_text(messages: tuple[Message, ...] | list[Message]) -> str:
    """Return the text messages' contents, run together."""
    return "".join(m.content for m in messages if m.kind == "text")
