"""Connections that go round the seam, seen by Python's audit events; they are noted, never stopped."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from ..session import current
from ..session.session import Session
from ..wire.registry import is_model_host

MODEL_PROGRAMS = ("aider", "claude", "codex", "copilot", "cursor-agent", "gemini", "llm", "opencode")
"""Programs that call a model themselves, whatever their arguments say."""
FETCHING_PROGRAMS = ("curl", "http", "https", "wget", "xh")
"""Programs that request the URLs among their arguments."""
SHELLS = ("bash", "dash", "sh", "zsh")
HTTP_CLIENTS = (
    *("aiohttp", "boto3", "botocore", "curl_cffi", "grpc", "http", "httplib2", "pycurl", "requests"),
    *("tornado", "urllib", "urllib3", "websockets"),
)
"""Packages that speak HTTP without httpx, as a person would name them."""
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
"""How many looked-up host names are kept: a connection shows an address, a person wants the name."""

_STARTED = ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "os.spawn")
_URL = re.compile(r"http(s?)://(?:[^/@\s'\"]*@)?(\[[^\]\s]+\]|[^/:?#\s'\";|&)]+)(?::(\d+))?", re.I)
_WORDS = re.compile(r"[^\s'\";|&()]+")

_installed = False
_inside = threading.local()
_recent: deque[str] = deque(maxlen=_REMEMBERED)
_noted: set[tuple[str, ...]] = set()
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def watch(session: Session) -> None:
    """Watch the connections of this process from now on, as long as it has a session."""
    global _installed
    _noted.clear()
    session.allowed = _allowed(session)
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)  # for good: audit hooks cannot be taken off


def _hook(event: str, args: tuple[Any, ...]) -> None:
    # Every import, open and exec of the process comes by here, so anything else leaves at once.
    if event != "socket.connect" and event != "socket.getaddrinfo" and event not in _STARTED:
        return
    session = current.session
    if session is None or getattr(_inside, "hook", False):
        return
    _inside.hook = True
    try:
        watching = session.player is not None and session.player.watching
        if event == "socket.getaddrinfo":
            _looked_up(session, args[0], watching)
        elif event == "socket.connect":
            if watching:
                _connecting(session, args[0], args[1])
        elif watching or session.settings.mode == "record":
            _starting(session, _words(event, args), watching)
    except Exception as error:
        session.lost("watch of connections", error)
    finally:
        _inside.hook = False


def _looked_up(session: Session, host: Any, watching: bool) -> None:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str):
        return
    if name not in _recent:
        _recent.append(name)
    if not is_model_host(name):
        return
    if watching and not any(name == allowed for allowed, _ in session.allowed):
        # What is served from the tape is never looked up; the connection itself may fail, here and now.
        _leaked(session, name, 443, _client(), _caller())
    if session.settings.mode != "record":
        return
    if any(exchange.host == name for exchange in list(session.open.values())):
        return
    client, caller = _client(), _caller()
    _missed(session, name, client, caller, f"{client} called {name}{_at(caller)}")


def _missed(session: Session, host: str, client: str, caller: str | None, what: str) -> None:
    why = f"{what}: {client} is not captured, so what it exchanged is not recorded"
    attributes = {"host": host, "client": client, "caller": caller or "", "why": why}
    _note_once(session, "incomplete", f"{host} {client}", attributes)


def _leaked(session: Session, host: str, port: int, client: str, caller: str | None, **more: str) -> None:
    by = f"{client}{_at(caller)}"
    attributes = {"host": host, "port": port, "client": client, "caller": by, **more}
    _note_once(session, "leak", f"{host}:{port}", attributes)


def _words(event: str, args: tuple[Any, ...]) -> list[str]:
    """Return the program that is started and its arguments, as far as they are text."""
    if event == "subprocess.Popen":
        given = args[1] if args[1] is not None else [args[0]]
    elif event == "os.system":
        given = args[0]
    else:  # (path, argv, …), except for os.spawn, which begins with its mode
        given = args[2] if event == "os.spawn" else args[1]
    if isinstance(given, (str, bytes, os.PathLike)):
        return _WORDS.findall(os.fsdecode(given))
    words = [os.fsdecode(word) for word in given if isinstance(word, (str, bytes, os.PathLike))]
    # What `shell=True` becomes.
    if len(words) == 3 and words[1] == "-c" and os.path.basename(words[0]) in SHELLS:
        return _WORDS.findall(words[2])
    return words


def _starting(session: Session, words: list[str], watching: bool) -> None:
    """Note a program that talks to a model, or in a replay to anybody; Python records for itself."""
    programs = [os.path.basename(word) for word in words]
    if not programs or programs[0].startswith(("python", "pypy")):
        return
    fetching = next((name for name in programs if name in FETCHING_PROGRAMS), None)
    client, caller = fetching or programs[0], _caller()
    known = client in MODEL_PROGRAMS
    places = [place for word in words for place in _places(word)]
    if fetching:  # `curl api.openai.com/v1/models` is a URL too
        bare = [word.split("/")[0].lower() for word in words]
        places += [(host, 443) for host in bare if is_model_host(host)]
    elif known and not places:
        places = [(client, 443)]  # wherever it talks to
    if not (fetching or known):
        places = [place for place in places if is_model_host(place[0])]
    if watching:
        for host, port in places:
            if not _is_allowed(session, host, port):
                _leaked(session, host, port, f"the program {client}", caller)
        return
    model = next((host for host, _ in places if is_model_host(host)), None)
    if model is not None:
        _missed(session, model, client, caller, f"the program {client} called {model}{_at(caller)}")
    elif known:
        what = f"the program {client}, which calls a model, was started{_at(caller)}"
        _missed(session, client, client, caller, what)


def _places(word: str) -> Iterator[tuple[str, int]]:
    for url in _URL.finditer(word):
        yield url[2].strip("[]").lower(), int(url[3] or (443 if url[1] else 80))


def _at(caller: str | None) -> str:
    return f" at {caller}" if caller else ""


def _connecting(session: Session, sock: Any, address: Any) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not sock.type & socket.SOCK_STREAM:
        return  # a datagram socket's connect sends nothing: it is how programs learn their own address
    host, port = str(address[0]), int(address[1])
    if _is_allowed(session, host, port):
        return
    name = next((name for name in reversed(_recent) if host == name or host in _addresses(name)), host)
    _leaked(session, name, port, _client(), _caller(), address=host)


def _note_once(session: Session, kind: str, key: str, attributes: Mapping[str, object]) -> None:
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


def _is_allowed(session: Session, host: str, port: int) -> bool:
    return any(
        only in (None, port) and (host == name or host in _addresses(name)) for name, only in session.allowed
    )


@functools.cache
def _addresses(name: str) -> frozenset[str]:
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]) for entry in entries)


def _caller() -> str | None:
    """Return the innermost frame that is neither ours nor a library's, as `file:line in function`."""
    for frame in _frames():
        file = frame.f_code.co_filename
        if not (file.startswith(("<frozen", _HERE, *_LIBRARY)) or "-packages" in file):
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
    return None


def _client() -> str:
    """Return the HTTP client whose code runs here; the one that was called first if they are stacked."""
    found = None
    for frame in _frames():
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in HTTP_CLIENTS:
            found = package
        elif package == "asyncio" or (found is None and package == "concurrent"):
            # Its lookups are made by asyncio, in a thread where nothing of it is on the stack.
            found = found or ("aiohttp" if "aiohttp" in sys.modules else "a client on asyncio")
    return found or "a client"


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back
