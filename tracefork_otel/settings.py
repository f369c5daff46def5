"""One table of settings: every environment variable that the agent's process reads.

Precedence: argument of `instrument()`, then environment, then the default below.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from .errors import UsageError

Mode: TypeAlias = Literal["record", "replay", "fork", "off"]
Timing: TypeAlias = Literal["none", "recorded"]

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""OTel's own: asks for conversations on spans; bodies are parsed in the agent's process only then."""
_CONTENT_ON = ("span_only", "span_and_event", "true")
"""The convention's values that mean spans, and the one that instrumentations took before it had them."""
_CONTENT_LIMIT = 8 * 1024
"""Bytes of a conversation on a span: 512 spans of one batch fit the 4 MiB that receivers take by gRPC."""
DEFAULT_STORE = ".tracefork"
UNLIMITED = 1 << 62
_ORIGIN = re.compile(r"https?://[^/?#,=@\s]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the agent's process does, and where it writes."""

    mode: Mode = "record"
    """TRACEFORK_MODE: record, replay, fork or off."""
    store: Path = Path(DEFAULT_STORE)
    """TRACEFORK_STORE: the store's directory; else the nearest `.tracefork`, upwards from here."""
    tape: Path | None = None
    """TRACEFORK_TAPE: the tape that a replay or a fork is served from; set by the backend."""
    intervention: Path | None = None
    """TRACEFORK_INTERVENTION: what a fork changes, as a JSON file; set by the backend."""
    event_body_limit: int = 0
    """TRACEFORK_EVENT_BODY_LIMIT: body bytes inline on span events, or `unlimited`; the store gets all.

    None by default: what the agent says to its model must not reach a backend that never had it.
    """
    redact_headers: tuple[str, ...] = ()
    """TRACEFORK_REDACT_HEADERS: further header names whose values are replaced, comma-separated."""
    redact_params: tuple[str, ...] = ()
    """TRACEFORK_REDACT_PARAMS: further URL parameters whose values are replaced, comma-separated."""
    redact: Path | None = None
    """TRACEFORK_REDACT: a TOML file of rules for headers, URL parameters, JSON paths and patterns."""
    redact_bodies: bool | None = None
    """TRACEFORK_REDACT_BODIES: 1 replaces keys of all known kinds in bodies, too; 0 not even those of MCP
    servers and of OAuth in the places that are known for them."""
    redact_rules: str = ""
    """TRACEFORK_REDACT_RULES: such rules as JSON; set by the commands for the agents that they start."""
    provider: bool = False
    """TRACEFORK_PROVIDER: a process without a tracer provider gets one, so that its spans are kept."""
    http_spans: bool = True
    """TRACEFORK_HTTP_SPANS: also turn on the stock HTTP client instrumentation (0 to leave it)."""
    sites: bool = True
    """TRACEFORK_SITES: keep where in the agent's code each exchange was asked for (0 to leave it out)."""
    rotate_bytes: int = 64 * 1024 * 1024
    """TRACEFORK_ROTATE_BYTES: size at which a WAL is closed and sealed in the background."""
    seal: bool = True
    """TRACEFORK_SEAL: seal in this process (needs pyarrow); 0 leaves it to the next opener of the store."""
    sync: Literal["never", "exchange"] = "never"
    """TRACEFORK_SYNC: `exchange` adds an fdatasync after each exchange, against loss of power."""
    match: Literal["exact", "json"] = "exact"
    """TRACEFORK_MATCH: how a replay compares request bodies: byte for byte, or as parsed JSON."""
    ignore: tuple[str, ...] = ()
    """TRACEFORK_IGNORE: JSON paths left out of that comparison, comma-separated; implies `json`."""
    timing: Timing = "none"
    """TRACEFORK_TIMING: `recorded` makes a replay wait as long as the recording did, chunk by chunk."""
    allow_hosts: tuple[str, ...] = ()
    """TRACEFORK_ALLOW_HOSTS: hosts that a replay may connect to, comma-separated."""
    skip_hosts: tuple[str, ...] = ()
    """TRACEFORK_SKIP_HOSTS: further `HOST[:PORT][/PATH]` left out as housekeeping, comma-separated."""

    moved: tuple[tuple[str, str], ...] = ()
    """TRACEFORK_MOVED: `OLD=NEW`, comma-separated: what a fork sends to the address OLD goes to NEW."""

    state: tuple[Path, ...] = ()
    """TRACEFORK_STATE: files and folders that are kept at the start, for replays and forks to begin with;
    separated by `:`."""
    state_limit: int = 256 * 2**20
    """TRACEFORK_STATE_LIMIT: bytes that are kept of them in all, or `unlimited`; each replay gets a copy."""
    private: Path | None = None
    """TRACEFORK_PRIVATE: the copies of its files that an agent works on; set by the backend."""
    imported: Path | None = None
    """TRACEFORK_IMPORTED: where the agent's first process tells what it imported; set by the backend."""

    tools: Literal["recorded", "live", "refuse"] | None = None
    """TRACEFORK_TOOLS: what calls of `@tool` functions get in a replay or a fork: their `recorded` results
    (the default where there are any), a `live` call, or, with `refuse`, an error where none is recorded."""

    draws: bool = False
    """TRACEFORK_DRAWS: record clocks, ids and randomness too; set by `run --draws`."""
    draws_include: tuple[str, ...] = ()
    """TRACEFORK_DRAWS_INCLUDE: installed modules whose draws count as the agent's own, comma-separated."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of the environment; raise UsageError naming a variable that does not parse."""
        values: dict[str, Any] = {"store": found_store()}
        for name, read in _READERS.items():
            variable = f"TRACEFORK_{name.upper()}"
            text = environ.get(variable, "")
            if text.strip():
                values[name] = read(variable, text)
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """Return the variables that `from_env` reads these settings from."""
        told = {f"TRACEFORK_{field.name.upper()}": getattr(self, field.name) for field in fields(self)}
        return {name: _spelled(value) for name, value in told.items() if value not in (None, "", ())}

    @property
    def content_limit(self) -> int:
        """How many bytes of the agent's own texts a span may carry to the user's exporters."""
        return max(self.event_body_limit, _CONTENT_LIMIT if content_wanted() else 0)


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        if value and isinstance(value[0], tuple):
            return ",".join("=".join(pair) for pair in cast("tuple[tuple[str, str], ...]", value))
        many = cast("tuple[object, ...]", value)
        return (os.pathsep if any(isinstance(one, Path) for one in many) else ",").join(map(_spelled, many))
    if isinstance(value, Path):
        return str(value.absolute())
    return str(int(value) if isinstance(value, bool) else value)


def found_store() -> Path:
    """Return the nearest `.tracefork`, looking upwards as git does; the current folder's if there is none.

    One of another user's, or in a folder that everybody may write to, is not taken: it would get prompts.
    """
    here = Path(DEFAULT_STORE)
    with suppress(OSError):
        if not here.is_dir():
            folder = Path.cwd()
            for parent in folder.parents:
                found = parent / DEFAULT_STORE
                if (
                    found.is_dir()
                    and found.stat().st_uid == os.getuid()
                    and not parent.stat().st_mode & 0o002
                ):
                    return found
    return here


def content_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for message content on spans."""
    return environ.get(CONTENT_VARIABLE, "").strip().lower() in _CONTENT_ON


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(variable: str, text: str) -> str:
        if text not in allowed:
            raise UsageError(f"{variable}={text!r} is not one of {', '.join(allowed)}")
        return text

    return read


def _text(variable: str, text: str) -> str:
    return text


def _path(variable: str, text: str) -> Path:
    return Path(text)


def _paths(variable: str, text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(os.pathsep) if part)


def _names(variable: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _origins(variable: str, text: str) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for part in _names(variable, text):
        pair = tuple(one.strip().rstrip("/").lower() for one in part.split("="))
        if len(pair) != 2 or not all(_ORIGIN.fullmatch(one) for one in pair):
            raise UsageError(f"{variable}: {part!r} is not OLD=NEW, such as http://old:4000=http://new:4000")
        found.append((pair[0], pair[1]))
    return tuple(found)


def yes(variable: str, text: str) -> bool:
    """Return whether the text says yes; raise UsageError naming the variable where it says neither."""
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{variable}={value!r} is not a yes or a no: use 1 or 0")


def _size(variable: str, text: str) -> int:
    value = text.strip()
    if value == "unlimited":
        return UNLIMITED
    if not value.isdecimal() or len(value) > 18:
        raise UsageError(f"{variable}={value!r} is not a number of bytes (or `unlimited`)")
    return int(value)


_READERS: Mapping[str, Callable[[str, str], object]] = {
    "mode": _one_of(*get_args(Mode)),
    "store": _path,
    "tape": _path,
    "intervention": _path,
    "event_body_limit": _size,
    "redact_headers": _names,
    "redact_params": _names,
    "redact": _path,
    "redact_bodies": yes,
    "redact_rules": _text,
    "provider": yes,
    "http_spans": yes,
    "sites": yes,
    "rotate_bytes": _size,
    "seal": yes,
    "sync": _one_of("never", "exchange"),
    "match": _one_of("exact", "json"),
    "ignore": _names,
    "timing": _one_of(*get_args(Timing)),
    "allow_hosts": _names,
    "skip_hosts": _names,
    "moved": _origins,
    "state": _paths,
    "state_limit": _size,
    "private": _path,
    "imported": _path,
    "tools": _one_of("recorded", "live", "refuse"),
    "draws": yes,
    "draws_include": _names,
}
"""How the variable of each setting, `TRACEFORK_` and its name, is read."""
