"""Another answer to the step's request: a text, a whole response, or another input of its tool call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tracefork_otel.errors import UsageError
from tracefork_otel.exchange import Exchange
from tracefork_otel.play.intervention import Intervention, Kind
from tracefork_otel.tape.tape import Tape

from ...flag import Flag, file_bytes, json_value, text_value
from ...spelling import short
from .edit import Edit, Given, ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(Edit):
    """The model's answer is this text."""

    kind: ClassVar[Kind] = "text"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("text", "The model answers this.", "TEXT"),)

    text: str

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return a text for each value."""
        return [cls(text=text_value(one, "--text")) for one in given["text"]]

    @property
    def variant(self) -> str:
        """The label and the text."""
        return f"{self.label} {short(self.text)}"

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the whole reply that says the text."""
        from tracefork_otel.wire.replies import encode_reply

        exchange = tape.exchanges[step]
        return self.at(step, response=encode_reply(exchange.request, exchange.response, text=self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Response(Edit):
    """The response is this body, whole, with status 200."""

    kind: ClassVar[Kind] = "response"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("response", "The response's whole body.", "FILE"),)

    body: bytes

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return the content of each file."""
        return [cls(body=file_bytes(path, "--response")) for path in given["response"]]

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the response, proven to be one that the provider's SDK reads."""
        from tracefork_otel.wire.replies import encode_body

        exchange = tape.exchanges[step]
        return self.at(step, response=encode_body(exchange.request, exchange.response, self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolInput(Edit):
    """The model calls its first tool (or the first of that name) with this input."""

    kind: ClassVar[Kind] = "tool_input"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("tool_input", "The model calls its tool with this.", "JSON"),
        Flag(
            "tool",
            "Which call --tool-input means.",
            "NAME",
            alone="--tool names the call that --tool-input changes; without it, it says nothing",
        ),
    )

    value: object
    tool: str | None = None

    @classmethod
    def variants(cls, given: Given) -> Sequence[Edit]:
        """Return an input for each value, all of the same tool."""
        tool = next(iter(given["tool"]), None)
        flag = cls.flags[0]
        return [cls(value=json_value(text_value(one, flag), flag), tool=tool) for one in given["tool_input"]]

    @property
    def label(self) -> str:
        """The kind, and the tool where one is named."""
        return self.kind if self.tool is None else f"{self.kind} {self.tool}"

    @property
    def variant(self) -> str:
        """The label and the input."""
        return f"{self.label} {short(json.dumps(self.value, ensure_ascii=False, default=repr))}"

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the recorded reply with this input of its call."""
        from tracefork_otel.wire.replies import encode_reply

        exchange = tape.exchanges[step]
        if exchange.outcome not in ("complete", "closed"):
            raise UsageError(f"{ending(exchange)}, so there is no whole tool call to change: use --text")
        answer = encode_reply(exchange.request, exchange.response, tool_input=self.value, tool=self.tool)
        if not _ended(exchange):
            raise UsageError(f"{ending(exchange)}, so its tool call may not be either: use --text")
        return self.at(step, response=answer)


def _ended(exchange: Exchange) -> bool:
    """Return whether the recorded reply came to the end that its provider gives a reply."""
    from tracefork_otel.wire.facts import facts_of

    facts = None if exchange.response is None else facts_of(exchange)
    return facts is not None and facts.finish_reason is not None
