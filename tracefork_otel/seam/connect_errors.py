"""Errors of aiohttp, made anew as they were recorded."""

from __future__ import annotations

import ast
import errno
import re
import ssl
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .staging import made_anew, pythons_error

if TYPE_CHECKING:
    from .staging import Staged

_WHY = re.compile(r"\[(.*)\]$", re.DOTALL)
"""What an error of a connector says at its end: the system's own words."""

_WHERE = re.compile(r"Cannot connect to host (\S+):(\d+) ssl:")
"""What it says at its beginning: the proxy, where that is what could not be connected to."""

_TOLD = re.compile(r"(\d+), message=(.*), url='(.*)'", re.DOTALL)
"""What an error of a response says: of a proxy's, the address is the proxy's."""


def refused(module: ModuleType, req: Any, why: str) -> BaseException:
    """Return the error by which nothing could be connected to, for this reason."""
    return module.ClientConnectorError(req.connection_key, OSError(errno.ECONNREFUSED, why))


def connect_timeout(module: ModuleType, req: Any) -> BaseException:
    """Return the error of a session whose connection was not made in time."""
    kind = getattr(module, "ConnectionTimeoutError", module.ServerTimeoutError)
    return kind(f"Connection timeout to host {req.url}")


def is_of_connecting(module: ModuleType, error: BaseException) -> bool:
    """Return whether it comes before there is a connection: some versions ask once more after others."""
    late = isinstance(error, module.ServerTimeoutError) and str(error).startswith("Connection timeout")
    return late or isinstance(error, module.ClientConnectorError)


def recorded_error(module: ModuleType, req: Any, found: Staged) -> BaseException:
    """Return the recorded error, of the class that it had where that is aiohttp's or Python's."""
    recorded = found.recorded
    home, _, name = (recorded.error_type or "").rpartition(".")
    message = recorded.error_message or ""
    if (error := pythons_error(recorded)) is not None:
        return error
    if home.startswith("aiohttp."):
        cls: Any = getattr(getattr(module, home.partition(".")[2], None), name, None)
        if isinstance(cls, type) and issubclass(cls, Exception):
            return _own(module, req, cls, message)
    answered = recorded.response is not None
    if name.endswith("Timeout"):  # another client's, as those of faults are
        return getattr(module, "SocketTimeoutError", module.ServerTimeoutError)(message)
    if answered:
        return module.ClientPayloadError(message if name == "RemoteProtocolError" else found.ending())
    if name == "RemoteProtocolError":
        return module.ServerDisconnectedError()
    return refused(module, req, found.ending())


def _own(module: ModuleType, req: Any, cls: Any, message: str) -> BaseException:
    why = _WHY.search(message)
    said = message if why is None else why[1]
    key = req.connection_key
    if where := _WHERE.match(message):
        key = key._replace(host=where[1], port=int(where[2]))
    if issubclass(cls, getattr(module.client_exceptions, "UnixClientConnectorError", ())):
        return cls(str(req.url), key, OSError(errno.ECONNREFUSED, said))
    if issubclass(cls, module.ClientConnectorCertificateError):
        return cls(key, ssl.SSLCertVerificationError(said))
    if issubclass(cls, module.ClientConnectorError):
        return cls(key, OSError(errno.ECONNREFUSED, said))
    if issubclass(cls, module.ClientResponseError):
        told = _TOLD.fullmatch(message)
        if told is not None:
            with suppress(ValueError, SyntaxError):
                place = type(req.url)(told[3])
                info = module.RequestInfo(place, req.method, req.headers, place)
                return cls(info, (), status=int(told[1]), message=ast.literal_eval(told[2]))
        return cls(req.request_info, (), message=message)
    try:
        return made_anew(cls, message)
    except TypeError:  # it is made of something else
        return module.ClientConnectionError(message)
