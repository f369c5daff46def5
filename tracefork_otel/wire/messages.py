"""The provider-neutral words: what was asked, what was said, and what it counted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .json_values import clean, count, dumps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    `redacted_thinking`, whose data is opaque. Messages that say the same are equal.
    """

    role: str
    kind: Kind
    name: str | None = None
    content: str
    call_id: str | None = field(default=None, compare=False)
    """By what a tool call is known, or the call that a result answers."""
    wire: Any = field(default=None, compare=False, repr=False)
    """What the wire has where the content is a note of it: the part, or a result that is no text."""


Turn = tuple[Message, ...]
"""What one message, item or choice of the wire says."""


class Asked(NamedTuple):
    """A request as a conversation; `system` is what stands apart from the turns."""

    system: Turn
    turns: tuple[Turn, ...]

    @property
    def messages(self) -> Turn:
        """All of it, what is system first."""
        return (*self.system, *joined(self.turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one exchange; `input_tokens` is all input, cache reads and cache writes included."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    thinking_tokens: int | None = None
    """Those of the output that were thoughts."""
    units: tuple[tuple[str, float], ...] = ()
    """What else was counted, by the names of the `genai-prices` package: `web_searches`, `audio_seconds`."""
    served: tuple[tuple[str, str], ...] = ()
    """How it was served where that is billed otherwise: `service_tier`, `speed`, `processing`."""
    told_usd: float | None = None
    """What the provider itself says that it costs."""
    of_model: str | None = None
    """The model that a part is billed by, where it tells one."""
    parts: tuple[Usage, ...] = ()
    """What this is the sum of, where each is billed for itself."""
    pending: bool = False
    """Whether the answer is still being made, and is counted where it is fetched."""

    @property
    def is_counted(self) -> bool:
        """Whether anything was counted that a price can be of."""
        return self.input_tokens is not None or bool(self.units) or self.told_usd is not None

    @classmethod
    def total(cls, parts: Iterable[Usage], **told: Any) -> Usage:
        """Return the sum of what is billed part by part; a count that no part tells is not known."""
        every = tuple(parts)
        names = ("input", "output", "cached", "cache_write", "cache_write_1h", "thinking")
        sums: dict[str, int | None] = {}
        for name in (f"{one}_tokens" for one in names):
            known = [found for one in every if (found := getattr(one, name)) is not None]
            sums[name] = count(sum(known)) if known else None
        return cls(**sums, **told, parts=every)

    @classmethod
    def with_cache_beside(
        cls,
        fresh: int | None,
        *,
        output: int | None,
        read: int | None,
        written: int | None,
        hour: int | None = None,
        **more: Any,
    ) -> Usage:
        """Return counts of a wire that tells what a cache read and wrote beside the rest of the input."""
        return cls(
            input_tokens=None if fresh is None else count(fresh + (read or 0) + (written or 0)),
            output_tokens=output,
            cached_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=hour,
            **more,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a response says, choice by choice."""

    choices: tuple[Turn, ...] = ()
    finish_reasons: tuple[str | None, ...] = ()
    model: str | None = None
    response_id: str | None = None
    error_type: str | None = None
    stored_id: str | None = None
    """By what the provider keeps it, where it may be fetched again."""
    background: bool | None = None
    """Whether it is made after the request was answered; None where it does not say."""
    usage: Usage = Usage()

    @property
    def messages(self) -> Turn:
        """All that was said."""
        return joined(self.choices)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return plain_text(self.choices[0]) if self.choices else ""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.finish_reasons[0] if self.finish_reasons else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one generation exchange asked for and got, in provider-neutral words; `form` names its wire form.

    `model` is what the request
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
    usage: Usage
    streamed: bool
    reply: tuple[Message, ...]
    text: str
    error_type: str | None = None
    stored_id: str | None = None
    """By what the provider keeps the answer, where other exchanges may tell what it takes: paid for once."""

    @property
    def input_tokens(self) -> int | None:
        """All input."""
        return self.usage.input_tokens

    @property
    def output_tokens(self) -> int | None:
        """All output, thoughts included."""
        return self.usage.output_tokens

    @property
    def cached_tokens(self) -> int | None:
        """The input that was read from a cache."""
        return self.usage.cached_tokens

    @property
    def cache_write_tokens(self) -> int | None:
        """The input that was written to a cache."""
        return self.usage.cache_write_tokens

    @property
    def cache_write_1h_tokens(self) -> int | None:
        """What of that is kept for an hour."""
        return self.usage.cache_write_1h_tokens


def billed(**counts: float | None) -> tuple[tuple[str, float], ...]:
    """Return those counts that are there, as `Usage.units` has them."""
    return tuple((name, found) for name, found in counts.items() if found)


_USUAL = frozenset(
    ("", "auto", "default", "global", "not_available", "on_demand", "standard", "on-demand", "unspecified")
)


def served_by(**how: Any) -> tuple[tuple[str, str], ...]:
    """Return how a call was served as `Usage.served` has it, without what is served to everybody."""
    told = ((name, value.lower()) for name, value in how.items() if isinstance(value, str))
    return tuple(
        ("processing", "batch") if (name, value) == ("service_tier", "batch") else (name, value)
        for name, value in told
        if value not in _USUAL
    )


def message(
    role: str,
    kind: Kind,
    content: str,
    name: str | None = None,
    *,
    call_id: str | None = None,
    wire: Any = None,
) -> Message:
    """Return a message whose text can be written as UTF-8."""
    return Message(
        role=clean(role),
        kind=kind,
        name=None if name is None else clean(name),
        content=clean(content),
        call_id=call_id,
        wire=wire,
    )


def joined(turns: Iterable[Turn]) -> Turn:
    """Return the messages of the turns, run together."""
    return tuple(chain.from_iterable(turns))


def answering(turns: Iterable[Turn], before: Sequence[Turn] = ()) -> tuple[Turn, ...]:
    """Return the turns, a result that has its call's id for a name under the name of that call.

    It is the last call of that id before the result, for servers repeat ids; there may be turns `before`
    these. What comes later changes nothing, so a conversation reads alike however far it went.
    """
    known: dict[str, str | None] = {}
    return tuple(tuple(_answering(one, known, before) for one in turn) for turn in turns)


def call_names(turns: Iterable[Turn]) -> dict[str, str]:
    """Return the name of each tool call by its id."""
    calls = (one for one in joined(turns) if one.kind == "tool_use")
    return {one.call_id: one.name for one in calls if one.call_id is not None and one.name is not None}


def _answering(one: Message, names: dict[str, str | None], before: Sequence[Turn]) -> Message:
    called = one.call_id
    if one.kind == "tool_use" and called is not None and one.name is not None:
        names[called] = one.name
    if one.kind != "tool_result" or called is None or one.name != clean(called):
        return one
    if called not in names:
        # Calls are answered at once, so that this is a short way back.
        earlier = (call_names((turn,)).get(called) for turn in reversed(before))
        names[called] = next((name for name in earlier if name is not None), None)
    name = names[called]
    return one if name is None else replace(one, name=name)


def plain_text(messages: Iterable[Message]) -> str:
    """Return the text messages' contents, run together."""
    return "".join(m.content for m in messages if m.kind == "text")


def flat(content: Any, text_of: Callable[[dict[str, Any]], str]) -> str:
    """Return a tool's result as text: a part a line, JSON where it is not made of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "\n".join(map(text_of, content))
    return dumps(content)


def base64_note(mime: str | None, data: str) -> str:
    """Return what stands in place of base64 data: its kind and length."""
    return f"[{mime or 'data'}, {len(data)} base64 characters]"
