"""One table of settings: every environment variable that the agent's process reads.

Precedence: argument of `instrument()`, then environment, then the default below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from .errors import UsageError

Mode: TypeAlias = Literal["record", "replay", "fork", "off"]
Timing: TypeAlias = Literal["none", "recorded"]
MODES: tuple[Mode, ...] = ("record", "replay", "fork", "off")

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
        """The settings of the environment; raises UsageError naming a variable that does not parse."""
        return cls(
            mode=cast("Mode", _choice(environ, "TRACEFORK_MODE", MODES, "record")),
            store=Path(environ.get("TRACEFORK_STORE") or DEFAULT_STORE),
            tape=_path(environ, "TRACEFORK_TAPE"),
            intervention=_path(environ, "TRACEFORK_INTERVENTION"),
            event_body_limit=_size(environ, "TRACEFORK_EVENT_BODY_LIMIT", 32 * 1024),
            redact_headers=_names(environ, "TRACEFORK_REDACT_HEADERS"),
            redact_params=_names(environ, "TRACEFORK_REDACT_PARAMS"),
            redact=_path(environ, "TRACEFORK_REDACT"),
            redact_rules=environ.get("TRACEFORK_REDACT_RULES", ""),
            provider=_flag(environ, "TRACEFORK_PROVIDER", False),
            http_spans=_flag(environ, "TRACEFORK_HTTP_SPANS", True),
            rotate_bytes=_size(environ, "TRACEFORK_ROTATE_BYTES", 64 * 1024 * 1024),
            seal=_flag(environ, "TRACEFORK_SEAL", True),
            sync=cast(
                "Literal['never', 'exchange']",
                _choice(environ, "TRACEFORK_SYNC", ("never", "exchange"), "never"),
            ),
            match=cast(
                "Literal['exact', 'json']", _choice(environ, "TRACEFORK_MATCH", ("exact", "json"), "exact")
            ),
            ignore=_names(environ, "TRACEFORK_IGNORE"),
            timing=cast("Timing", _choice(environ, "TRACEFORK_TIMING", get_args(Timing), "none")),
            allow_hosts=_names(environ, "TRACEFORK_ALLOW_HOSTS"),
            tools=cast("Literal['recorded', 'live', 'refuse'] | None", _tools(environ)),
            draws=_flag(environ, "TRACEFORK_DRAWS", False),
            draws_include=_names(environ, "TRACEFORK_DRAWS_INCLUDE"),
        )


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = environ.get(name) or default
    if value not in allowed:
        raise UsageError(f"{name}={value!r} is not one of {', '.join(filter(None, allowed))}")
    return value


def _tools(environ: Mapping[str, str]) -> str | None:
    return _choice(environ, "TRACEFORK_TOOLS", ("recorded", "live", "refuse", ""), "") or None


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name)
    return Path(value) if value else None


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environ.get(name, "").split(",") if part.strip())


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    value = environ.get(name, "").strip().lower()
    if not value:
        return default
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{name}={value!r} is not a yes or a no: use 1 or 0")


def _size(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    if value == "unlimited":
        return UNLIMITED
    if not value.isdigit():
        raise UsageError(f"{name}={value!r} is not a number of bytes (or `unlimited`)")
    return int(value)
