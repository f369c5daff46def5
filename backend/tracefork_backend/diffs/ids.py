"""Ids that providers make, and what a request is without their letters: each by its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.meaning import meant
from tracefork_otel.wire.framing import framing_of
from tracefork_otel.wire.json_values import loads
from tracefork_otel.wire.registry import load, recognise, unless_failed

Json: TypeAlias = Any

_KEY = re.compile(r"(?:|.*_)id|[a-z]\w*Id|\w*[sS]ignature|encrypted_\w+|system_fingerprint")
"""Names under which responses tell ids, and what is opaque like them."""
_NOT = re.compile(r"model_?id|user_?id|account_?id|organi[sz]ation_?id|project_?id", re.IGNORECASE)
_GIVEN = frozenset({"input", "args", "arguments", "parameters"})
"""What a tool is called with: the model wrote it, and an id in it is one of the task's."""
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SHORTEST = 4
"""A shorter id stands for too much else."""
_DEEPEST = 40
_LEVEL = "(an id of the provider's)"


class Ids:
    """The ids that the provider made in a run; without any, everything is compared by its letters."""

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        """Whether the letters of ids count."""
        self._made: set[str] = set()

    def note(self, exchange: Exchange, body: bytes | None) -> None:
        """Take in the ids of a model's response, its body decoded; what the agent sent itself is none."""
        asked = exchange.request
        if self.exact or not body:
            return
        call = recognise(asked.method, asked.url, asked.body)
        if call is None and not self.tells(asked.url):
            return
        sent: bytes | None = None
        for found in set(_ids(_wholes(exchange, body, None if call is None else call.form))):
            if found not in self._made:
                sent = meant(asked) if sent is None else sent
                if found.encode("utf-8", "replace") not in sent:
                    self._made.add(found)

    def request(self, exchange: Exchange) -> bytes:
        """Return what the request means, each id in it by its place."""
        body = meant(exchange.request)
        if not self._made:
            return body
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return body
        places: dict[str, str] = {}

        def level(match: re.Match[str]) -> str:
            found = match[1]
            if found not in self._made:
                return match[0]
            return f'"{places.setdefault(found, f"id {len(places) + 1}")}"'

        return _STRING.sub(level, text).encode()

    def url(self, url: str) -> str:
        """Return the URL with its ids levelled."""
        if not self.tells(url):
            return url
        parts = urlsplit(url)
        segments = (("id" if one in self._made else one) for one in parts.path.split("/"))
        return parts._replace(path="/".join(segments)).geturl()

    def name(self, name: str | None) -> str | None:
        """Return a tool's name; a result whose call is not there goes by the call's id, which is levelled."""
        return _LEVEL if name in self._made else name

    def answer(self, value: Json, *, of_provider: bool) -> Json:
        """Return a response's body with the ids in it levelled, where the provider gave it."""
        return _levelled(value) if of_provider and not self.exact else value

    def tells(self, url: str) -> bool:
        """Return whether the URL names an id that the provider made."""
        if not self._made:
            return False
        try:
            return any(one in self._made for one in urlsplit(url).path.split("/"))
        except ValueError:
            return False


def _wholes(exchange: Exchange, body: bytes, form: str | None) -> Iterator[Json]:
    """Yield the response as JSON: as it came, event by event, and as the whole that they add up to."""
    if form is None:
        yield loads(body)
        return
    response = exchange.response
    kind = None if response is None else response.header("content-type")

    def read() -> list[Json]:
        known = load(form)
        framing = framing_of(known.FRAMINGS, body, kind)
        if framing is None:
            return [loads(body)]
        events = list(framing.read(body))
        return [known.assemble(events), *(one.said() for one in events)]

    yield from unless_failed(form, read) or []


def _ids(value: Json, depth: int = 0) -> Iterator[str]:
    """Yield the ids in a JSON value."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        opaque = value.get("type") == "redacted_thinking"
        for key, one in value.items():
            if key in _GIVEN:
                continue
            if isinstance(one, str):
                if len(one) >= _SHORTEST and (_is_id(key) or (opaque and key == "data")):
                    yield one
            else:
                yield from _ids(one, depth + 1)
    elif isinstance(value, list | tuple | Iterator):
        for one in value:
            yield from _ids(one, depth + 1)


def _levelled(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _levelled_at(key, one) for key, one in value.items()}
    return [_levelled(one) for one in value] if isinstance(value, list) else value


def _levelled_at(key: str, value: Json) -> Json:
    if key in _GIVEN:
        return value
    return _LEVEL if isinstance(value, str) and _is_id(key) else _levelled(value)


def _is_id(key: str) -> bool:
    return _KEY.fullmatch(key) is not None and _NOT.fullmatch(key) is None
