"""One table of settings: every environment variable that the agent's process reads.

Precedence: argument of `instrument()`, then environment, then the default below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from .errors import UsageError

Mode: TypeAlias = Literal["record", "replay", "fork", "off"]
Timing: TypeAlias = Literal["none", "recorded"]

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""OTel's own: asks for conversations on spans; bodies are parsed in the agent's process only then."""
DEFAULT_STORE = ".tracefork"
UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the agent's process does, and where it writes."""

    mode: Mode = "record"
    """TRACEFORK_MODE: record, replay, fork or off."""
    store: Path = Path(DEFAULT_STORE)
    """TRACEFORK_STORE: the store's directory."""
    tape: Path | None = None
    """TRACEFORK_TAPE: the tape that a replay or a fork is served from; set by the backend."""
    intervention: Path | None = None
    """TRACEFORK_INTERVENTION: what a fork changes, as a JSON file; set by the backend."""
    event_body_limit: int = 32 * 1024
    """TRACEFORK_EVENT_BODY_LIMIT: body bytes inline on span events, or `unlimited`; the store gets all."""
    redact_headers: tuple[str, ...] = ()
    """TRACEFORK_REDACT_HEADERS: further header names whose values are replaced, comma-separated."""
    redact_params: tuple[str, ...] = ()
    """TRACEFORK_REDACT_PARAMS: further URL parameters whose values are replaced, comma-separated."""
    redact: Path | None = None
    """TRACEFORK_REDACT: a TOML file of rules for headers, URL parameters, JSON paths and patterns."""
    redact_rules: str = ""
    """TRACEFORK_REDACT_RULES: such rules as JSON; set by the commands for the agents that they start."""
    provider: bool = False
    """TRACEFORK_PROVIDER: a process without a tracer provider gets one, so that its spans are kept."""
    http_spans: bool = True
    """TRACEFORK_HTTP_SPANS: also turn on the stock HTTP client instrumentation (0 to leave it)."""
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
        values: dict[str, Any] = {}
        for name, read in _READERS.items():
            variable = f"TRACEFORK_{name.upper()}"
            text = environ.get(variable, "")
            if text.strip():
                values[name] = read(variable, text)
        return cls(**values)


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


def _names(variable: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _flag(variable: str, text: str) -> bool:
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
    if not value.isdigit():
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
    "redact_rules": _text,
    "provider": _flag,
    "http_spans": _flag,
    "rotate_bytes": _size,
    "seal": _flag,
    "sync": _one_of("never", "exchange"),
    "match": _one_of("exact", "json"),
    "ignore": _names,
    "timing": _one_of(*get_args(Timing)),
    "allow_hosts": _names,
    "tools": _one_of("recorded", "live", "refuse"),
    "draws": _flag,
    "draws_include": _names,
}
"""How the variable of each setting, `TRACEFORK_` and its name, is read."""
