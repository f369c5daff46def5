"""Arguments, results and exceptions of a tool as text, and back to what they were where that can be exact."""

from __future__ import annotations

import builtins
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..errors import ToolFailed
from ..wire.dumps import dumps, is_utf8

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_RECEIVERS = ("self", "cls")
"""Names of a method's first parameter, which is no argument of the tool."""
_SCALARS = (str, bool, int, float, type(None))
_ENDINGS: tuple[type[BaseException], ...] = (SystemExit, KeyboardInterrupt)
"""What ends a program without being an Exception, and can be raised again."""


def is_exact(value: Any) -> bool:
    """Return whether `json` gives back an equal value of the same types all the way down."""
    if type(value) in _SCALARS:
        return True
    if type(value) is list:
        return all(map(is_exact, value))
    return type(value) is dict and all(type(key) is str and is_exact(item) for key, item in value.items())


def exact(value: object) -> str | None:
    """Return the value as JSON, None where that would give back something else (a tuple, a dataclass)."""
    try:
        return dumps(value) if is_exact(value) else None
    except (ValueError, RecursionError):  # too deep, or a number with more digits than are read
        return None


def result_text(result: object) -> tuple[str, str]:
    """Return in which form a span says the result, and the result in that form.

    `string` is a text as it stands, `value` is JSON, `text` is what can only be read: the nearest JSON, or a
    repr.
    """
    found = exact(result)
    if found is not None:
        return ("string", result) if type(result) is str and is_utf8(result) else ("value", found)
    try:
        return "text", dumps(result)
    except (TypeError, ValueError, RecursionError):
        return "text", shown(result)


def shown(value: object) -> str:
    """Return the value's repr without addresses of memory; its type where it has none."""
    try:
        text = repr(value)
    except Exception:
        text = object.__repr__(value)
    return _ADDRESS.sub("", text)


def arguments_text(bound: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Return the arguments as a JSON object, and the names of those that are in it by their repr alone."""
    described: dict[str, object] = {}
    by_text: list[str] = []
    for name, value in bound.items():
        inexact: list[object] = []
        try:
            plain = _described(value, inexact)
            dumps(plain)
        except (ValueError, RecursionError):
            plain, inexact = shown(value), [value]
        if inexact and not described and name in _RECEIVERS:
            continue
        described[name] = plain
        if inexact:
            by_text.append(name)
    return dumps(described), tuple(by_text)


def _described(value: Any, inexact: list[object]) -> object:
    """Return the value as JSON that is equal for equal ones; add what can only be shown to `inexact`."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, list | tuple):
        return [_described(item, inexact) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_described(item, inexact) for item in value), key=dumps)
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: _described(item, inexact) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _described(getattr(value, one.name), inexact) for one in fields(value)}
    inexact.append(value)
    return shown(value)


def error_text(error: BaseException) -> str:
    """Return the exception as JSON: where its type is defined, its message, its arguments if JSON."""
    kind = type(error)
    try:
        message = str(error)
    except Exception:
        message = shown(error)
    # A file's error keeps the name of the file apart from its arguments, but takes it as one.
    args = list(error.__reduce__()[1] if type(error).__reduce__ is OSError.__reduce__ else error.args)
    state = {key: value for key, value in vars(error).items() if exact(value)}
    return dumps(
        {
            "module": kind.__module__,
            "name": kind.__qualname__,
            "message": message,
            "args": args if exact(args) is not None else None,
            **({"state": state} if state else {}),
            **({} if isinstance(error, (Exception, *_ENDINGS)) else {"cancelled": True}),
        }
    )


def was_cancelled(text: str) -> bool:
    """Return whether this is an exception with which somebody outside of the tool ended it."""
    return bool(json.loads(text).get("cancelled"))


def error_of(text: str) -> BaseException:
    """Return the exception that `error_text` made this of, of the same type where this process has it.

    Nothing is imported, and nothing but the exception's own type is called by a recorded name. Where that is
    not loaded, or cannot be made, a ToolFailed says what it was.
    """
    recorded: dict[str, Any] = json.loads(text)
    message, args = recorded["message"], recorded["args"]
    kind = _type_of(recorded["module"], recorded["name"])
    found = None if kind is None else _made(kind, message, [message] if args is None else args)
    if found is None:
        return ToolFailed(message, kind=f"{recorded['module']}.{recorded['name']}")
    vars(found).update(recorded.get("state", {}))
    return found


def _type_of(module: str, name: str) -> type[BaseException] | None:
    """Return the exception type of that name in a loaded module; no module is asked to make it up."""
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if isinstance(found, type) and issubclass(found, (Exception, *_ENDINGS)):
        return found
    return None


def _made(kind: Any, message: str, args: list[Any]) -> BaseException | None:
    """Return an exception of that type and message, made without its `__init__` if need be, or None."""
    for make, given in ((kind, args), (kind.__new__, args), (kind.__new__, [message])):
        try:
            error = make(*given) if make is kind else make(kind, *given)
            if make is not kind:
                error.args = tuple(given)
            if type(error) is kind and str(error) == message:
                return error
        except Exception:
            continue
    try:
        # What its message is made of is not here: `except` still finds it, and it says what it said.
        says = {"__str__": lambda self: message, "__module__": kind.__module__}
        named: Any = type(kind)(kind.__name__, (kind,), says)
        error = named.__new__(named, message)
        error.args = (message,)
    except Exception:
        return None
    return error
