"""What goes round the seam, noted once: where it went, who called, and whether that was allowed."""

from __future__ import annotations

import functools
import os
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from urllib.parse import urlsplit

from ..session.session import Session

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

_noted: set[tuple[str, ...]] = set()
_starting = threading.local()
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def begin(session: Session) -> None:
    """Forget what was noted, and find out where this session may connect to."""
    _noted.clear()
    session.allowed = _allowed(session)


def missed(session: Session, host: str, client: str, caller: str | None, what: str) -> None:
    """Note that the recording lacks what this client exchanged."""
    why = f"{what}: {client} is not captured, so what it exchanged is not recorded"
    attributes = {"host": host, "client": client, "caller": caller or "", "why": why}
    note_once(session, "incomplete", f"{host} {client}", attributes)


def leaked(session: Session, host: str, port: int, client: str, caller: str | None, **more: str) -> None:
    """Note that something went round the tape."""
    attributes = {"host": host, "port": port, "client": client, "caller": f"{client}{at(caller)}", **more}
    note_once(session, "leak", f"{host}:{port}", attributes)


def note_once(session: Session, kind: str, key: str, attributes: Mapping[str, object]) -> None:
    """Write the note, the first time; of a program that is being started, once it has a process."""
    once = (session.process_id, kind, key)
    if once in _noted:
        return
    trace_id = run_here(session)

    def write(pid: int | None) -> None:
        if once in _noted:
            return
        _noted.add(once)  # not before: a program that could not be started may start the next time
        session.note(kind, attributes if pid is None else {**attributes, "pid": pid}, trace_id)

    pending: list[Callable[[int | None], None]] | None = getattr(_starting, "pending", None)
    if pending is None:
        write(None)
    else:
        pending.append(write)


def note_skipped(session: Session, host: str, port: int, who: str) -> None:
    """Note that a replay made a request that is no part of the run; `who` is empty where the user says so."""
    note_once(session, "telemetry", f"{host}:{port}", {"host": host, "port": port, "client": who})


def run_here(session: Session) -> str | None:
    """Return the run in which something happens here; None where it may be any of this process."""
    # Until something was asked there is no span of ours, and what knows of them loads OpenTelemetry.
    root = sys.modules.get("tracefork_otel.session.root")
    return session.launch_id if root is None else root.run_now(session)


class Started:
    """The start of a program: what is noted of it meanwhile is written with its process, if it gets one.

    Another Python may turn out to record after all; who reads the notes tells it by its process.
    """

    def __enter__(self) -> Started:
        self._outer = getattr(_starting, "pending", None)
        self._pending: list[Callable[[int | None], None]] = []
        _starting.pending = self._pending
        return self

    def __exit__(self, *of_error: object) -> None:
        _starting.pending = self._outer

    def has(self, pid: int) -> None:
        """Write the notes: it runs in this process."""
        for write in self._pending:
            write(pid)


def at(caller: str | None) -> str:
    """Return the caller as the end of a sentence."""
    return f" at {caller}" if caller else ""


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


def is_allowed(session: Session, host: str, port: int) -> bool:
    """Return whether the session may connect there."""
    return any(
        only in (None, port) and (host == name or host in addresses(name)) for name, only in session.allowed
    )


def is_allowed_program(session: Session, program: str) -> bool:
    """Return whether the program is allowed by its name, as hosts are."""
    return any(name == program.lower() for name, _ in session.allowed)


@functools.cache
def addresses(name: str) -> frozenset[str]:
    """Return what the name resolves to, looked up once."""
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(entry[4][0]) for entry in entries)


def caller() -> str | None:
    """Return the innermost frame that is neither ours nor a library's, as `file:line in function`."""
    for frame in _frames():
        file = frame.f_code.co_filename
        if is_own_code(file):
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
    return None


def is_own_code(file: str) -> bool:
    """Return whether code of that file is the agent's: neither ours nor a library's."""
    return not (file.startswith(("<frozen", _HERE, *_LIBRARY)) or "-packages" in file)


def client() -> str:
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
