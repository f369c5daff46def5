"""Where providers' own formats and OAuth carry keys in bodies: replaced without a rule of the user's."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import cast
from urllib.parse import unquote_plus

from ..exchange import Response, header_of
from ..wire.codings import decode_body
from ..wire.paths import parse_path
from .glance import KEYS, NEAR, OAUTH, Kind
from .growth import anchored
from .hidden import replaced
from .names import REDACTED
from .passwords import SECRET, Form, compiled
from .rules import BOTH, DIGEST, Rule, Rules, of_pattern

_OFFERED = (
    *("mcp_servers[*].authorization_token", "mcp_servers[*].headers.*"),
    *("tools[*].authorization", "tools[*].headers.*", "tools[*].extra_headers.*"),
    "tools[*].mcpServers[*].streamableHttpTransport.headers.*",
)
"""Servers that a model is offered, with the keys by which it asks them, in each provider's form."""
_BATCHED = tuple(f"requests[*].params.{path}" for path in _OFFERED[:2])
_REALTIME = "client_secret.value"
_GRANT = ("code", "password")
"""Members and fields that prove who asks where a `grant_type` stands beside them."""
_FORMS = ("token", "SAMLResponse", "password", "passwd", "pwd")
"""Fields of OAuth's, SAML's and other forms that have too common a name to be members of JSON."""
_CLAIMS = "id_token"
"""The one that its reader takes apart: what it claims stays, and only its signature goes."""
_SIGNED = re.compile(r"([\w-]+\.[\w-]+\.)[\w-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known(Rules):
    """The rules for such places, which leave alone what others have replaced."""

    left: frozenset[str]

    def instead(self, rule: Rule, value: str) -> str:
        """Return what takes the value's place."""
        if not value or value == REDACTED or value in self.left or DIGEST.fullmatch(value):
            return value
        signed = _SIGNED.fullmatch(value) if rule.match == _CLAIMS else None
        new = REDACTED if signed is None else signed[1] + REDACTED
        if new != value:
            replaced(rule.name, unquote_plus(value) if _is_field(rule) else value)
        return new


def gives_keys(response: Response) -> bool:
    """Return whether the recorded answer gave its caller a key of OAuth, which is not in it any more."""
    body = decode_body(response.body, header_of(response.headers, "content-encoding"), limit=NEAR)
    try:
        told = json.loads(body or b"null")
    except (ValueError, RecursionError):
        return False
    members = cast("dict[str, object]", told) if isinstance(told, dict) else {}
    return any(_is_replaced(members.get(name)) for name in OAUTH)


def _is_replaced(value: object) -> bool:
    return isinstance(value, str) and value.rpartition(".")[2] == REDACTED


def _is_field(rule: Rule) -> bool:
    return rule.regex is not None and SECRET not in rule.regex.groupindex


@cache
def rules_of(kind: Kind | None, left: frozenset[str], forms: tuple[Form, ...] = ()) -> Rules:
    """Return the rules for a body of that kind, which leave alone what is among the `left` values.

    With `forms` also those for the passwords that stand in its texts so.

    OAuth's members count in the outermost object only: a tool's arguments of these names reach the tool.
    """
    names = (*OAUTH, *_GRANT) if kind is not None and kind.endswith("grant") else OAUTH
    if kind is None:
        made = ()
    elif kind.startswith("json"):
        made = tuple(_at(path) for path in (*_OFFERED, *_BATCHED, *names, _REALTIME))
    else:
        made = tuple(_field(name) for name in dict.fromkeys((*names, *_FORMS)))
    return _Known(rules=(*made, *map(_text, forms)), left=left)


def _at(path: str) -> Rule:
    at = parse_path(path)
    return Rule(name=KEYS, kind="json", match=path, replace=None, sides=BOTH, path=at, texts_only=True)


def _text(form: Form) -> Rule:
    return of_pattern(KEYS, compiled(form.pattern), anchored(form.anchors, form.signed()))


def _field(name: str) -> Rule:
    regex = re.compile(rf"(?<=\b{name}=)[^&\s]+")
    return of_pattern(KEYS, regex, anchored((f"{name}=",)), name)
