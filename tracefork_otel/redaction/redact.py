"""Secrets in headers, URLs and the environment: replaced before anything leaves the thread that met them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus

from ..errors import UsageError
from ..exchange import Headers, RedactedRequest, Request, Response
from ..log import LOG
from .names import REDACTED, arguments, environment, is_secret_header, is_secret_param, without_keys

if TYPE_CHECKING:
    from pathlib import Path

    from ..settings import Settings
    from .rules import Kind, Rules, Side

_PAIR = re.compile(r"([?&;#])([^=&;#?]+)=([^&;#]*)")
_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#@]*(?:@[^/?#@]*)*@")

_URL_HEADERS = (b"location", b"content-location", b"referer")
"""Headers that hold a URL; a replay follows a redirect to it with its secrets replaced, as recorded."""
_SCHEMES = (b"bearer ", b"basic ")
"""How the value of a header begins that proves who asks, whatever its name."""
_CACHED_NAMES = 4096
"""Header names whose verdict is kept; a server that invents names must not grow our memory."""


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
    ) -> None:
        """Create a redactor; `headers` and `params` are secret names beside the built-in ones, in any case.

        Where the rules are `unreadable` nothing passes that they might have been meant for: no body, no text.
        """
        self._headers = frozenset(name.lower() for name in headers)
        self._params = frozenset(name.lower() for name in params)
        self._named: dict[tuple[str, bool], bool] = {}
        """Whether a parameter is secret, by its name, and whether it was sent."""
        self.rules = rules
        self.unreadable = unreadable
        self._plain = rules is None and unreadable is None
        self._verdicts: dict[Side, dict[bytes, tuple[str, bool]]] = {"request": {}, "response": {}}
        """Of names of headers: how each is written, and whether it is secret."""

    # --- exchanges ---

    def request(self, method: str, url: str, raw: Iterable[tuple[bytes, bytes]], body: bytes) -> Request:
        """Return the request as it is recorded; a RedactedRequest where rules replaced something."""
        counts: Counter[str] = Counter()
        sent, headers = body, self._lines(raw, "request", counts)
        body, headers, _, withheld = self._body("request", sent, headers, (), counts)
        url = self.url(url, counts)
        if not counts:
            return Request(method=method, url=url, headers=headers, body=body)
        return RedactedRequest(
            method=method, url=url, headers=headers, body=body, raw=sent, counts=counts, withheld=withheld
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
        self, side: Side, body: bytes, headers: Headers, sizes: tuple[int, ...], counts: Counter[str]
    ) -> tuple[bytes, Headers, tuple[int, ...], str | None]:
        """Return body, headers, chunk sizes, and why it is withheld; the same body where nothing is found."""
        if self._plain or not body:
            return body, headers, sizes, None
        why = self.unreadable
        if self.rules is not None:
            from ..wire.codings import Unreadable
            from .bodies import rewrite

            media = _header(headers, "content-type").lower()
            coding = _header(headers, "content-encoding").strip().lower()
            try:
                rewritten = rewrite(
                    self.rules,
                    side,
                    body,
                    media=media,
                    coding="" if coding == "identity" else coding,
                    sizes=sizes,
                )
            except Unreadable as error:
                why = str(error)
            else:
                if rewritten is None:
                    return body, headers, sizes, None
                counts.update(rewritten.counts)
                return rewritten.body, _of_length(headers, len(rewritten.body)), rewritten.sizes, None
        counts[_WITHHELD] += 1
        return b"", _of_length(headers, 0, coded=False), (), why

    def response_headers(
        self, raw: Iterable[tuple[bytes, bytes]], counts: Counter[str] | None = None
    ) -> Headers:
        """Return the header lines as text; one that merely mentions a token is kept: a replay serves it."""
        return self._lines(raw, "response", counts)

    def _lines(self, raw: Iterable[tuple[bytes, bytes]], side: Side, counts: Counter[str] | None) -> Headers:
        verdicts = self._verdicts[side]
        lines: list[tuple[str, str]] = []
        for name, value in raw:
            verdict = verdicts.get(name)
            if verdict is None:
                text = name.decode("latin-1")
                secret = is_secret_header(text, request=side == "request")
                verdict = text, secret or text.lower() in self._headers
                if len(verdicts) < _CACHED_NAMES:
                    verdicts[name] = verdict
            shown = REDACTED if verdict[1] else value.decode("latin-1")
            if side == "request":
                shown = REDACTED if value[:7].lower().startswith(_SCHEMES) else without_keys(shown)
            if name.lower() in _URL_HEADERS:
                shown = self.url(shown, counts, sent=side == "request")
            if self.unreadable is not None and verdict[0].lower() not in _STRUCTURE:
                shown = REDACTED
            elif self.rules is not None:
                ruled = self._ruled("header", side, verdict[0].lower(), value.decode("latin-1"), counts)
                shown = shown if ruled is None else ruled
            lines.append((verdict[0], shown))
        return tuple(lines)

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

    def url(self, url: str, counts: Counter[str] | None = None, *, sent: bool = True) -> str:
        """Return the URL with its user information and secret parameters replaced.

        One that is not `sent` but received leads on: what a replay must give back is kept.
        """
        if "@" in url:
            url = _USERINFO.sub(rf"\1{REDACTED}@", url)
        if "=" in url:
            url = _PAIR.sub(lambda match: self._pair(match, counts, sent), url)
        # What leads to the server stays, or nobody could tell whose request it is.
        origin = _ORIGIN.match(url)
        at = origin.end() if origin else 0
        url = url[:at] + without_keys(url[at:])
        if self.rules is not None:
            from .bodies import substituted

            url = url[:at] + substituted(self.rules, "request", url[at:], counts)
        return url

    def _pair(self, match: re.Match[str], counts: Counter[str] | None, sent: bool) -> str:
        mark, written, value = match.groups()
        name = unquote_plus(written)
        if self.rules is not None:
            new = self._ruled("param", "request", name.lower(), unquote_plus(value), counts)
            if new is not None:
                return f"{mark}{written}={quote(new, safe='')}"
        if self._is_secret_param(name, sent) or self.unreadable is not None:
            return f"{mark}{written}={REDACTED}"
        # A parameter can hold a URL that has parameters itself.
        if "?" not in value:
            return match[0]
        return f"{mark}{written}={_PAIR.sub(lambda inner: self._pair(inner, counts, sent), value)}"

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

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of a span, with what patterns find in their texts replaced."""
        if self._plain:
            return dict(attributes)
        return {name: self._value(name, value) for name, value in attributes.items()}

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
        first, *rest = arguments(argv) or ("",)
        return (first, *(self.text(word) for word in rest)) if self.rules is not None else (first, *rest)

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


def of(settings: Settings) -> Redactor:
    """Return the redactor of the settings; where its rules cannot be read, log that and let nothing pass."""
    if settings.redact is None and not settings.redact_rules:
        return Redactor(settings.redact_headers, settings.redact_params)
    rules: Rules | None = None
    why: str | None = None
    try:
        rules = rules_of(settings)
    except UsageError as error:
        why = f"the redaction rules cannot be used, so no body is recorded: {error}"
        LOG.error("tracefork: %s", why)
    return Redactor(settings.redact_headers, settings.redact_params, rules=rules, unreadable=why)


def rules_of(settings: Settings) -> Rules | None:
    """Return the rules of a run's command and of a file together; raise UsageError for unreadable ones."""
    from . import reading

    given = reading.from_json(settings.redact_rules) if settings.redact_rules else None
    return reading.together(given, reading.load(settings.redact)) if settings.redact is not None else given


def with_rules(settings: Settings, path: Path | None) -> Settings:
    """Return the settings with the rules of that file, else their own, as text that needs no file.

    Raise UsageError where the rules cannot be read.
    """
    if path is not None:
        settings = replace(settings, redact=path, redact_rules="")
    rules = rules_of(settings)
    return replace(settings, redact=None, redact_rules="" if rules is None else rules.source)


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _of_length(headers: Headers, length: int, *, coded: bool = True) -> Headers:
    """Return the headers with the body's length; without its coding if it is not `coded`."""
    return tuple(
        (name, str(length) if name.lower() == "content-length" else value)
        for name, value in headers
        if coded or name.lower() != "content-encoding"
    )
