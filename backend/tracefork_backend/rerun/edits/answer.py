"""Another answer to the step's request: a text, a whole response, or another input of its tool call."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tracefork_otel.errors import UsageError
from tracefork_otel.play.intervention import Intervention, Kind

from ...flag import Flag, file_bytes, json_value, text_value
from ...spelling import short
from .calls import calls_of, chosen
from .edit import Edit, Given, ending

if TYPE_CHECKING:
    from tracefork_otel.exchange import Exchange
    from tracefork_otel.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Text(Edit):
    """The model's answer is this text."""

    kind: ClassVar[Kind] = "text"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("text", "The model answers this.", "TEXT"),)

    text: str

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit with the text, or that of a file."""
        return cls(text_value(value, "--text"))

    @property
    def variant(self) -> str:
        """The label and the text."""
        return f"{self.label} {short(self.text)}"

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the whole reply that says the text."""
        from tracefork_otel.wire.replies import encode_reply

        exchange = tape.exchanges[step]
        return self.at(step, response=encode_reply(exchange.request, exchange.response, text=self.text))


@dataclass(frozen=True, slots=True)
class Response(Edit):
    """The response is this body, whole, with status 200."""

    kind: ClassVar[Kind] = "response"
    flags: ClassVar[tuple[Flag, ...]] = (Flag("response", "The response's whole body.", "FILE"),)

    body: bytes

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit with the file's bytes."""
        return cls(file_bytes(value, "--response"))

    @classmethod
    def of(cls, body: bytes | str) -> Response:
        """Return the edit with this body, a text as UTF-8."""
        return cls(body.encode() if isinstance(body, str) else body)

    def change(self, tape: Tape, step: int) -> Intervention:
        """Return the response, proven to be one that the provider's SDK reads."""
        from tracefork_otel.wire.replies import encode_body

        exchange = tape.exchanges[step]
        return self.at(step, response=encode_body(exchange.request, exchange.response, self.body))


@dataclass(frozen=True, slots=True)
class ToolInput(Edit):
    """The model calls its tool with this input: the only one, or the one that is named."""

    kind: ClassVar[Kind] = "tool_input"
    flags: ClassVar[tuple[Flag, ...]] = (
        Flag("tool_input", "The model calls its tool with this.", "JSON"),
        Flag(
            "tool",
            "Which call --tool-input means.",
            "NAME[#2]",
            alone="--tool names the call that --tool-input changes; without it, it says nothing",
        ),
    )

    value: object
    tool: str | None = field(default=None, kw_only=True)
    """Its name, `NAME#2` for the second call that the answer makes of it, or the call's id."""

    @classmethod
    def parsed(cls, value: str, given: Given) -> Edit:
        """Return the edit with the JSON, of the tool that --tool names."""
        found = json_value(text_value(value, "--tool-input"), "--tool-input")
        return cls(found, tool=next(iter(given["tool"]), None))

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
        call = chosen(calls_of(exchange), self.tool, flag="--tool")
        answer = encode_reply(
            exchange.request,
            exchange.response,
            tool_input=self.value,
            tool=self.tool if call is None else call.name,
            nth=0 if call is None else call.nth,
        )
        if not _ended(exchange):
            raise UsageError(f"{ending(exchange)}, so its tool call may not be either: use --text")
        return self.at(step, response=answer)


def _ended(exchange: Exchange) -> bool:
    """Return whether the recorded reply came to the end that its provider gives a reply."""
    from tracefork_otel.wire.facts import facts_of

    facts = None if exchange.response is None else facts_of(exchange)
    return facts is not None and facts.finish_reason is not None
