"""Ids that providers make, and what a request is without their letters: each by its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from tracefork_otel.exchange import Exchange
from tracefork_otel.play.meaning import meant
from tracefork_otel.wire.framing import framing_of
from tracefork_otel.wire.json_values import loads
from tracefork_otel.wire.registry import is_model_host, load, place, placed, recognise, unless_failed

Json: TypeAlias = Any

_KEY = re.compile(r"(?:|.*_)id|[a-z]\w*Id|\w*[sS]ignature|encrypted_\w+|system_fingerprint")
"""Names under which responses tell ids, and what is opaque like them."""
_NOT = re.compile(r"model_?id|user_?id|account_?id|organi[sz]ation_?id|project_?id", re.IGNORECASE)
_GIVEN = frozenset({"input", "args", "arguments", "parameters"})
"""What a tool is called with: the model wrote it, and an id in it is one of the task's."""
_RESOURCE = re.compile(r"(?:[^/\s]+/)*(?!models/)[A-Za-z]+/([^/\s]+)")
"""What Google's services call a thing: a `name` whose last part is the id, where it is no model's."""
_PART = re.compile(r"[^/?&#]+")
"""A part of a URL that may be an id, end with one (`after=`) or begin with one (`:download`)."""
_WORD = re.compile(r'"([^"\\\s]{4,})(?=")')
"""One word between two quotes: each string of JSON that can be an id, found without reading long texts."""
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
        self._told: set[str] = set()
        self._roots: set[str] = set()

    def note(self, exchange: Exchange, body: bytes | None) -> None:
        """Take in the ids of a response, its body decoded; what the agent sent itself is none."""
        asked = exchange.request
        call = recognise(asked.method, asked.url, asked.body)
        if call is not None:
            self._roots.add(_root(asked.method, asked.url))
        if not body:
            return
        of_provider = not self.exact and self.is_provider(asked.url)
        sent: bytes | None = None
        for found in set(_ids(_wholes(exchange, body, None if call is None else call.form))):
            if found not in self._told or (of_provider and found not in self._made):
                sent = meant(asked) + unquote(asked.url).encode("utf-8", "replace") if sent is None else sent
                if found.encode("utf-8", "replace") not in sent:
                    self._told.add(found)
                    if of_provider:
                        self._made.add(found)

    def is_provider(self, url: str) -> bool:
        """Return whether a provider's service is there: by its host, or beside a model that was called."""
        return is_model_host(place(url)[0]) or any(url.startswith(root) for root in self._roots)

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
            whole = match[1]
            if whole in self._made:
                return f'"{placed_as(whole)}'
            if "/" not in whole:
                return match[0]
            parts = (one if one not in self._made else placed_as(one) for one in whole.split("/"))
            return f'"{"/".join(parts)}'

        def placed_as(found: str) -> str:
            return places.setdefault(found, f"id {len(places) + 1}")

        return _WORD.sub(level, text).encode()

    def url(self, url: str) -> str:
        """Return the URL with its ids levelled."""
        return _without(url, self._made)

    def place(self, url: str) -> str:
        """Return the URL with each part levelled that any earlier answer told: whom it asks about.

        Also where letters count: it finds the counterpart, and they are compared there.
        """
        return _without(url, self._told)

    def name(self, name: str | None) -> str | None:
        """Return a tool's name; a result whose call is not there goes by the call's id, which is levelled."""
        return _LEVEL if name in self._made else name

    def answer(self, value: Json, *, of_provider: bool) -> Json:
        """Return a response's body with the ids in it levelled, where the provider gave it."""
        return self._levelled(value) if of_provider and not self.exact else value

    def _levelled(self, value: Json, key: str = "") -> Json:
        if isinstance(value, dict):
            return {key: one if key in _GIVEN else self._levelled(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [self._levelled(one) for one in value]
        if not isinstance(value, str):
            return value
        if _is_id(key):
            return _LEVEL
        return _without(value, self._made) if "/" in value else value


def _root(method: str, url: str) -> str:
    """Return the part of a model call's URL before that by which its form is known."""
    path = place(url)[1]
    form = placed(path, method.upper())
    found = form[0].place(path, method.upper()) if form else None
    end = urlsplit(url)._replace(path=path[: found[1].start()] if found else path, query="", fragment="")
    return end.geturl() + "/"


def _without(url: str, ids: set[str]) -> str:
    """Return a URL, or a path, with each part of it that is one of the ids written as one word."""

    def level(match: re.Match[str]) -> str:
        whole = match[0]
        (name, _, value), (head, _, verb) = whole.partition("="), whole.rpartition(":")
        if unquote(whole) in ids:
            return "id"
        if unquote(value) in ids:
            return f"{name}=id"
        return f"id:{verb}" if unquote(head) in ids else whole

    return _PART.sub(level, url) if ids else url


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
            if isinstance(one, str | int):
                found = _id_at(key, one, opaque=opaque)
                if found is not None and len(found) >= _SHORTEST:
                    yield found
            else:
                yield from _ids(one, depth + 1)
    elif isinstance(value, list | tuple | Iterator):
        for one in value:
            yield from _ids(one, depth + 1)


def _id_at(key: str, value: str | int, *, opaque: bool) -> str | None:
    """Return the id that a value is by its key, or that ends it as a resource's name."""
    if _is_id(key) or (opaque and key == "data"):
        return str(value)
    found = _RESOURCE.fullmatch(value) if key == "name" and isinstance(value, str) else None
    return None if found is None else found[1]


def _is_id(key: str) -> bool:
    return _KEY.fullmatch(key) is not None and _NOT.fullmatch(key) is None
