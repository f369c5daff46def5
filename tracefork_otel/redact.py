"""Secrets in headers, URLs and the environment, replaced before anything leaves the thread that met them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote_plus

REDACTED = "REDACTED"

_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "api-key",
        "apikey",
        "x-apikey",
        "x-goog-api-key",
        "x-auth-token",
        "x-access-token",
        "x-amz-security-token",
        "x-goog-iam-authorization-token",
        "private-token",
        "ocp-apim-subscription-key",
        "x-functions-key",
        "x-subscription-token",
        "x-vault-token",
    }
)
# Whole words, so that `anthropic-ratelimit-tokens-remaining` is kept; `key` only beside a word that makes it
# a secret, so that `idempotency-key` and `sec-websocket-key` are kept.
_SECRET_WORD = re.compile(
    r"(?:^|[-_])(?:secret|password|passwd|credentials?|apikey|(?:api|access|auth|account|master|private"
    r"|secret|subscription|license)[-_]?key)(?:$|[-_])"
)
# Request headers alone: a response's `x-next-page-token` steers the agent, and a replay must give it back.
_TOKEN_WORD = re.compile(r"(?:^|[-_])token(?:$|[-_])")

_PARAMS = frozenset(
    {
        "key",
        "api_key",
        "api-key",
        "apikey",
        "access_token",
        "id_token",
        "refresh_token",
        "token",
        "auth",
        "authorization",
        "sig",
        "signature",
        "password",
        "passwd",
        "secret",
        "client_secret",
        "client_assertion",
        "subscription-key",
        "subscription_key",
        "x-amz-signature",
        "x-amz-credential",
        "x-amz-security-token",
        "x-goog-signature",
        "x-goog-credential",
        "awsaccesskeyid",
        "googleaccessid",
    }
)
_PAIR = re.compile(r"([?&;#])([^=&;#?]+)=([^&;#]*)")
_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#@]*(?:@[^/?#@]*)*@")

_VARIABLE = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|COOKIE|AUTHORIZATION|SIGNATURE|_AUTH$|_PAT$|_DSN$"
    r"|CONNECTION_STRING|OTEL_EXPORTER_OTLP.*HEADERS",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(?:sk|pk|rk|xox[abeoprs]|ghp|gho|ghs|ghu|github_pat|glpat|hf|AKIA|ASIA|AIza|ya29|eyJ)[-_A-Za-z0-9.]{16,}"
    r"|-----BEGIN |://[^/\s:@]+:[^/\s@]+@"
)

_URL_HEADERS = (b"location", b"content-location", b"referer")
"""Headers that hold a URL; a replay follows a redirect to it with its secrets replaced, as recorded."""
_CACHED_NAMES = 4096
"""Header names whose verdict is kept; a server that invents names must not grow our memory."""


class Redactor:
    """Replaces the values of secret headers and URL parameters by `REDACTED`, always in the same way."""

    def __init__(self, headers: Iterable[str] = (), params: Iterable[str] = ()) -> None:
        """Names given here count as secret beside the built-in ones; case does not matter."""
        self._headers = _HEADERS | {name.lower() for name in headers}
        self._params = _PARAMS | {name.lower() for name in params}
        self._sent: dict[bytes, tuple[str, bool]] = {}
        self._received: dict[bytes, tuple[str, bool]] = {}

    def request_headers(self, raw: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
        """The header lines as text, the values of secret ones replaced."""
        return self._lines(raw, self._sent, request=True)

    def response_headers(self, raw: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
        """The header lines as text; one that merely mentions a token is kept: a replay serves it."""
        return self._lines(raw, self._received, request=False)

    def _lines(
        self, raw: Iterable[tuple[bytes, bytes]], verdicts: dict[bytes, tuple[str, bool]], *, request: bool
    ) -> tuple[tuple[str, str], ...]:
        lines: list[tuple[str, str]] = []
        for name, value in raw:
            verdict = verdicts.get(name)
            if verdict is None:
                text = name.decode("latin-1")
                verdict = text, self.is_secret_header(text, request=request)
                if len(verdicts) < _CACHED_NAMES:
                    verdicts[name] = verdict
            shown = REDACTED if verdict[1] else value.decode("latin-1")
            if name.lower() in _URL_HEADERS:
                shown = self.url(shown)
            lines.append((verdict[0], shown))
        return tuple(lines)

    def is_secret_header(self, name: str, *, request: bool = True) -> bool:
        """Whether the value of a header of that name is replaced."""
        lower = name.lower()
        if lower in self._headers or _SECRET_WORD.search(lower):
            return True
        return request and _TOKEN_WORD.search(lower) is not None

    def url(self, url: str) -> str:
        """The URL with its user information and secret parameters replaced."""
        if "@" in url:
            url = _USERINFO.sub(rf"\1{REDACTED}@", url)
        if "=" in url:
            url = _PAIR.sub(self._pair, url)
        return url

    def _pair(self, match: re.Match[str]) -> str:
        name = unquote_plus(match[2]).lower()
        if name in self._params:
            return f"{match[1]}{match[2]}={REDACTED}"
        value = match[3]
        # A parameter can hold a URL that has parameters itself.
        return f"{match[1]}{match[2]}={_PAIR.sub(self._pair, value)}" if "?" in value else match[0]


def environment(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The variables that may be recorded, and the names of those whose name or value looks secret."""
    kept: dict[str, str] = {}
    withheld: list[str] = []
    for name, value in environ.items():
        if _VARIABLE.search(name) or _VALUE.search(value):
            withheld.append(name)
        else:
            kept[name] = value
    return kept, tuple(sorted(withheld))


def arguments(argv: Iterable[str]) -> tuple[str, ...]:
    """The command line with the values of secret-looking options and arguments replaced."""
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
