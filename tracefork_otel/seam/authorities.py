"""Certificate authorities in what is played: read for a TLS context that connects, not for each that is made.

Reading the file takes some 20 ms, more than the calls of a client take that are served from a tape.
"""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..undo import Undo

_BEFORE_USE = ("wrap_socket", "wrap_bio", "cert_store_stats", "get_ca_certs")
"""What of a context depends on the authorities that it has."""
_readable: set[tuple[object, ...]] = set()
"""Files that this process, or the one it was forked from, has read whole without an error."""
_reading = threading.Lock()


def put_off(undo: Undo) -> None:
    """Have a context read a file, known to be readable, when it first needs it, until that is undone."""
    load = ssl.SSLContext.load_verify_locations

    def load_verify_locations(
        self: ssl.SSLContext, cafile: Any = None, capath: Any = None, cadata: Any = None
    ) -> None:
        file = None if cafile is None or cadata is not None else _identity(cafile)
        if file is None:
            load(self, cafile, capath, cadata)
        elif file in _readable and _may_wait(self):
            _wait(self, lambda context: load(context, cafile, capath))
        else:
            load(self, cafile, capath, cadata)
            _readable.add(file)

    undo.replace(ssl.SSLContext, "load_verify_locations", load_verify_locations)


def _identity(path: Any) -> tuple[object, ...] | None:
    """Return what tells the file from others, and from itself once it is changed; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, TypeError, ValueError):
        return None
    return os.fspath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _may_wait(context: ssl.SSLContext) -> bool:
    """Return whether only what it will itself connect needs its authorities, and it waits for none yet."""
    is_client = context.protocol == ssl.PROTOCOL_TLS_CLIENT
    return is_client and not any(name in vars(context) for name in _BEFORE_USE)


def _wait(context: ssl.SSLContext, load: Callable[[ssl.SSLContext], None]) -> None:
    """Have `load` called with the context before it is used."""
    # The context's own attributes, so that it also reads where the playing has ended by then.
    itself = weakref.ref(context)

    def first(name: str) -> Callable[..., Any]:
        def use(*args: Any, **kwargs: Any) -> Any:
            here = itself()
            assert here is not None  # it is asked
            with _reading:
                if name in vars(here):  # else another thread has read meanwhile
                    load(here)
                    for each in _BEFORE_USE:
                        vars(here).pop(each, None)
            return getattr(here, name)(*args, **kwargs)

        return use

    vars(context).update({name: first(name) for name in _BEFORE_USE})
