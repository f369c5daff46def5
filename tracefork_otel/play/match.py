"""Matching of requests with recorded ones; and, for one that is none of them, what differs and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from ..exchange import Request
from ..wire.paths import PathTokens, format_path, parse_path, remove, reordered, shown, walk
from .cause import Cause, cause_of, common_prefix, shorten

MatchMode: TypeAlias = Literal["exact", "json"]
_BOUNDARY = re.compile(r"multipart/[^;]+;.*?boundary=\"?([^\";,]+)", re.IGNORECASE)

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
        where = f"step {self.step}: {self.request}"
        if not self.path:
            return f"{where} is not on the tape ({self.cause}): {self.advice or _ADVICE[self.cause]}"
        more = f" and {self.differences - 1} more" if self.differences > 1 else ""
        return (
            f"{where} differs from its tape at {self.path}{more} ({self.cause}): "
            f"recorded {self.recorded}, got {self.got}; {self.advice or _ADVICE[self.cause]}"
            + (f" '{self.path}'" if self.cause in _CHANCE else "")
        )

    def to_json(self) -> str:
        """Return the explanation as a JSON object, for a span attribute."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Explanation:
        """Return the explanation that `to_json` made this text of."""
        return cls(**json.loads(text))


_CHANCE = ("clock", "id", "random")

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
    body = _comparable(request, paths) if match == "json" or paths else request.body
    digest = sha256(f"{request.method.upper()}\n{request.url}\n".encode("utf-8", "surrogatepass"))
    digest.update(body)
    return digest.hexdigest()


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
        fingerprint=fingerprint(request, match=match, ignore=ignore),
    )
    for candidate in listed:
        if candidate.used and _same(candidate.request, request, match, ignore):
            return replace(about, nearest=candidate.step)
    pool = [candidate for candidate in unused if _same_endpoint(candidate.request, request)] or [
        candidate for candidate in listed if _same_endpoint(candidate.request, request)
    ]
    if not pool:
        return _other_endpoint(about, request, unused)
    nearest = max(
        pool,
        key=lambda one: (
            _similarity(one.request.body, request.body) + _EXPECTED_BONUS * (one.step == expected)
        ),
    )
    found = _compared(about, nearest.request, request, match, parse_paths(tuple(ignore)))
    return replace(
        found,
        step=expected if nearest.used else nearest.step,
        nearest=nearest.step,
        cause="extra" if nearest.used and not unused else found.cause,
    )


def _same(a: Request, b: Request, match: MatchMode, ignore: Sequence[str]) -> bool:
    if not _same_endpoint(a, b):
        return False
    if match == "exact" and not ignore:
        return a.body == b.body
    return fingerprint(a, match=match, ignore=ignore) == fingerprint(b, match=match, ignore=ignore)


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
    shortest = min(len(a), len(b))
    front = common_prefix(a, b)
    back = min(common_prefix(a[::-1], b[::-1]), shortest - front)
    return (front + back) / longest


# --- comparing two bodies ---


def _parse(body: bytes) -> tuple[bool, Any]:
    try:
        return True, json.loads(body.decode())
    except (ValueError, RecursionError):
        return False, None


def _comparable(request: Request, ignore: Sequence[PathTokens]) -> bytes:
    """Return the body in a form in which only what counts can differ."""
    ok, value = _parse(request.body)
    if ok:
        try:
            for path in ignore:
                remove(value, path)
            return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        except RecursionError:
            return request.body
    content_type = next((value for name, value in request.headers if name.lower() == "content-type"), "")
    # A multipart boundary is random by nature: with `json` it counts as little as the order of keys does.
    if boundary := _BOUNDARY.match(content_type):
        return request.body.replace(boundary[1].encode(), b"boundary")
    return request.body


def _compared(
    about: Explanation, recorded: Request, got: Request, match: MatchMode, ignore: Sequence[PathTokens]
) -> Explanation:
    """Return the explanation with the first difference of two bodies."""
    ok_a, a = _parse(recorded.body)
    ok_b, b = _parse(got.body)
    if not (ok_a and ok_b):
        return _compared_bytes(about, recorded.body, got.body)
    found: list[tuple[PathTokens, Any, Any]] = []
    try:
        for path in ignore:
            remove(a, path)
            remove(b, path)
        walk(a, b, (), found)
    except RecursionError:
        return _compared_bytes(about, recorded.body, got.body)
    if not found:  # equal as JSON, so only the spelling differs: order of keys, spaces, escapes
        compared = _compared_bytes(about, recorded.body, got.body)
        return replace(compared, cause="order") if match == "exact" else compared
    path, left, right = found[0]
    cause: Cause = "order" if reordered(left, right) else cause_of(path, left, right, a, b)
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
    recorded, got = shorten(recorded, got)
    return replace(about, path=path, recorded=recorded, got=got, cause=cause, differences=differences)
