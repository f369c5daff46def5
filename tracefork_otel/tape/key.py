"""The key of this machine's user, by which what was recorded here is known again; it is in no store."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import ELOOP
from pathlib import Path

from ..files import make_new, own_folder

_SIZE = 32
_NAME = "key"
_known: dict[Path, bytes] = {}
"""Keys that were read, as it is done once a process."""


def key_file() -> Path | None:
    """Return where the key is kept, as the XDG base directories say; None for a user without a folder.

    Where HOME is not set, as of a service, it is what the system says of the user.
    """
    base, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME")
    if home is None:
        home = os.path.expanduser("~")
    if os.path.isabs(base):
        return Path(base) / "tracefork-otel" / _NAME
    return Path(home) / ".local" / "state" / "tracefork-otel" / _NAME if os.path.isabs(home) else None


def own_key(*, make: bool = False) -> bytes | None:
    """Return the key, which is made first where there is none and `make` is set.

    None where it cannot be had, or is not the user's alone.
    """
    path = key_file()
    if path is None or path in _known:
        return None if path is None else _known[path]
    try:
        key = _read(path)
        if key is None and make:
            _make(path)
            key = _read(path)
    except OSError:
        return None
    if key is not None:
        _known[path] = key
    return key


def why_no_key() -> str | None:
    """Return in words why this user has no key, and what to do about it; None where there is one."""
    path = key_file()
    if path is None:
        return "without a home folder there is no key"
    try:
        return None if _read(path) is not None else f"there is no key at {path} yet; a recording makes it"
    except OSError as error:
        why = "it is a link" if error.errno == ELOOP else error.strerror or error
        return f"the key at {path} is not used: {why}; move it away, and the next recording makes one"


def _read(path: Path) -> bytes | None:
    """Return the key, None where there is none; OSError where others could know it or have put it there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError("it is no file")
        if found.st_uid != os.geteuid():
            raise PermissionError("it belongs to another user")
        if found.st_mode & 0o077:
            raise PermissionError("others can read it, or could have written it")
        key = file.read(_SIZE + 1)
    if len(key) != _SIZE:
        raise PermissionError("it does not hold a key")
    return key


def _make(path: Path) -> None:
    """Make the key, whole from the moment at which others see it; of two that do so at once one stays."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    own_folder(path.parent)
    temporary = path.with_name(f".{_NAME}.{os.urandom(4).hex()}.tmp")
    try:
        with open(make_new(temporary), "wb") as file:
            file.write(os.urandom(_SIZE))
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
