"""What a glance at a body's bytes says of keys in it: whether one of the known places may be there at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..exchange import Headers, header_of
from ..store.delta import common_prefix
from .passwords import ASKING, KEYWORDS, PAIR_AFTER, PAIRS, PROGRAMS, TAKING, TEXTS, Form

if TYPE_CHECKING:
    from .rules import Side

Kind: TypeAlias = Literal["json", "json of a grant", "form", "form of a grant"]

KEYS = "keys"
"""What is replaced in the known places counts as."""
OAUTH = (
    *("access_token", "refresh_token", "id_token", "registration_access_token", "subject_token"),
    *("actor_token", "client_secret", "client_assertion", "assertion", "code_verifier"),
)
"""Members of OAuth's requests and answers, and fields of its forms."""
_TOKENS = tuple(f'"{name}"'.encode() for name in OAUTH if name.endswith("_token"))
_NAMES = (b'authorization"', b'"authorization_token"')
_HEADERS = b'headers"'
_LONGEST = max(map(len, (*_NAMES, _HEADERS)))
"""Such a name may begin in what two bodies have alike."""
NEAR = 64 * 1024
"""The largest body of OAuth, and the largest answer that is looked into."""
_OF_MODELS = re.compile(rb'"(?:model|messages|input|contents|choices|candidates)"')
"""Members with which what a model is asked, and answers, begins: there is nothing of OAuth in it."""
_BEGINNING = 256
_PLAIN = 16 * 2**20
"""The most that a compressed body may be."""
_FORM = "application/x-www-form-urlencoded"
_USERINFO = re.compile(rb"://[^\s/?#@:\"]{0,128}+:[^\s/?#@\"]{1,512}+@")
_KEYWORD = re.compile(rb"password=[^\s\"'`<>(){},]{1,256} " + KEYWORDS.encode())
_NETRC = re.compile(rb"login(?:\s|\\+[nrt])+(?:[^\s\\]{1,255}(?:\s|\\+[nrt])+){1,3}password")
_PAIRS = tuple(one.encode() for one in PAIRS)
_PAIR = re.compile(PAIR_AFTER.encode())
_PAIR_FIRST = re.compile(rb"\w{3,8}=[^\s;\"'`<>(){}\\]{1,512};")
_OPTION = re.compile(rb" -(?:[sSkLfi]*u|-user|-proxy-user|-auth|[UapPw])")
_BEFORE, _MANY = 1024, 256
"""Bytes before an option in which its program is looked for, and options that are looked at."""
_STARTERS = (*ASKING, *TAKING)
_LONGEST_NAME = max(map(len, _STARTERS)) + len(".exe ")
_STARTED = re.compile(
    rb"(?<![\w.-])(?:" + "|".join(map(re.escape, _STARTERS)).encode() + rb")(?:\.exe)?[\s\\]"
)


class Looked:
    """Looks at bodies of a conversation, each of which goes on from the one before: at what is new alone."""

    def __init__(self) -> None:
        self._bare = b""
        """The last body in which nothing is."""

    def offers_keys(self, body: bytes) -> bool:
        """Return what `offers_keys` does."""
        alike = common_prefix(self._bare, body)
        found = offers_keys(body, max(alike - _LONGEST, 0))
        if not found:
            self._bare = body
        return found


def kind_of(side: Side, body: bytes, headers: Headers, looked: Looked | None = None) -> Kind | None:
    """Return as what the body has to be looked into; None where no known place can be in it."""
    if side == "response" and len(body) > NEAR:
        return None
    if body[:64].lstrip()[:1] in (b"{", b"["):
        return _of_json(body, looked)
    media = (header_of(headers, "content-type") or "").lower()
    coding = (header_of(headers, "content-encoding") or "").strip().lower()
    if coding not in ("", "identity"):
        is_text = "json" in media or media.startswith(_FORM)
        return _of_coded(body, coding, media) if is_text or side == "request" else None
    return _of_form(body, media)


def offers_keys(body: bytes, start: int = 0) -> bool:
    """Return whether members may be there by which a model is offered servers with their keys.

    From `start` on, where there are none before.
    """
    # Within a string of JSON a backslash follows such a name. The first is the cheapest to look for.
    if body.find(b"authorization", start) >= 0 and any(body.find(name, start) >= 0 for name in _NAMES):
        return True
    return body.find(_HEADERS, start) >= 0


def forms_of_passwords(body: bytes, headers: Headers) -> tuple[Form, ...]:
    """Return the forms in which a password may stand in a request's body; none where it is no text."""
    if header_of(headers, "content-encoding"):
        from ..wire.codings import Unreadable, undone

        coding = (header_of(headers, "content-encoding") or "").strip().lower()
        try:
            body = undone(body, "" if coding == "identity" else coding, limit=_PLAIN).body
        except Unreadable:
            return ()
    if body[:64].lstrip()[:1] not in (b"{", b"["):
        media = (header_of(headers, "content-type") or "").lower()
        if not media.startswith("text/") and "json" not in media and "xml" not in media:
            return ()
    return (TEXTS if _tells_password(body) else ()) + (PROGRAMS if _starts_with_password(body) else ())


def _tells_password(body: bytes) -> bool:
    # Each look at a megabyte takes half a millisecond: the words that are rare come first.
    return (
        b" password=" in body
        or (b"password=" in body and _KEYWORD.search(body) is not None)
        or (b"@" in body and b"://" in body and _USERINFO.search(body) is not None)
        or (b"login" in body and b"password" in body and _NETRC.search(body) is not None)
        or (b";" in body and any(name in body for name in _PAIRS) and _is_paired(body))
    )


def _is_paired(body: bytes) -> bool:
    """Return whether a pair with a password's name stands behind a semicolon, or before one."""
    return _PAIR.search(body) is not None or any(
        _PAIR_FIRST.match(body, found.start()) for name in _PAIRS for found in re.finditer(name, body)
    )


def _starts_with_password(body: bytes) -> bool:
    """Return whether a program that takes passwords may stand before such an option."""
    seen = 0
    for number, found in enumerate(_OPTION.finditer(body)):
        if number == _MANY or _STARTED.search(body, max(seen, found.start() - _BEFORE), found.start() + 1):
            return True
        seen = max(found.start() - _LONGEST_NAME, 0)
    return False


def _of_json(body: bytes, looked: Looked | None = None) -> Kind | None:
    if len(body) <= NEAR and _OF_MODELS.search(body, 0, _BEGINNING) is None:
        if b'"grant_type"' in body:
            return "json of a grant"
        if _of_oauth(body):
            return "json"
    return "json" if (offers_keys if looked is None else looked.offers_keys)(body) else None


def _of_oauth(body: bytes) -> bool:
    if b'_token"' in body and any(name in body for name in _TOKENS):
        return True
    return b'"client_secret"' in body or b'assertion"' in body or b'"code_verifier"' in body


def _of_form(body: bytes, media: str) -> Kind | None:
    if len(body) > NEAR or not media.startswith(_FORM):
        return None
    return "form of a grant" if b"grant_type=" in body else "form"


def _of_coded(body: bytes, coding: str, media: str) -> Kind | None:
    from ..wire.codings import Unreadable, undone

    try:
        plain = undone(body, coding, limit=_PLAIN).body
    except Unreadable:
        return None
    return _of_json(plain) if plain[:64].lstrip()[:1] in (b"{", b"[") else _of_form(plain, media)
