"""The reading of a user's redaction rules: from TOML, and from the JSON that is recorded beside a run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..errors import UsageError
from ..wire.paths import PathTokens, parse_path
from .bodies import substituted
from .rules import BOTH, KINDS, Kind, Rule, Rules, Side

_SIDES: dict[str, tuple[Side, ...]] = {"request": ("request",), "response": ("response",), "both": BOTH}
_KEYS = (*KINDS, "name", "replace", "digest", "in")
_DEFAULT = "REDACTED"
_WRITTEN = re.compile(r"(?<!\\)[\w :=,;@/-]+")
"""Text in an expression that may stand for itself."""
_TRIED = 8
_LENGTHS = range(12, 45, 4)
_SLOW_NS = 20_000_000
"""Of the thread's own time, so that a busy machine does not count."""


def load(path: Path) -> Rules:
    """Read the rules of a TOML file; raise UsageError naming the file, and the key that is wrong."""
    import tomllib

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"the redaction rules in {path} cannot be read: {why}") from error
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    return parse(told, str(path))


def from_json(text: str) -> Rules:
    """Return the rules that a `Rules.source` holds; raise UsageError for any other text."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise UsageError(f"TRACEFORK_REDACT_RULES: not JSON: {error}") from error
    return parse(told, "TRACEFORK_REDACT_RULES")


def together(first: Rules | None, second: Rules | None) -> Rules | None:
    """Return the rules of both, each once."""
    if first is None or second is None:
        return first or second
    more = tuple(rule for rule in second.rules if rule not in first.rules)
    if not more:
        return first
    tables = json.loads(first.source).get("rule", [])
    rules = [*tables, *(rule for rule in json.loads(second.source).get("rule", ()) if rule not in tables)]
    salt = first.salt or second.salt
    return parse({"rule": rules, "salt": salt}, "the redaction rules together")


def parse(told: Any, where: str) -> Rules:
    """Return the rules of a file's tables; raise UsageError naming `where` and the key that is wrong."""
    if not isinstance(told, Mapping):
        raise UsageError(f"{where}: write rules as [[rule]] tables")
    table = cast("Mapping[str, Any]", told)
    for key in table:
        if key not in ("rule", "salt"):
            raise UsageError(f"{where}: unknown key {key!r}: write rules as [[rule]] tables, and `salt`")
    listed, salt = table.get("rule", []), table.get("salt", "")
    if not isinstance(salt, str):
        raise UsageError(f"{where}: `salt` must be text")
    if not isinstance(listed, Sequence) or not all(isinstance(one, Mapping) for one in listed):
        raise UsageError(f"{where}: `rule` must be [[rule]] tables")
    if not listed:
        raise UsageError(
            f'{where}: there is no [[rule]] in it: write one, such as [[rule]] with json = "**.email"'
        )
    rules = tuple(_rule(one, f"{where}: rule {number}") for number, one in enumerate(listed, 1))
    checked = Rules(rules=rules, salt=salt, source=json.dumps(told, ensure_ascii=False, sort_keys=True))
    _check_settled(checked, where)
    return checked


def _rule(told: Mapping[str, Any], where: str) -> Rule:
    for key, value in told.items():
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key!r}: use {', '.join(_KEYS)}")
        if key == "digest":
            if not isinstance(value, bool):
                raise UsageError(f"{where}: `digest` must be true or false")
        elif not isinstance(value, str):
            raise UsageError(f"{where}: {key!r} must be text")
    kinds: list[Kind] = [kind for kind in KINDS if kind in told]
    if len(kinds) != 1:
        raise UsageError(f"{where}: give exactly one of {', '.join(KINDS)}")
    kind, match = kinds[0], str(told[kinds[0]])
    if not match:
        raise UsageError(f"{where}: {kind!r} is empty")
    if "replace" in told and told.get("digest"):
        raise UsageError(f"{where}: give `replace` or `digest = true`, not both")
    sides = _SIDES.get(str(told.get("in", "both")))
    if sides is None:
        raise UsageError(f"{where}: in = {told['in']!r} is not one of {', '.join(_SIDES)}")
    path: PathTokens = ()
    regex: re.Pattern[str] | None = None
    if kind == "json":
        try:
            path = parse_path(match)
        except UsageError as error:
            raise UsageError(f"{where}: json = {error}") from error
    elif kind == "pattern":
        regex = _compiled(match, where)
    else:
        match = match.lower()
    return Rule(
        name=str(told.get("name") or f"{kind} {match}"),
        kind=kind,
        match=match,
        replace=None if told.get("digest") else str(told.get("replace", _DEFAULT)),
        sides=sides,
        path=path,
        regex=regex,
    )


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: pattern = {pattern!r} is no regular expression: {error}") from error
    if regex.search("") is not None:
        raise UsageError(
            f"{where}: pattern = {pattern!r} matches the empty text, so it would match everywhere"
        )
    if _explodes(regex):
        raise UsageError(
            f"{where}: pattern = {pattern!r} takes exponential time on some texts: "
            "where it repeats a group that repeats itself, take one of the two repetitions out"
        )
    return regex


def _check_settled(rules: Rules, where: str) -> None:
    """Raise UsageError where rules would change what rules have put in: each replay would do it again."""
    for number, rule in enumerate(rules.rules, 1):
        for side in rule.sides:
            once = substituted(
                rules, side, rule.replace if rule.replace is not None else "redacted-" + "0" * 16
            )
            if substituted(rules, side, once) != once:
                raise UsageError(
                    f"{where}: rule {number}: the patterns go on to change {once!r}, which rules put in"
                    ": choose a `replace` that no pattern matches"
                )


def _explodes(regex: re.Pattern[str]) -> bool:
    """Return whether the pattern takes exponential time on one of some short texts that repeat what is in it.

    What is polynomial is far below the limit at these lengths, what is exponential far above it before long.
    """
    written = [*dict.fromkeys(_WRITTEN.findall(regex.pattern))][:_TRIED]
    single = dict.fromkeys("a0 -._@/" + "".join(written))
    units = [*single][: 4 * _TRIED] + [one for one in written if len(one) > 1]
    for before in ("", *(one for one in written if len(one) > 2)):
        for unit in units:
            for end in ("", "\0"):
                for length in _LENGTHS:
                    text = before + unit * (length // len(unit)) + end
                    begun = time.thread_time_ns()
                    regex.search(text)
                    if time.thread_time_ns() - begun > _SLOW_NS:
                        return True
    return False
