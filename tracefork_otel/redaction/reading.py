"""The reading of a user's redaction rules: from TOML, and from the JSON that is recorded beside a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from .. import shapes
from ..errors import UsageError
from ..wire.paths import PathTokens, parse_path
from .bodies import substituted
from .growth import Explodes, Growth, anchored, growth
from .keys import FIELDS, PAIRS, PATHS
from .keys import forms as forms_of_keys
from .passwords import FORMS, compiled
from .rules import BOTH, KINDS, Kind, Rule, Rules, Side, of_pattern

_SIDES: dict[str, tuple[Side, ...]] = {"request": ("request",), "response": ("response",), "both": BOTH}
_KEYS = (*KINDS, "name", "replace", "digest", "in")
_DEFAULT = "REDACTED"


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
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise UsageError(f"{path}: not TOML: {error}") from error
    return parse(told, str(path))


def from_json(text: str) -> Rules:
    """Return the rules that a `Rules.source` holds; raise UsageError for any other text."""
    try:
        told = shapes.parsed(text)
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
    rules = tuple(
        rule for number, one in enumerate(listed, 1) for rule in _rules(one, f"{where}: rule {number}")
    )
    checked = Rules(rules=rules, salt=salt, source=json.dumps(told, ensure_ascii=False, sort_keys=True))
    _check_settled(checked, where)
    return checked


def of_keys() -> Rules:
    """Return the rules that replace known kinds of keys in bodies."""
    return parse({"rule": [{"keys": True}]}, "the rules for keys")


def _rules(told: Mapping[str, Any], where: str) -> tuple[Rule, ...]:
    """Return the rules of a table: one, but for `keys = true`."""
    if "keys" not in told:
        return (_rule(told, where),)
    if told != {"keys": True}:
        raise UsageError(f"{where}: `keys = true` stands alone")
    forms = [
        *forms_of_keys(),
        *(((f"{name}=",), re.compile(pair)) for name, pair in zip(FIELDS, PAIRS, strict=True)),
    ]
    patterns = (
        *(of_pattern("keys", form, anchored(anchors)) for anchors, form in forms),
        *(of_pattern("keys", compiled(one.pattern), anchored(one.anchors, one.signed())) for one in FORMS),
    )
    paths = (
        Rule(name="keys", kind="json", match=path, replace=None, sides=BOTH, path=parse_path(path))
        for path in PATHS
    )
    return (*patterns, *paths)


def _rule(told: Mapping[str, Any], where: str) -> Rule:
    for key, value in told.items():
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key!r}: use {', '.join(_KEYS)}, keys")
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
    grows: Growth | None = None
    if kind == "json":
        try:
            path = parse_path(match)
        except UsageError as error:
            raise UsageError(f"{where}: json = {error}") from error
    elif kind == "pattern":
        regex, grows = _compiled(match, where)
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
        growth=grows,
    )


def _compiled(pattern: str, where: str) -> tuple[re.Pattern[str], Growth]:
    try:
        regex = re.compile(pattern)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"{where}: pattern = {pattern!r} is no regular expression: {error}") from error
    if regex.search("") is not None:
        raise UsageError(
            f"{where}: pattern = {pattern!r} matches the empty text, so it would match everywhere"
        )
    try:
        return regex, growth(regex)
    except Explodes:
        raise UsageError(
            f"{where}: pattern = {pattern!r} takes exponential time on some texts: "
            "where it repeats a group that repeats itself, take one of the two repetitions out"
        ) from None


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
