"""A flag as what it asks for declares it, and the values of flags: `@FILE`, JSON, and PATH=VALUE."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tracefork_otel.errors import UsageError
from tracefork_otel.wire.paths import parse_path


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a command that asks for an edit or an oracle, or says more of one."""

    name: str
    help: str
    metavar: str | None = None
    """What its value is called; None for a switch."""
    alone: str | None = None
    """Of a flag that only says more: what is wrong where it is given by itself."""

    def __str__(self) -> str:
        return f"--{self.name.replace('_', '-')}"


def text_value(given: str, flag: object) -> str:
    """Return the value, or the text of the file that it names by `@`; `@@` is a plain `@`."""
    if given.startswith("@@"):
        return given[1:]
    if not given.startswith("@"):
        return given
    try:
        return file_bytes(given[1:], flag).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: {given[1:]} is not UTF-8 at byte {error.start}") from None


def file_bytes(path: str, flag: object) -> bytes:
    """Return the file's bytes; UsageError names flag and file."""
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a name with a NUL in it, a home of nobody
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{flag}: cannot read {path}: {why}") from None


def json_value(given: str, where: object) -> object:
    """Return the JSON value; UsageError says where it is wrong."""
    try:
        return json.loads(given, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{where} is not valid JSON at {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not valid JSON: {error}") from None


def json_or_text(given: str) -> object:
    """Return the JSON value where it is JSON, else the text itself."""
    try:
        return json.loads(given, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return given


def assignment(given: str, flag: object, example: str) -> tuple[str, object]:
    """Return path and value of PATH=VALUE, whose value is JSON where it is JSON, else the text itself."""
    for at, character in enumerate(given):
        if character != "=":
            continue
        try:
            parse_path(given[:at])
        except UsageError:
            continue  # an equals sign inside a quoted name of the path
        path, value = given[:at].strip(), given[at + 1 :]
        if value.startswith("@") and not value.startswith("@@"):
            read = text_value(value, flag)
            return path, json_value(read, value[1:]) if value.endswith(".json") else read
        return path, json_or_text(text_value(value, flag))
    raise UsageError(f"{flag} {given!r} is not PATH=VALUE: write it like {example}")


def _refuse(name: str) -> None:
    """Refuse NaN and Infinity: words of Python's parser, not JSON."""
    raise ValueError(name)
