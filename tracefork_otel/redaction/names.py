"""Names and values that look secret: of headers, URL parameters, variables and options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

REDACTED = "REDACTED"

HEADERS = frozenset((
    "authorization", "proxy-authorization", "cookie", "set-cookie", "x-auth-token", "x-access-token",
    "x-amz-security-token", "x-goog-iam-authorization-token", "private-token", "x-functions-key",
    "x-subscription-token", "x-vault-token",
))  # fmt: skip
# Whole words, so that `anthropic-ratelimit-tokens-remaining` is kept; `key` only beside a word that makes it
# a secret, so that `idempotency-key` and `sec-websocket-key` are kept.
_SECRET_WORD = re.compile(
    r"(?:^|[-_])(?:secret|password|passwd|credentials?|apikey|(?:api|access|auth|account|master|private"
    r"|secret|subscription|license)[-_]?key)(?:$|[-_])"
)
# Request headers alone: a response's `x-next-page-token` steers the agent, and a replay must give it back.
_TOKEN_WORD = re.compile(r"(?:^|[-_])token(?:$|[-_])")

PARAMS = frozenset((
    "key", "api_key", "api-key", "apikey", "access_token", "id_token", "refresh_token", "token", "auth",
    "authorization", "sig", "signature", "password", "passwd", "secret", "client_secret",
    "client_assertion", "subscription-key", "subscription_key", "x-amz-signature", "x-amz-credential",
    "x-amz-security-token", "x-goog-signature", "x-goog-credential", "awsaccesskeyid", "googleaccessid",
))  # fmt: skip
_VARIABLE = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|COOKIE|AUTHORIZATION|SIGNATURE|_AUTH$|_PAT$|_DSN$"
    r"|CONNECTION_STRING|OTEL_EXPORTER_OTLP.*HEADERS",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(?:sk|pk|rk|xox[abeoprs]|ghp|gho|ghs|ghu|github_pat|glpat|hf|AKIA|ASIA|AIza|ya29|eyJ)[-_A-Za-z0-9.]{16,}"
    r"|-----BEGIN |://[^/\s:@]+:[^/\s@]+@"
)


def is_secret_header(lower: str, *, request: bool) -> bool:
    """Return whether a header of that name, in lower case, looks as if it held a secret."""
    found = lower in HEADERS or _SECRET_WORD.search(lower) or (request and _TOKEN_WORD.search(lower))
    return bool(found)


def environment(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that may be recorded, and the names of those whose name or value looks secret."""
    kept: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in environ.items():
        if _VARIABLE.search(name) or _VALUE.search(value):
            withheld.append(name)
        else:
            kept[name] = value
    return kept, tuple(sorted(withheld))


def arguments(argv: Iterable[str]) -> tuple[str, ...]:
    """Return the command line with the values of secret-looking options and arguments replaced."""
    kept: list[str] = []
    hide_next = False
    for word in argv:
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
