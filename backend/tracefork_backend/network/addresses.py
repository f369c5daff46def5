"""Where servers listen, and what means this machine alone."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket

from tracefork_otel.errors import UsageError

LOOPBACK = "127.0.0.1"
"""Where nobody but this machine gets at it."""
_NAMES = frozenset({"localhost", "host.docker.internal"})
"""Names that mean this machine; the second is how a container's agent reaches it."""
# Connections that wait to be accepted: a fan-out opens many at once.
_BACKLOG = 512


def bind(
    host: str = LOOPBACK,
    port: int = 0,
    *,
    tries: int = 1,
    or_any: bool = False,
    shared: bool = False,
    flag: str = "--port",
) -> socket.socket:
    """Return a socket that listens on the first free one of `tries` ports from there; else raise UsageError.

    With `or_any` a free port serves where none of them is. A shared port may be held by several servers at
    once, which each take some of the connections. `flag` is what the port is asked for by.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    why: str | None = None
    for candidate in [*range(port, port + tries), *([0] if or_any else [])]:
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            why = error.strerror
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                break
        else:
            return listener
    raise UsageError(
        f"cannot listen on {host}:{port} ({why}): name another with {flag}, or {flag} 0 for a free one"
    )


def is_loopback(host: str) -> bool:
    """Return whether an address or name means this machine alone."""
    if host in _NAMES:
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
