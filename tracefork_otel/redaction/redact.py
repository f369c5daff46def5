"""Secrets in all that is recorded: replaced before anything leaves the thread that met them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, unquote_plus

from ..errors import UsageError
from ..exchange import Headers, RedactedRequest, Request, Response, beside_body, held
from ..log import LOG
from . import glance, hidden
from .names import REDACTED, arguments, environment, is_secret_header, is_secret_param
from .passwords import Form, without_secrets

if TYPE_CHECKING:
    from pathlib import Path

    from ..settings import Settings
    from .rules import Kind, Rules, Side

_PAIR = re.compile(r"([?&;#])([^=&;#?]+)=([^&;#]*)")
_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#@]*(?:@[^/?#@]*)*@")

_ADDRESS = re.compile(r"((?:-{0,2}[A-Za-z_][\w.-]*=)?)([a-zA-Z][a-zA-Z0-9+.-]*://\S+)")

_URL_HEADERS = (b"location", b"content-location", b"referer")
"""Headers that hold a URL; a replay follows a redirect to it with its secrets replaced, as recorded."""
_SCHEMES = (b"bearer ", b"basic ")
"""How the value of a header begins that proves who asks, whatever its name."""
_CACHED_NAMES = 4096
"""Header names whose verdict is kept; a server that invents names must not grow our memory."""
_CACHED_LINES, _LONGEST_TOLD = 1024, 512
"""How many lines of headers are kept as text, and the longest value among them."""


RULES_VARIABLE = "TRACEFORK_REDACT_RULES"
"""The recorded variable that holds the rules, by which a replay replaces the same."""
_TOLD = ("tracefork.arguments", "tracefork.result", "tracefork.tool.error")
"""Attributes of ours that hold what the agent's code was given or gave."""
_ORIGIN = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#]*")
ATTRIBUTE = "tracefork.redacted"
"""Attribute of an exchange: how often a rule replaced something, as JSON by side, then by rule."""
WITHHELD = "tracefork.withheld"
"""Attribute of an exchange: why a body was not recorded at all."""
_STRUCTURE = ("content-type", "content-length", "content-encoding", "transfer-encoding", "retry-after")
"""Headers that say nothing but how to read a message."""
_WITHHELD = "body withheld"
"""What a withheld body counts as, beside the rules' names."""


class Redactor:
    """What replaces secret headers and parameters, and what a user's rules find, always in the same way."""

    def __init__(
        self,
        headers: Iterable[str] = (),
        params: Iterable[str] = (),
        *,
        rules: Rules | None = None,
        unreadable: str | None = None,
        known: bool = True,
        key: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """Create a redactor; `headers` and `params` are secret names beside the built-in ones, in any case.

        Keys in the `known` places of bodies are replaced unless that is declined. By what `key` gives,
        digests of what is replaced in requests are made.
        Where the rules are `unreadable` nothing passes that they might have been meant for: no body, no text.
        """
        self._headers = frozenset(name.lower() for name in headers)
        self._params = frozenset(name.lower() for name in params)
        self._named: dict[tuple[str, bool], bool] = {}
        """Whether a parameter is secret, by its name, and whether it was sent."""
        self._key = key
        self.rules = rules
        self.unreadable = unreadable
        self._plain = rules is None and unreadable is None
        self._known = known and unreadable is None
        self._left = frozenset(
            rule.replace for rule in (() if rules is None else rules.rules) if rule.replace is not None
        )
        """What the rules put in the place of what they replace."""
        self._verdicts: dict[Side, dict[bytes, tuple[str, bool]]] = {"request": {}, "response": {}}
        """Of names of headers: how each is written, and whether it is secret."""
        self._told: dict[Side, dict[tuple[bytes, bytes], tuple[str, str]]] = {"request": {}, "response": {}}
        """Lines of headers without a secret, as text: a client sends the same ones with each call."""

    # --- exchanges ---

    def request(self, method: str, url: str, raw: Iterable[tuple[bytes, bytes]], body: bytes) -> Request:
        """Return the request as it is recorded; a RedactedRequest where rules replaced something."""
        counts: Counter[str] = Counter()
        found: list[tuple[str, str]] = []
        sent, headers = body, self._lines(raw, "request", counts)
        if self._plain and self._known_rules("request", sent, headers) is None:
            withheld = None
            url = self.url(url, counts, found=found)
        else:
            with hidden.hearing("body", found):
                body, headers, _, withheld = self._body("request", sent, headers, (), counts)
            with hidden.hearing("url", found):
                url = self.url(url, counts, found=found)
        kept = hidden.digests(found, self._key()) if found else ()
        if not counts:
            return Request(method=method, url=url, headers=headers, body=body, hidden=kept)
        return RedactedRequest(
            method=method,
            url=url,
            headers=headers,
            body=body,
            hidden=kept,
            raw=sent,
            counts=counts,
            withheld=withheld,
        )

    def request_body(self, request: Request, body: bytes, counts: Counter[str]) -> tuple[bytes, str | None]:
        """Return the body that was sent in pieces, as it is recorded, and why it is withheld, if it is."""
        recorded, _, _, withheld = self._body("request", body, request.headers, (), counts)
        return recorded, withheld

    def response(self, response: Response, counts: Counter[str]) -> tuple[Response, str | None]:
        """Return the response as it is recorded, and why its body is withheld, if it is."""
        body, headers, sizes, withheld = self._body(
            "response", response.body, response.headers, response.chunk_sizes, counts
        )
        if body is response.body:
            return response, None
        # Each remaining chunk came when the ones that it holds had come.
        offsets = response.chunk_offsets_us[: len(sizes)]
        if offsets:
            offsets = (*offsets[:-1], response.chunk_offsets_us[-1])
        recorded = replace(response, body=body, headers=headers, chunk_sizes=sizes, chunk_offsets_us=offsets)
        return recorded, withheld

    def _body(
        self,
        side: Side,
        body: bytes,
        headers: Headers,
        sizes: tuple[int, ...],
        counts: Counter[str],
        looked: glance.Looked | None = None,
    ) -> tuple[bytes, Headers, tuple[int, ...], str | None]:
        """Return body, headers, chunk sizes, and why it is withheld; the same body where nothing is found."""
        if not body:
            return body, headers, sizes, None
        why = self.unreadable
        made = body, headers, sizes
        if self.rules is not None:
            made, why = _rewritten(self.rules, side, *made, counts)
        if why is not None:
            counts[_WITHHELD] += 1
            return b"", _of_length(headers, 0, coded=False), (), why
        known = self._known_rules(side, made[0], headers, looked)
        if known is not None:
            # What looks like such a body and cannot be looked into is none: nobody asked for that.
            made, _ = _rewritten(known, side, *made, counts)
        return *made, None

    def _known_rules(
        self, side: Side, body: bytes, headers: Headers, looked: glance.Looked | None = None
    ) -> Rules | None:
        """Return the rules for the known places of bodies, None where this one holds nothing of them."""
        if not (self._known and body):
            return None
        kind = glance.kind_of(side, body, headers, looked)
        # What is received goes on to the agent: a replay must give it a password that it asks with.
        forms = glance.forms_of_passwords(body, headers) if side == "request" else ()
        return self._rules_of(kind, forms) if kind is not None or forms else None

    def _rules_of(self, kind: glance.Kind | None, forms: tuple[Form, ...] = ()) -> Rules:
        from .known import rules_of

        return rules_of(kind, self._left, forms)

    def as_today(self, request: Request, looked: glance.Looked | None = None) -> Request:
        """Return a recorded request as it is recorded today: earlier versions kept more of what is known.

        For requests of a conversation, one after the other, all are given what has `looked` at those before.
        """
        whole, url = held(request), self.url(request.url)
        body, headers, _, _ = self._body("request", whole.body, request.headers, (), Counter(), looked)
        if url == request.url and body is whole.body:
            return request
        return Request(**{**beside_body(request), "url": url, "headers": headers}, body=body)

    def response_headers(
        self, raw: Iterable[tuple[bytes, bytes]], counts: Counter[str] | None = None
    ) -> Headers:
        """Return the header lines as text; one that merely mentions a token is kept: a replay serves it."""
        return self._lines(raw, "response", counts)

    def _lines(self, raw: Iterable[tuple[bytes, bytes]], side: Side, counts: Counter[str] | None) -> Headers:
        told = self._told[side]
        return tuple([told.get(line) or self._line(line, side, counts) for line in raw])

    def _line(self, line: tuple[bytes, bytes], side: Side, counts: Counter[str] | None) -> tuple[str, str]:
        """Return the header line as text, and keep that where nothing of it is secret."""
        name, value = line
        verdicts = self._verdicts[side]
        verdict = verdicts.get(name)
        if verdict is None:
            text = name.decode("latin-1")
            secret = is_secret_header(text, request=side == "request")
            verdict = text, secret or text.lower() in self._headers
            if len(verdicts) < _CACHED_NAMES:
                verdicts[name] = verdict
        known = value.decode("latin-1")
        shown = REDACTED if verdict[1] else known
        if side == "request":
            shown = REDACTED if value[:7].lower().startswith(_SCHEMES) else without_secrets(shown, REDACTED)
        leads = name.lower() in _URL_HEADERS
        if leads:
            shown = self.url(shown, counts, sent=side == "request")
        if self.unreadable is not None and verdict[0].lower() not in _STRUCTURE:
            shown = REDACTED
        elif self.rules is not None:
            ruled = self._ruled("header", side, verdict[0].lower(), known, counts)
            shown = shown if ruled is None else ruled
        if self._plain and shown == known and not leads and len(value) <= _LONGEST_TOLD:
            if len(self._told[side]) >= _CACHED_LINES:
                self._told[side].clear()
            self._told[side][line] = verdict[0], shown
        return verdict[0], shown

    def _ruled(
        self, kind: Kind, side: Side, name: str, value: str, counts: Counter[str] | None
    ) -> str | None:
        """Return what a rule for that header or parameter puts in the value's place, if there is one."""
        assert self.rules is not None
        for rule in self.rules.of(kind, side):
            if rule.match == name:
                new = self.rules.instead(rule, value)
                if counts is not None and new != value:
                    counts[rule.name] += 1
                return new
        return None

    def url(
        self,
        url: str,
        counts: Counter[str] | None = None,
        *,
        sent: bool = True,
        found: list[tuple[str, str]] | None = None,
    ) -> str:
        """Return the URL with its user information and secret parameters replaced, and add those to `found`.

        One that is not `sent` but received leads on: what a replay must give back is kept.
        """
        if "@" in url:
            url = _USERINFO.sub(rf"\1{REDACTED}@", url)
        if "=" in url:
            url = _PAIR.sub(lambda match: self._pair(match, counts, sent, found), url)
        # What leads to the server stays, or nobody could tell whose request it is.
        origin = _ORIGIN.match(url)
        at = origin.end() if origin else 0
        url = url[:at] + without_secrets(url[at:], REDACTED)
        if self.rules is not None:
            from .bodies import substituted

            url = url[:at] + substituted(self.rules, "request", url[at:], counts)
        return url

    def _pair(
        self,
        match: re.Match[str],
        counts: Counter[str] | None,
        sent: bool,
        found: list[tuple[str, str]] | None,
    ) -> str:
        mark, written, value = match.groups()
        name = unquote_plus(written)
        if self.rules is not None:
            new = self._ruled("param", "request", name.lower(), unquote_plus(value), counts)
            if new is not None:
                return f"{mark}{written}={quote(new, safe='')}"
        if self._is_secret_param(name, sent) or self.unreadable is not None:
            if found is not None:
                found.append((f"url {name}", unquote_plus(value)))
            return f"{mark}{written}={REDACTED}"
        plain = unquote_plus(value)
        if plain != value and (shown := without_secrets(plain, REDACTED)) != plain:
            if found is not None:
                found.append((f"url {name}", plain))
            return f"{mark}{written}={quote(shown, safe='')}"
        # A parameter can hold a URL that has parameters itself.
        if "?" not in value:
            return match[0]
        return f"{mark}{written}={_PAIR.sub(lambda inner: self._pair(inner, counts, sent, found), value)}"

    def _is_secret_param(self, name: str, sent: bool) -> bool:
        known = self._named.get((name, sent))
        if known is None:
            known = name.lower() in self._params or is_secret_param(name, sent=sent)
            if len(self._named) < _CACHED_NAMES:
                self._named[name, sent] = known
        return known

    # --- other text that is written down ---

    def text(self, text: str, counts: Counter[str] | None = None) -> str:
        """Return the text, JSON or not, with what patterns find replaced."""
        if self._plain:
            return text
        if self.rules is None:
            return "{}" if text.startswith("{") else REDACTED
        from .bodies import substituted_json

        return substituted_json(self.rules, text, Counter() if counts is None else counts)

    def why_not_kept(self, content: bytes) -> str | None:
        """Return why a file's content, in which nothing can be replaced, is not to be kept; None if it is."""
        if self._plain:
            return None
        if self.unreadable is not None:
            return self.unreadable
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return "it is no text, in which redaction rules could look"
        counts: Counter[str] = Counter()
        self.text(text, counts)
        found = ", ".join(sorted(counts))
        return (
            f"it holds what redaction rules replace ({found}), and a copy of it would hold it too"
            if found
            else None
        )

    def error(self, text: str) -> str:
        """Return what an error says with keys and what patterns find replaced."""
        return self.text(without_secrets(text, REDACTED))

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of a span, with what patterns find in their texts replaced."""
        if not self._known:
            return dict(attributes) if self._plain else self._values(attributes)
        told = self._values(attributes) if not self._plain else dict(attributes)
        for name, value in told.items():
            # Instrumentation of others puts whole requests there.
            if isinstance(value, str) and value[:1] == "{" and not name.startswith("tracefork."):
                told[name] = self._offered(value)
        return told

    def _values(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._value(name, value) for name, value in attributes.items()}

    def _offered(self, text: str) -> str:
        """Return the text of a request with the keys of the servers replaced that it offers a model."""
        body = text.encode("utf-8", "surrogatepass")
        if not glance.offers_keys(body):
            return text
        (body, *_), _ = _rewritten(self._rules_of("json"), "request", body, (), (), Counter())
        return body.decode("utf-8", "surrogatepass")

    def _value(self, name: str, value: Any) -> Any:
        if name.startswith("tracefork.") and name not in _TOLD:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (list, tuple)):
            return [self.text(item) if isinstance(item, str) else item for item in value]
        return value

    def command(self, argv: Iterable[str]) -> tuple[str, ...]:
        """Return the command line with secrets and what patterns find replaced, the program's name kept."""
        first, *rest = arguments(map(self._addressed, argv)) or ("",)
        return (first, *(self.text(word) for word in rest)) if self.rules is not None else (first, *rest)

    def _addressed(self, word: str) -> str:
        """Return the word of a command line, as a URL is recorded where it is one or assigns one."""
        address = _ADDRESS.fullmatch(word)
        return word if address is None else address[1] + self.url(address[2])

    def environment(self, environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return what `names.environment` keeps and withholds; what a pattern matches is withheld as well."""
        kept, withheld = environment(environ)
        if self.rules is None:
            return kept, withheld
        passed = {name: value for name, value in kept.items() if self.text(value) == value}
        withheld = tuple(sorted({*withheld, *(kept.keys() - passed.keys())} - {RULES_VARIABLE}))
        return {**passed, RULES_VARIABLE: self.rules.source}, withheld


def told(
    attributes: dict[str, Any], request: Mapping[str, int], response: Mapping[str, int], withheld: str | None
) -> None:
    """Add to an exchange's attributes which rules replaced something in it, how often, and where."""
    if request or response:
        sides = {"request": dict(request), "response": dict(response)}
        attributes[ATTRIBUTE] = json.dumps({side: counts for side, counts in sides.items() if counts})
    if withheld is not None:
        attributes[WITHHELD] = withheld


def of(settings: Settings, *, key: Callable[[], bytes | None] = lambda: None) -> Redactor:
    """Return the redactor of the settings; where its rules cannot be read, log that and let nothing pass."""
    known = settings.redact_bodies is not False
    if settings.redact is None and not settings.redact_rules and not settings.redact_bodies:
        return Redactor(settings.redact_headers, settings.redact_params, known=known, key=key)
    rules: Rules | None = None
    why: str | None = None
    try:
        rules = rules_of(settings)
    except UsageError as error:
        why = f"the redaction rules cannot be used, so no body is recorded: {error}"
        LOG.error("tracefork: %s", why)
    return Redactor(
        settings.redact_headers, settings.redact_params, rules=rules, unreadable=why, known=known, key=key
    )


def rules_of(settings: Settings) -> Rules | None:
    """Return the rules of a run's command and of a file together; raise UsageError for unreadable ones."""
    from . import reading

    given = reading.from_json(settings.redact_rules) if settings.redact_rules else None
    if settings.redact is not None:
        given = reading.together(given, reading.load(settings.redact))
    return reading.together(given, reading.of_keys()) if settings.redact_bodies else given


def with_rules(settings: Settings, path: Path | None) -> Settings:
    """Return the settings with the rules of that file, else their own, as text that needs no file.

    Raise UsageError where the rules cannot be read.
    """
    if path is not None:
        settings = replace(settings, redact=path, redact_rules="")
    rules = rules_of(settings)
    return replace(settings, redact=None, redact_rules="" if rules is None else rules.source)


_Body: TypeAlias = tuple[bytes, Headers, tuple[int, ...]]


def _rewritten(
    rules: Rules, side: Side, body: bytes, headers: Headers, sizes: tuple[int, ...], counts: Counter[str]
) -> tuple[_Body, str | None]:
    """Return body, headers and chunk sizes as the rules leave them, and why they cannot, if so."""
    from ..wire.codings import Unreadable
    from .bodies import rewrite

    coding = _header(headers, "content-encoding").strip().lower()
    try:
        made = rewrite(
            rules,
            side,
            body,
            media=_header(headers, "content-type").lower(),
            coding="" if coding == "identity" else coding,
            sizes=sizes,
        )
    except Unreadable as error:
        return (body, headers, sizes), str(error)
    if made is None:
        return (body, headers, sizes), None
    counts.update(made.counts)
    return (made.body, _of_length(headers, len(made.body)), made.sizes), None


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _of_length(headers: Headers, length: int, *, coded: bool = True) -> Headers:
    """Return the headers with the body's length; without its coding if it is not `coded`."""
    return tuple(
        (name, str(length) if name.lower() == "content-length" else value)
        for name, value in headers
        if coded or name.lower() != "content-encoding"
    )
