"""Names and values that look secret, by the words that a name is made of: one place for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .keys import without_keys

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
_PARAMETERS = frozenset(("code",))
"""Further names of parameters: of an authorisation's code, and of a key to Azure's functions."""

_VARIABLE = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|COOKIE|AUTHORIZATION|SIGNATURE|_AUTH$|_PAT$|_DSN$"
    r"|CONNECTION_STRING|OTEL_EXPORTER_OTLP.*HEADERS",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(?:sk|pk|rk|xox[abeoprs]|ghp|gho|ghs|ghu|github_pat|glpat|hf|AKIA|ASIA|AIza|ya29|eyJ)[-_A-Za-z0-9.]{16,}"
    r"|-----BEGIN |://[^/\s:@]+:[^/\s@]+@"
)


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
        if _COMPOUND.fullmatch(word):
            return True
        if sent and word in _OFTEN and before not in _KEPT_AFTER and after not in _KEPT_BEFORE:
            return True
    return False


def environment(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that may be recorded, and the names of those whose name or value looks secret."""
    kept: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in environ.items():
        if _VARIABLE.search(name) or _VALUE.search(value) or without_keys(value, REDACTED) != value:
            withheld.append(name)
        else:
            kept[name] = value
    return kept, tuple(sorted(withheld))


def arguments(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the command line with the values of secret-looking options and arguments replaced."""
    kept: list[str] = []
    hide_next = False
    for word in (without_keys(word, REDACTED) for word in argv):
        name, equals, _ = word.partition("=")
        if hide_next and not word.startswith("-"):
            kept.append(REDACTED)
            hide_next = False
            continue
        secret_option = word.startswith("-") and _VARIABLE.search(name) is not None
        hide_next = secret_option and not equals
        if secret_option and equals:
            kept.append(f"{name}={REDACTED}")
        else:
            kept.append(_VALUE.sub(REDACTED, word))
    return tuple(kept)
