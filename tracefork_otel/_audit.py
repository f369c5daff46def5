"""Connections that go round the seam, seen by Python's audit events; they are noted, never stopped."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
import threading
from collections import deque
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from . import _session
from ._session import Session

MODEL_HOSTS = (
    "api.anthropic.com",
    "api.openai.com",
    ".openai.azure.com",
    ".services.ai.azure.com",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "-aiplatform.googleapis.com",
    "api.mistral.ai",
    "api.cohere.com",
    "api.cohere.ai",
    "api.groq.com",
    "api.together.xyz",
    "api.deepseek.com",
    "api.x.ai",
    "api.fireworks.ai",
    "api.perplexity.ai",
    "api.cerebras.ai",
    "openrouter.ai",
    "router.huggingface.co",
    "api-inference.huggingface.co",
)
"""Hosts of model providers, or how their names end; Amazon's is told by its first label."""
OTLP_ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
)
OTLP_PORTS = (4317, 4318)
"""Where an exporter that nobody configured sends to, on this machine."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REMEMBERED = 4
"""Host names that were looked up last: a connection shows an address, a person wants the name."""

_installed = False
_inside = threading.local()
_recent: deque[str] = deque(maxlen=_REMEMBERED)
_noted: set[tuple[str, ...]] = set()
_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARY = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def watch(session: Session) -> None:
    """Connections of this process are watched from now on, as long as it has a session."""
    global _installed
    _noted.clear()
    session.allowed = _allowed(session)
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)  # for good: audit hooks cannot be taken off


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every import, open and exec of the process comes by here, so anything else leaves at once.
    if event != "socket.connect" and event != "socket.getaddrinfo":
        return
    session = _session.current
    if session is None or getattr(_inside, "hook", False):
        return
    _inside.hook = True
    try:
        if event == "socket.getaddrinfo":
            _looked_up(session, args[0])
        elif session.player is not None and session.player.watching:
            _connecting(session, args[0], args[1])
    except Exception as error:
        session.lost("watch of connections", error)
    finally:
        _inside.hook = False


def _looked_up(session: Session, host: Any) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str):
        return
    if name not in _recent:
        _recent.append(name)
    if session.settings.mode != "record" or not is_model_host(name):
        return
    if any(exchange.host == name for exchange in list(session.open.values())):
        return
    caller = _caller()
    _note_once(
        session,
        "incomplete",
        name,
        {
            "host": name,
            "caller": caller,
            "why": f"{caller} calls {name} by a client that is not captured: those calls are not recorded",
        },
    )


def is_model_host(name: str) -> bool:
    """Whether a model provider answers under that name."""
    lower = name.lower().rstrip(".")
    if lower.endswith(".amazonaws.com") and lower.startswith("bedrock-runtime"):
        return True
    return any(lower.endswith(host) if host[0] in ".-" else lower == host for host in MODEL_HOSTS)


def _connecting(session: Session, sock: Any, address: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not sock.type & socket.SOCK_STREAM:
        return  # a datagram socket's connect sends nothing: it is how programs learn their own address
    host, port = str(address[0]), int(address[1])
    if any(_matches(host, port, allowed) for allowed in session.allowed):
        return
    name = next((name for name in reversed(_recent) if host == name or host in _addresses(name)), host)
    _note_once(
        session, "leak", f"{name}:{port}", {"host": name, "address": host, "port": port, "caller": _caller()}
    )


def _note_once(session: Session, kind: str, key: str, attributes: dict[str, object]) -> None:
    if (session.process_id, kind, key) not in _noted:
        _noted.add((session.process_id, kind, key))
        trace_id = session.root.trace_id if session.root is not None else session.launch_id
        session.note(kind, attributes, trace_id)


def _allowed(session: Session) -> tuple[tuple[str, int | None], ...]:
    places: list[tuple[str, int | None]] = [(host, port) for host in _LOOPBACK for port in OTLP_PORTS]
    places += [_place(host) for host in session.settings.allow_hosts]
    places += [_place(os.environ[name]) for name in OTLP_ENDPOINTS if os.environ.get(name)]
    return tuple(places)


def _place(text: str) -> tuple[str, int | None]:
    if text.count(":") > 1 and "//" not in text and "[" not in text:
        return text, None  # an IPv6 address
    url = urlsplit(text if "//" in text else f"//{text}")
    return url.hostname or text, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _matches(host: str, port: int, allowed: tuple[str, int | None]) -> bool:
    name, only = allowed
    if only is not None and port != only:
        return False
    return host == name or host in _addresses(name)


_known_addresses: dict[str, frozenset[str]] = {}


def _addresses(name: str) -> frozenset[str]:
    known = _known_addresses.get(name)
    if known is None:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            known = frozenset(str(entry[4][0]) for entry in found)
        except OSError:
            known = frozenset()
        _known_addresses[name] = known
    return known


def _caller() -> str:
    """The innermost frame that is neither ours nor a library's, as `file:line in function`."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        library = file.startswith(("<frozen", _HERE, *_LIBRARY)) or "-packages" in file
        if not library:
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "a library's own thread"
