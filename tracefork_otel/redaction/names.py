"""Names and values that look secret, by the words that a name is made of: one place for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .passwords import given, without_secrets

REDACTED = "REDACTED"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = frozenset((
    "apikey", "auth", "authentication", "authorisation", "authorization", "bearer", "cookie", "credential",
    "credentials", "jwt", "oauth", "passphrase", "passwd", "password", "pwd", "sas", "secret", "secrets",
    "sig", "signature",
))  # fmt: skip
"""Words that make a name secret."""
_OFTEN = frozenset(("key", "session", "token"))
"""Words that make the name of something sent secret, unless the word before or after them says otherwise.

What is received has such names too, and is kept: a replay must give an `x-next-page-token` back.
"""
_KEPT_AFTER = frozenset((
    "cache", "continuation", "cursor", "foreign", "idempotency", "max", "min", "next", "page", "pagination",
    "partition", "primary", "public", "resume", "routing", "sort", "start", "surrogate", "sync", "websocket",
))  # fmt: skip
_KEPT_BEFORE = frozenset(("algorithm", "count", "length", "limit", "type", "version"))
_COMPOUND = re.compile(
    r"(?:access|account|api|app|auth|bearer|client|id|license|master|private|refresh|secret|session|signing"
    r"|subscription|user)(?:key|secret|token)(?:id)?|googleaccessid|cookie\d"
)
"""Words that are written together."""
_TELLING = ("access", "account", "api", "license", "master", "private", "security", "subscription", "vault")
"""Before `key` and `token` these make a name secret on what is received, too."""
_PARAMETERS = frozenset(("code", "samlresponse"))
"""Further parameters: a code of an authorisation, a key to Azure's functions, an assertion of SAML."""

_PARTIAL = frozenset(("auth", "authentication", "oauth", "sas", "sig"))
"""Of the secret words, those that in options and variables stand in names of much else."""
_ENDS = frozenset(("auth", "dsn", "pass", "pw", "sas", "sig"))
"""Words that make the name of an option or a variable secret where it ends with them."""
_WRITTEN_TOGETHER = re.compile(
    r"passw|passphrase|credential|secret(?!ar)|signature|cookie|authori[sz]ation|\Btoken$"
    r"|(?<!mon)(?<!tur)(?<!don)(?<!hot)(?<!hoc)(?<!joc)(?<!whis)\Bkey$"
)
"""What a word may hold that is joined with another: `PGPASSWORD`, `MYAPIKEY`."""
_HEADERS = re.compile(r"OTEL_EXPORTER_OTLP\w*HEADERS", re.IGNORECASE)
_ABOUT = _KEPT_BEFORE | {"budget", "dir", "expiry", "file", "name", "path", "size", "sock", "timeout", "ttl"}
"""Where an option or a variable ends so, it says something of a secret, and is none."""
_SETTING = re.compile(r"-?\d{0,7}(?:\.\d+)?|true|false|yes|no|on|off|none", re.IGNORECASE)
"""Values that no key has: what a limit or a switch is set to. Of more digits some are."""
_SWITCHES = frozenset(("allow", "disable", "enable", "no", "require", "skip", "use", "with", "without"))
"""An option that begins so takes no value."""

_VALUE = re.compile(
    r"\b(?:sk|pk|rk|xox[abeoprs]|ghp|gho|ghs|ghu|github_pat|glpat|hf|AKIA|ASIA|AIza|ya29|eyJ)[-_A-Za-z0-9.]{16,}"
    r"|-----BEGIN |://[^/\s:@]*:[^/\s@]+@|://[^/\s:@]{16,}@"
)
_PAIR = re.compile(r"(^|[?&;,\s])([\w.-]+)=([^?&;,\s]+)")
"""A name and its value in an address, a connection's text, or options within a variable."""
_MEMBER = re.compile(r'("([\w.-]+)"\s*:\s*")((?:[^"\\]|\\.)*)"')
_ASSIGNED = re.compile(r"(-{0,2}([A-Za-z_][\w.+-]*)=)(.+)", re.DOTALL)
_HEADER = re.compile(r"(-H|--headers?=)?(([\w-]+):\s*)(.+)", re.DOTALL)
_OPTION = re.compile(r"--[a-z][a-z0-9_-]*(?:=.*)?|--?[A-Za-z][A-Za-z-]*(?:=.*)?|-\w{1,3}", re.DOTALL)


def is_secret_header(name: str, *, request: bool) -> bool:
    """Return whether a header of that name looks as if it held a secret."""
    return _is_secret(name, sent=request)


def is_secret_param(name: str, *, sent: bool) -> bool:
    """Return whether a parameter of a URL of that name looks as if it held a secret.

    In a URL that is received only what can be nothing else: a replay gives it back to the agent.
    """
    lower = name.lower()
    return (sent and lower in _PARAMETERS) or lower in ("key", "token") or _is_secret(name, sent=sent)


def _is_secret(name: str, *, sent: bool) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if not _SECRET.isdisjoint(words) or _COMPOUND.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())):
        return True
    for at, word in enumerate(words):
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        if word in ("key", "token") and before in _TELLING:
            return True
        if _COMPOUND.fullmatch(word) or before + word in _SECRET:
            return True
        if sent and word.endswith(("apikey", "accesskey", "secretkey")):
            return True
        if sent and word in _OFTEN and before not in _KEPT_AFTER and after not in _KEPT_BEFORE:
            return True
    return False


def _is_written_together(word: str) -> bool:
    """Return whether the word is one of ours joined with another that does not say otherwise."""
    return _WRITTEN_TOGETHER.search(word) is not None and not word.startswith(tuple(_KEPT_AFTER))


def is_secret_setting(name: str, value: str) -> bool:
    """Return whether the value of an option or a variable of that name looks as if it were a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or not value or name == "PWD" or words[-1] in _ABOUT:
        return False
    if _HEADERS.search(name) or words[-2:] == ["connection", "string"]:
        return True
    if words[-1] in _ENDS or (words[-1] == "pat" and len(words) > 1):  # alone it is a pattern
        return words[-1] in ("pass", "pw") or not _SETTING.fullmatch(value)
    for at, word in enumerate(words):
        before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
        if word in ("key", "token") or (word in ("keys", "tokens") and before in _TELLING):
            if before not in _KEPT_AFTER and after not in _KEPT_BEFORE and not _SETTING.fullmatch(value):
                return True
        elif (
            (word in _SECRET and word not in _PARTIAL)
            or before + word in _SECRET
            or _is_written_together(word)
        ):
            return True
    return False


def environment(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that may be recorded, and the names of those whose name or value looks secret."""
    kept: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in environ.items():
        if is_secret_setting(name, value) or _holds_secret(value):
            withheld.append(name)
        else:
            kept[name] = value
    return kept, tuple(sorted(withheld))


def _holds_secret(value: str) -> bool:
    return (
        _VALUE.search(value) is not None
        or without_secrets(value, REDACTED) != value
        or any(is_secret_setting(pair[2], pair[3]) for pair in _PAIR.finditer(value))
        or any(is_secret_setting(member[2], member[3]) for member in _MEMBER.finditer(value))
    )


def arguments(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the command line with the values of secret-looking options and arguments replaced."""
    words = tuple(argv)
    kept: list[str] = []
    for at, word in enumerate(words):
        password = given(words[:at], word)
        if password:
            kept.append(word.removesuffix(password) + REDACTED)
        else:
            kept.append(_argument(word, words[at - 1] if at else ""))
    return tuple(kept)


def _argument(word: str, before: str) -> str:
    """Return a word of a command line as it is recorded, by the word before it."""
    if _takes_secret(before, word):
        return REDACTED
    known = _VALUE.sub(REDACTED, without_secrets(word, REDACTED))
    if before == "-c":  # code
        return known
    header = _HEADER.fullmatch(word)
    if header and (header[1] or before in ("-H", "--header", "--headers")):
        secret = is_secret_header(header[3], request=True)
        return f"{header[1] or ''}{header[2]}{REDACTED}" if secret else known
    assigned = _ASSIGNED.fullmatch(word)
    if assigned and is_secret_setting(assigned[2], assigned[3]):
        return assigned[1] + REDACTED
    if word[:1] in "[{":
        return _MEMBER.sub(_member, known)
    return known if re.search(r"\s", word) else _PAIR.sub(_pair, known)


def _takes_secret(option: str, word: str) -> bool:
    """Return whether the word is the value of a secret option before it."""
    if not option.startswith("-") or "=" in option or _OPTION.fullmatch(word):
        return False
    words = _WORD.findall(option)
    return bool(words) and words[0].lower() not in _SWITCHES and is_secret_setting(option, word)


def _pair(found: re.Match[str]) -> str:
    secret = is_secret_setting(found[2], found[3])
    return f"{found[1]}{found[2]}={REDACTED}" if secret else found[0]


def _member(found: re.Match[str]) -> str:
    return f'{found[1]}{REDACTED}"' if is_secret_setting(found[2], found[3]) else found[0]
