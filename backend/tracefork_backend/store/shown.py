"""Where a store is shown as a page, so that commands can say so."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tracefork_otel.files import open_lock

FILE = ".page"
"""Has the page's address, and is locked while the page is there."""
_MOST = 200
_ADDRESS = re.compile(r"http://[A-Za-z0-9.:\[\]-]+:[0-9]+")


@contextmanager
def shown_at(store: Path, url: str) -> Iterator[None]:
    """Say that the store is shown there, until the block ends; nothing where another page says so already."""
    if not store.is_dir() or not os.access(store, os.W_OK | os.X_OK):
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):
            held = open_lock(store / FILE)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(held, 0)
            os.pwrite(held, url.encode(), 0)
        yield


def page_url(store: Path, path: str = "/") -> str | None:
    """Return the address of that path of the store's page, None where none is there."""
    try:
        read = os.open(store / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(read, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # nobody holds it
    except OSError:
        url = os.pread(read, _MOST, 0).decode("utf-8", "replace")
    finally:
        os.close(read)
    # A store may be somebody else's: what is no address is not printed as one.
    if _ADDRESS.fullmatch(url) is None:
        return None
    return f"{url}{path}"
