"""A side of a comparison read into steps: what each asked that was new in its run, and the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.wire.codings import plain_request
from tracefork_otel.wire.facts import facts_of, recorded_body
from tracefork_otel.wire.growing import Growing, Grown
from tracefork_otel.wire.messages import Facts, Message

from ..spelling import named, short
from .ids import Ids

Unit: TypeAlias = tuple[str, str | None, str]
"""A piece of a conversation: its kind, the tool's name, and its content, spelled the same on both sides."""

_WORD = re.compile(r"\w+")
_WORDS = 2000
"""Words of a step that are compared: enough to know it again, and the comparison stays a matter of µs."""
_SHOWN = 60
_DEEPEST = 100
"""Levels of an answer that are compared one by one: each takes frames of the interpreter."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One exchange as it is compared."""

    exchange: Exchange
    number: int
    ids: Ids = field(repr=False, compare=False)
    """The ids that the provider made in the run."""
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
    digests: list[tuple[bytes, bytes]] = field(
        default_factory=list[tuple[bytes, bytes]], repr=False, compare=False
    )
    """Of the request's body and of `asked`, once they were compared."""

    @property
    def address(self) -> tuple[str, str]:
        """Method and URL; the port of a server on this machine counts as little as its spelling."""
        request = self.exchange.request
        url = self.ids.url(request.url)
        try:
            parts = urlsplit(url)
            if parts.hostname in _LOOPBACK:
                return request.method, parts._replace(netloc="localhost").geturl()
        except ValueError:
            pass
        return request.method, url

    @property
    def asked(self) -> bytes:
        """What the request means, with ids of the provider's by their places."""
        return self.ids.request(self.exchange)

    @property
    def asked_digests(self) -> tuple[bytes, bytes]:
        """What stands for the request's body and for `asked`: a step is compared with many others."""
        if not self.digests:
            body, asked = self.exchange.request.body, self.asked
            digest = _digest(body)
            self.digests.append((digest, digest if asked == body else _digest(asked)))
        return self.digests[0]

    @property
    def key(self) -> tuple[tuple[str, str], bytes, str]:
        """What two steps share exactly if they ask and are answered the same."""
        return self.address, self.asked_digests[1], json.dumps(self.answer, sort_keys=True)

    def asks_as(self, other: Step) -> bool:
        """Return whether both requests are the same."""
        ours, theirs = self.asked_digests, other.asked_digests
        return (ours[0] == theirs[0] or ours[1] == theirs[1]) and self.address == other.address

    def same_as(self, other: Step) -> bool:
        """Return whether both ask and are answered the same."""
        return self.asks_as(other) and self.answer == other.answer


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=16).digest()


class _Said(NamedTuple):
    """A conversation as a request has it."""

    units: tuple[Unit, ...]
    system: int
    """So many of them are system."""
    ends: list[int]
    """How many of the others it has after none of its turns, after the first one, and so on."""
    fresh: tuple[Unit, ...]
    """Those that do not stand in the earlier request from which it goes on."""


def read(exchanges: Iterable[Exchange], *, exact: bool = False) -> tuple[Step, ...]:
    """Return the steps of a run in their order; `exact` where the letters of ids count."""
    known: set[Unit] = set()
    requests: Growing[_Said] = Growing()
    ids = Ids(exact=exact)
    return tuple(_step(number, exchange, known, requests, ids) for number, exchange in enumerate(exchanges))


def _said_in(grown: Grown[_Said]) -> _Said:
    before = grown.before or _Said((), 0, [0], ())
    system, turns = _units(grown.system), [_units(turn) for turn in grown.turns[grown.kept :]]
    repeated = before.units[before.system : before.system + before.ends[grown.kept]]
    ends = before.ends[: grown.kept + 1]
    ends.extend(accumulate(map(len, turns), initial=ends.pop()))
    fresh = tuple(chain.from_iterable(turns))
    return _Said((*system, *repeated, *fresh), len(system), ends, (*system, *fresh))


def _step(number: int, exchange: Exchange, known: set[Unit], requests: Growing[_Said], ids: Ids) -> Step:
    """Return a step; what it asks and is answered is known then."""
    asked, response = exchange.request, exchange.response
    facts = facts_of(exchange)
    body = None if response is None else recorded_body(response)
    counterparts = asked.method.upper(), _path(ids.place(asked.url))
    shown = _path(ids.url(asked.url))
    ids.note(exchange, body)
    answer = _answer(exchange, body, facts, ids)
    if facts is None:
        what = f"{counterparts[0]} {shown}"
        reply: tuple[Unit, ...] = (("body", None, body.decode("utf-8", "replace")),) if body else ()
        known.update(reply)
        return Step(
            exchange=exchange,
            number=number,
            ids=ids,
            place=counterparts,
            said=(),
            reply=reply,
            answer=answer,
            words=_words((("body", None, plain_request(asked).decode("utf-8", "replace")), *reply)),
            what=what,
            brief=what,
        )
    said, reply = requests.read(facts.form, plain_request(asked), _said_in), _units(facts.reply)
    fresh = [unit for unit in (said.fresh if said else ()) if unit not in known]
    known.update(fresh, reply)
    return Step(
        exchange=exchange,
        number=number,
        ids=ids,
        place=("", facts.operation),
        said=_named(said.units, ids) if said else (),
        reply=reply,
        text=facts.text,
        answer=answer,
        words=_words((*fresh, *reply)),
        what=" ".join([named(facts.model or facts.provider), *_shown(reply)]),
        brief=" ".join([named(facts.model or facts.provider), *_called(reply)]),
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


def _named(units: tuple[Unit, ...], ids: Ids) -> tuple[Unit, ...]:
    return tuple((kind, ids.name(name), content) for kind, name, content in units)


def _answer(exchange: Exchange, body: bytes | None, facts: Facts | None, ids: Ids) -> dict[str, Any]:
    response = exchange.response
    found: dict[str, Any] = {"status": None if response is None else response.status}
    if facts is not None and facts.reply and not ids.exact:
        found["reply"] = [_said(message) for message in facts.reply]
        found["finish_reason"] = facts.finish_reason
    elif response is not None:
        value = _value(response.body if body is None else body)
        of_provider = facts is not None or ids.is_provider(exchange.request.url)
        found["body"] = ids.answer(value, of_provider=of_provider)
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
    """Return the JSON value, else the text; that too where the value is too deep for what compares it."""
    with suppress(ValueError, RecursionError):
        value = json.loads(body)
        if not _is_deep(value):
            return value
    return body.decode("utf-8", "backslashreplace")


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [one for of in level if isinstance(of, dict | list) for one in _within(of)]
        if not level:
            return False
    return True


def _within(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


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
            yield f"→ {named(name)}({short(content, _SHOWN)})"
        elif kind in ("text", "refusal") and content.strip():
            yield json.dumps(short(content, _SHOWN), ensure_ascii=False)


def _called(reply: Sequence[Unit]) -> Iterator[str]:
    """Yield the tools that a reply calls."""
    return (f"→ {name}" for kind, name, _ in reply if kind == "tool_use")
