"""Matching of requests with recorded ones; and, for one that is none of them, what differs and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from ..exchange import Request
from ..redaction.hidden import compared
from ..redaction.names import REDACTED
from ..store.delta import common_prefix, common_suffix
from ..wire.paths import PathTokens, format_path, parse_path, remove, reordered, shown, walk
from .cause import Cause, are_moved_words, cause_of, of_tempfile, shorten
from .meaning import counts_whole, meant

MatchMode: TypeAlias = Literal["exact", "json"]

# How much nearer another request must be (as a share of the body) before it, and not the one that the tape
# expects next, is taken for the counterpart of a request that drifted.
_EXPECTED_BONUS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a request differs from the recorded request that is nearest to it."""

    step: int
    """The step at which the replay left its tape; the number of steps if the tape was used up."""
    path: str
    """The first JSON path that differs (`method`, `url`, `byte N` outside JSON); empty for a plain repeat."""
    recorded: str | None
    """The value on the tape, shortened around the difference."""
    got: str | None
    """The value that the agent sent, shortened around the difference."""
    nearest: int | None
    """The step of the recorded request that is nearest, or None if none has that method and URL."""
    cause: Cause
    differences: int = 0
    """The number of JSON paths that differ."""
    request: str = ""
    """Method and URL of the request."""
    fingerprint: str = ""
    """The same for each retry of the request."""
    advice: str = ""
    """What to do, where that does not follow from the cause alone."""

    def text(self) -> str:
        """Return one line for a person: where, what, why, and what to do."""
        advice = self.advice or _ADVICE[self.cause]
        if self.cause == "websocket" or not self.path:
            return f"{self.difference()}: {advice}"
        return f"{self.difference()}; {advice}" + (f" '{self.path}'" if self.cause in _CHANCE else "")

    def difference(self) -> str:
        """Return the same, but for what to do."""
        where = f"step {self.step}: {self.request}"
        if self.cause == "websocket":
            return where
        if not self.path:
            return f"{where} is not on the tape ({self.cause})"
        more = f" and {self.differences - 1} more" if self.differences > 1 else ""
        return (
            f"{where} differs from its tape at {self.path}{more} ({self.cause}): "
            f"recorded {self.recorded}, got {self.got}"
        )

    def to_json(self) -> str:
        """Return the explanation as a JSON object, for a span attribute."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Explanation:
        """Return the explanation that `to_json` made this text of."""
        return cls(**json.loads(text))


_CHANCE = ("clock", "id", "random")
_TEMPFILE = (
    "a temporary name, which tempfile makes anew each time and no recording of draws gives back: give the "
    "folder or file a name of your own, or leave this path out: --ignore"
)

_HANDED_ON = (
    "the same parts in another order, as threads or tasks may hand their results on: put them in an order of "
    "your own, such as that in which they were asked for, or record anew"
)

_ADVICE: dict[Cause, str] = {
    "clock": "record with `run --draws`, which gives the clock back, or leave this path out: --ignore",
    "id": "record with `run --draws`, which gives ids back, or leave this path out: --ignore",
    "random": "record with `run --draws`, which gives randomness back, or leave this path out: --ignore",
    "prompt": "the prompt changed: record anew if that is meant",
    "tool_result": "a tool returned something else: record anew, or serve its recorded result",
    "model": "another model is asked for: record anew if that is meant",
    "parameter": "another parameter is sent: record anew if that is meant",
    "missing": "the agent made fewer calls than its tape",
    "extra": "the agent made a call that its tape does not hold (or one more of them): record anew",
    "order": "the same values in another order: try --match json",
    "agent_error": "the agent failed: see its own error",
    "websocket": "a websocket is recorded, not replayed",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recorded request that an unmatched one is compared with."""

    step: int
    request: Request
    used: bool


def fingerprint(request: Request, *, match: MatchMode = "exact", ignore: Sequence[str] = ()) -> str:
    """Return a hex digest that two requests share exactly if they match."""
    paths = parse_paths(tuple(ignore))
    endpoint = f"{request.method.upper()}\n{request.url}\n".encode("utf-8", "surrogatepass")
    if match == "exact" and not paths and counts_whole(request):
        return request.digest(endpoint)
    body = meant(request)
    if match == "json" or paths:
        body = _as_json(body, paths)
    digest = sha256(endpoint)
    digest.update(body)
    return digest.hexdigest()


def in_any_order(match: MatchMode, ignore: Sequence[str]) -> bool:
    """Return whether bodies of JSON match whatever the order of their keys."""
    return match == "json" or bool(ignore)


def identity(request: Request, *, match: MatchMode = "exact", ignore: Sequence[str] = ()) -> str:
    """Return what two requests share exactly if they match and what was replaced in them is the same."""
    return "/".join((fingerprint(request, match=match, ignore=ignore), *request.hidden))


@lru_cache(maxsize=64)
def parse_paths(ignore: tuple[str, ...]) -> tuple[PathTokens, ...]:
    """Return the tokens of each path; raise UsageError naming the first that is none."""
    return tuple(parse_path(path) for path in ignore)


def explain(
    request: Request,
    candidates: Iterable[Candidate],
    *,
    match: MatchMode = "exact",
    ignore: Sequence[str] = (),
) -> Explanation:
    """Explain why the request is none of the unused candidates, by the nearest and its first difference."""
    listed = list(candidates)
    same = _Same(request, match, ignore)
    unused = [candidate for candidate in listed if not candidate.used]
    expected = unused[0].step if unused else len(listed)
    about = Explanation(
        step=expected,
        path="",
        recorded=None,
        got=None,
        nearest=None,
        cause="extra",
        request=f"{request.method} {request.url}",
        fingerprint="/".join((same.key, *request.hidden)),
    )
    for candidate in unused if request.hidden else ():
        other = compared(
            candidate.request.hidden, request.hidden, ignore, any_order=in_any_order(match, ignore)
        ).other
        if other and same.as_(candidate.request):
            return replace(
                about,
                step=candidate.step,
                nearest=candidate.step,
                path=other[0],
                recorded=REDACTED,
                got=f"{REDACTED}, which stands for another value",
                cause="parameter",
                differences=len(other),
                advice="what redaction replaces is told apart by digests: record anew if that is meant, or "
                f"leave it out: --ignore '{other[0]}'",
            )
    for candidate in listed:
        if candidate.used and same.as_(candidate.request):
            return replace(about, nearest=candidate.step)
    pool = [candidate for candidate in unused if _same_endpoint(candidate.request, request)] or [
        candidate for candidate in listed if _same_endpoint(candidate.request, request)
    ]
    if not pool:
        return _other_endpoint(about, request, unused)
    body = meant(request)
    nearest = max(
        pool,
        key=lambda one: _similarity(meant(one.request), body) + _EXPECTED_BONUS * (one.step == expected),
    )
    found = _compared(about, meant(nearest.request), body, match, parse_paths(tuple(ignore)))
    return replace(
        found,
        step=expected if nearest.used else nearest.step,
        nearest=nearest.step,
        cause="extra" if nearest.used and not unused else found.cause,
    )


class _Same:
    """What tells whether requests match one, which is read once however many there are."""

    def __init__(self, request: Request, match: MatchMode, ignore: Sequence[str]) -> None:
        self._request = request
        self._match: MatchMode = match
        self._ignore = ignore
        self._whole = not in_any_order(match, ignore) and counts_whole(request)
        self.key = fingerprint(request, match=match, ignore=ignore)

    def as_(self, other: Request) -> bool:
        """Return whether the other matches the request."""
        one = self._request
        if not _same_endpoint(other, one):
            return False
        if self._whole and other.length != one.length and counts_whole(other):
            return False
        return fingerprint(other, match=self._match, ignore=self._ignore) == self.key


def _same_endpoint(a: Request, b: Request) -> bool:
    return a.method.upper() == b.method.upper() and a.url == b.url


def _other_endpoint(about: Explanation, request: Request, unused: Sequence[Candidate]) -> Explanation:
    """Explain a request whose method and URL no recorded one has, by those of the one that was expected."""
    if not unused:
        return about
    recorded, got = unused[0].request.url, request.url
    path = "url"
    if recorded == got:
        path, recorded, got = "method", unused[0].request.method, request.method
    return _differing(about, path, recorded, got, cause_of(("url",), recorded, got, None, None))


def _similarity(a: bytes, b: bytes) -> float:
    """Return the share (0 to 1) that two bodies have in common at their beginning and end."""
    longest = max(len(a), len(b))
    if a == b or not longest:
        return 1.0
    # By blocks: on the tape of a long conversation thousands of bodies are compared with one that drifted.
    front = common_prefix(a, b)
    return (front + common_suffix(a, b, min(len(a), len(b)) - front)) / longest


# --- comparing two bodies ---


def _parse(body: bytes) -> tuple[bool, Any]:
    try:
        return True, json.loads(body.decode())
    except (ValueError, RecursionError):
        return False, None


def _as_json(body: bytes, ignore: Sequence[PathTokens]) -> bytes:
    """Return a body of JSON in a form in which only what counts can differ; any other as it is."""
    ok, value = _parse(body)
    if not ok:
        return body
    try:
        for path in ignore:
            remove(value, path)
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    except RecursionError:
        return body


def _compared(
    about: Explanation, recorded: bytes, got: bytes, match: MatchMode, ignore: Sequence[PathTokens]
) -> Explanation:
    """Return the explanation with the first difference of two bodies."""
    ok_a, a = _parse(recorded)
    ok_b, b = _parse(got)
    if not (ok_a and ok_b):
        return _compared_bytes(about, recorded, got)
    found: list[tuple[PathTokens, Any, Any]] = []
    try:
        for path in ignore:
            remove(a, path)
            remove(b, path)
        walk(a, b, (), found)
    except RecursionError:
        return _compared_bytes(about, recorded, got)
    if not found:  # equal as JSON, so only the spelling differs: order of keys, spaces, escapes
        compared = _compared_bytes(about, recorded, got)
        return replace(compared, cause="order") if match == "exact" else compared
    path, left, right = found[0]
    is_moved = reordered(left, right)
    cause: Cause = "order" if is_moved else cause_of(path, left, right, a, b)
    if is_moved or (cause in ("prompt", "tool_result") and are_moved_words(left, right)):
        about = replace(about, advice=_HANDED_ON)
    return _differing(about, format_path(path), shown(left), shown(right), cause, differences=len(found))


def _compared_bytes(about: Explanation, recorded: bytes, got: bytes) -> Explanation:
    # Text is compared as text, and bytes that are none are shown as escapes.
    left, right = recorded.decode("utf-8", "backslashreplace"), got.decode("utf-8", "backslashreplace")
    path = f"byte {common_prefix(recorded, got)}"
    return _differing(about, path, left, right, cause_of((), left, right, None, None))


def _differing(
    about: Explanation, path: str, recorded: str, got: str, cause: Cause, *, differences: int = 1
) -> Explanation:
    """Return the explanation with a place that differs, its values shortened."""
    if cause != "model" and of_tempfile(recorded, got):
        about, cause = replace(about, advice=_TEMPFILE), cause if cause in _CHANCE else "random"
    recorded, got = shorten(recorded, got)
    return replace(about, path=path, recorded=recorded, got=got, cause=cause, differences=differences)
