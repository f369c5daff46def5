"""Databases that SQL opens by itself, `ATTACH` and `VACUUM INTO`: the copies are opened by them too."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeAlias, cast

Lead: TypeAlias = Callable[[str], str | None]
"""Says which file is opened instead of the one of this name; None for that one itself."""

_OPENS = re.compile(
    r"""(?:\s|--[^\n]*\n|/\*.*?\*/)*
    (?: ATTACH\s+(?:DATABASE\s+)?(?=.*\bAS\b) | VACUUM\s+(?:\w+\s+)?INTO\s+ )
    (?P<file> '(?:[^']|'')*' | "(?:[^"]|"")*" | \?\d* | [:@$]\w+ | \w+ )
    (?= \s+AS\b | \s*;?\s*$ )""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_MAY_OPEN = re.compile(r"attach|vacuum", re.IGNORECASE)


def leading(given: Any, lead: Lead) -> Any:
    """Return a class of connections like the given one, whose SQL is led; what is no such class as it is."""
    if not (isinstance(given, type) and issubclass(given, sqlite3.Connection)):
        return given

    @cache
    def cursors(kind: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, sqlite3.Cursor)):
            return kind
        return _like(kind, _running(kind, lead))

    theirs: Any = given.cursor
    is_own = theirs is not sqlite3.Connection.cursor

    def cursor(self: Any, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs or not is_own:
            factory = args[0] if args else kwargs.get("factory", sqlite3.Cursor)
            return theirs(self, cursors(factory))
        made = theirs(self)
        with suppress(TypeError):  # it is one of the built-in class
            made.__class__ = cursors(type(made))
        return made

    return _like(given, {**_running(given, lead), "cursor": cursor})


def _like(given: Any, methods: Mapping[str, Any]) -> Any:
    names = {name: getattr(given, name) for name in ("__module__", "__qualname__", "__doc__")}
    try:
        return type(given)(given.__name__, (given,), {**names, **methods})
    except TypeError:  # it lets nobody derive from it
        return given


def _running(given: Any, lead: Lead) -> dict[str, Any]:
    """Return the methods that run SQL: those of the class, with other names of files."""

    def execute(self: Any, sql: Any, *parameters: Any) -> Any:
        led = _led(sql, parameters, lead) if isinstance(sql, str) else None
        if led is None:
            return given.execute(self, sql, *parameters)
        with_copy, values, name, copy = led
        with _Naming(name, copy):
            return given.execute(self, with_copy, *values)

    def executescript(self: Any, script: Any) -> Any:
        if not isinstance(script, str) or _MAY_OPEN.search(script) is None:
            return given.executescript(self, script)
        found = [(statement, _led(statement, (), lead)) for statement in _statements(script)]
        text = "".join(statement if led is None else led[0] for statement, led in found)
        with _Naming(*next((led[2:] for _, led in found if led is not None), ("", ""))):
            return given.executescript(self, text)

    return {"execute": execute, "executescript": executescript}


class _Naming:
    """Has an error tell of the file by the name that the agent gave it."""

    def __init__(self, name: str, copy: str) -> None:
        self._name, self._copy = name, copy

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        if isinstance(error, sqlite3.Error) and self._copy:
            error.args = tuple(
                one.replace(self._copy, self._name) if isinstance(one, str) else one for one in error.args
            )


def _led(sql: str, parameters: tuple[Any, ...], lead: Lead) -> tuple[str, tuple[Any, ...], str, str] | None:
    """Return the statement and its parameters with the copy in them, the file and the copy; None for none."""
    found = _OPENS.match(sql)
    if found is None:
        return None
    said: str = found["file"]
    if said[0] not in "?:@$":
        mark = said[0] if said[0] in "'\"" else ""
        name = said[1:-1].replace(mark * 2, mark) if mark else said
        copy = lead(name)
        if copy is None:
            return None
        quoted = copy.replace("'", "''")
        return f"{sql[: found.start('file')]}'{quoted}'{sql[found.end('file') :]}", parameters, name, copy
    values = parameters[0] if parameters else ()
    key: Any = int(said[1:] or 1) - 1 if said[0] == "?" else said[1:]
    if isinstance(values, Mapping):
        changed: Any = dict(cast("Mapping[Any, Any]", values))
    elif isinstance(values, Sequence) and isinstance(key, int) and key < len(cast("Sequence[Any]", values)):
        changed = list(cast("Sequence[Any]", values))
    else:
        return None
    try:
        name = changed[key]
    except KeyError:
        return None
    copy = lead(name) if isinstance(name, str) else None
    if copy is None:
        return None
    changed[key] = copy
    return sql, (changed,), name, copy


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, which are together the script."""
    begun = ""
    for part in re.split(r"(?<=;)", script):
        begun += part
        if sqlite3.complete_statement(begun):
            yield begun
            begun = ""
    yield begun
