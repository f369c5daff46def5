"""A side of a comparison read into steps: what each asked that was new in its run, and the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.wire.facts import facts_of, recorded_body
from tracefork_otel.wire.growing import Growing
from tracefork_otel.wire.messages import Facts, Message

from ..spelling import short

Unit: TypeAlias = tuple[str, str | None, str]
"""A piece of a conversation: its kind, the tool's name, and its content, spelled the same on both sides."""

_WORD = re.compile(r"\w+")
_WORDS = 2000
"""Words of a step that are compared: enough to know it again, and the comparison stays a matter of µs."""
_SHOWN = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One exchange as it is compared."""

    exchange: Exchange
    number: int
    place: tuple[str, str]
    """Method and path (or what a model call is for): only steps of one place are ever counterparts."""
    said: tuple[Unit, ...]
    """The conversation in the request."""
    reply: tuple[Unit, ...]
    text: str = ""
    """The reply's text."""
    answer: Any
    """Status and reply as a JSON value, without ids and counts that differ each time."""
    words: frozenset[str]
    """The words of what no earlier step had said or been answered, by which a step is known again."""
    what: str
    """The step in a few words."""
    brief: str
    """The same without what was said."""
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def address(self) -> tuple[str, str]:
        """Method and URL; the port of a server on this machine counts as little as its spelling."""
        request = self.exchange.request
        try:
            parts = urlsplit(request.url)
            if parts.hostname in _LOOPBACK:
                return request.method, parts._replace(netloc="localhost").geturl()
        except ValueError:
            pass
        return request.method, request.url

    @property
    def key(self) -> tuple[tuple[str, str], bytes, str]:
        """What two steps share exactly if they ask and are answered the same."""
        return self.address, self.exchange.request.body, json.dumps(self.answer, sort_keys=True)

    def asks_as(self, other: Step) -> bool:
        """Return whether both requests are the same."""
        ours, theirs = self.exchange.request, other.exchange.request
        return ours.body == theirs.body and self.address == other.address

    def same_as(self, other: Step) -> bool:
        """Return whether both ask and are answered the same."""
        return self.asks_as(other) and self.answer == other.answer


def read(exchanges: Iterable[Exchange]) -> tuple[Step, ...]:
    """Return the steps of a run in their order."""
    known: set[Unit] = set()
    requests = Growing()
    steps: list[Step] = []
    for number, exchange in enumerate(exchanges):
        step = _step(number, exchange, known, requests)
        known.update(step.said, step.reply)
        steps.append(step)
    return tuple(steps)


def _step(number: int, exchange: Exchange, known: set[Unit], requests: Growing) -> Step:
    asked, response = exchange.request, exchange.response
    facts = facts_of(exchange)
    said_nothing = facts is None or not facts.reply
    body = recorded_body(response) if response is not None and said_nothing else None
    answer = _answer(exchange, body, facts)
    if facts is None:
        method, path = asked.method.upper(), _path(asked.url)
        reply: tuple[Unit, ...] = (("body", None, body.decode("utf-8", "replace")),) if body else ()
        return Step(
            exchange=exchange,
            number=number,
            place=(method, path),
            said=(),
            reply=reply,
            answer=answer,
            words=_words((("body", None, asked.body.decode("utf-8", "replace")), *reply)),
            what=f"{method} {path}",
            brief=f"{method} {path}",
        )
    said, reply = _units(requests.messages(facts.form, asked.body)), _units(facts.reply)
    return Step(
        exchange=exchange,
        number=number,
        place=("", facts.operation),
        said=said,
        reply=reply,
        text=facts.text,
        answer=answer,
        words=_words((*(unit for unit in said if unit not in known), *reply)),
        what=" ".join([facts.model or facts.provider, *_shown(reply)]),
        brief=" ".join([facts.model or facts.provider, *_called(reply)]),
        input_tokens=facts.input_tokens,
        output_tokens=facts.output_tokens,
    )


def _units(messages: Sequence[Message]) -> tuple[Unit, ...]:
    return tuple((message.kind, message.name, _content(message)) for message in messages)


def _content(message: Message) -> str:
    """Return the content, a tool's input in one spelling: a stream brings it as the model wrote it."""
    if message.kind == "tool_use":
        try:
            return json.dumps(json.loads(message.content), sort_keys=True, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    return message.content


def _answer(exchange: Exchange, body: bytes | None, facts: Facts | None) -> dict[str, Any]:
    response = exchange.response
    found: dict[str, Any] = {"status": None if response is None else response.status}
    if facts is not None and facts.reply:
        found["reply"] = [_said(message) for message in facts.reply]
        found["finish_reason"] = facts.finish_reason
    elif response is not None:
        found["body"] = _value(response.body if body is None else body)
    if exchange.outcome not in ("complete", "closed"):
        found["outcome"] = exchange.outcome
        found["error"] = exchange.error_type
    return found


def _said(message: Message) -> dict[str, Any]:
    """Return a piece of a reply with a tool's input as a value, so that paths lead into it."""
    found: dict[str, Any] = {"kind": message.kind}
    if message.name is not None:
        found["name"] = message.name
    if message.kind == "tool_use":
        found["input"] = _value(message.content.encode())
    else:
        found["content"] = message.content
    return found


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _words(units: Sequence[Unit]) -> frozenset[str]:
    found: set[str] = set()
    for kind, name, content in units:
        found.add(f"{kind} {name}")
        for match in _WORD.finditer(content):
            found.add(match[0])
            if len(found) >= _WORDS:
                return frozenset(found)
    return frozenset(found)


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return url


def _shown(reply: Sequence[Unit]) -> Iterator[str]:
    """Yield what a reply says and calls, in a few words each."""
    for kind, name, content in reply:
        if kind == "tool_use":
            yield f"→ {name}({short(content, _SHOWN)})"
        elif kind in ("text", "refusal") and content.strip():
            yield json.dumps(short(content, _SHOWN), ensure_ascii=False)


def _called(reply: Sequence[Unit]) -> Iterator[str]:
    """Yield the tools that a reply calls."""
    return (f"→ {name}" for kind, name, _ in reply if kind == "tool_use")
