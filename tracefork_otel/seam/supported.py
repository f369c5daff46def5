"""A check of whether this version of a client library can be captured."""

from __future__ import annotations

import inspect
from types import ModuleType

from .. import private_names as names
from ..log import warn_once
from ..session import current

_STREAMS = ("ByteStream", "SyncByteStream", "AsyncByteStream", "RequestNotRead")
"""Public names that the recorder needs beside the method that it wraps."""


def is_supported(module: ModuleType) -> bool:
    """Return whether the module can be wrapped; if not, say so in the log and the store."""
    why = _misfit(module)
    if why is None:
        return True
    left_alone(module, why)
    return False


def left_alone(module: ModuleType, why: str) -> None:
    """Say in the log and the store that this version of a client is not captured."""
    version = f"{module.__name__} {getattr(module, '__version__', '(of no version)')}"
    why = f"{version} is not captured: {why}; its calls go out as ever, and are not recorded"
    warn_once(
        f"fit {module.__name__}", "%s. Install another version: pip install -U %s", why, module.__name__
    )
    session = current.session
    if session is not None:
        session.note("incomplete", {"why": why, "client": module.__name__}, session.launch_id)
        session.said_why = True


def _misfit(module: ModuleType) -> str | None:
    for name in _STREAMS:
        if not hasattr(module, name):
            return f"it has no {name}"
    for name in ("Client", "AsyncClient"):
        cls = getattr(module, name, None)
        if cls is None:
            return f"it has no {name}"
        method = vars(cls).get(names.SEND)
        if method is None:
            return f"its {name} has no {names.SEND}"
        if not hasattr(cls, names.TRANSPORT_FOR_URL):
            return f"its {name} has no {names.TRANSPORT_FOR_URL}"
        if not _takes_one_request(method):
            return f"{name}.{names.SEND} does not take one request and nothing else"
    return None


def _takes_one_request(method: object) -> bool:
    try:
        signature = inspect.signature(method)  # pyright: ignore[reportArgumentType]
        signature.bind(None, None)
    except ValueError:
        return True  # written in C, or somebody's wrapper: no telling
    except TypeError:
        return False
    return True
