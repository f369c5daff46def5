"""Files for their owner alone, made new: written whole or not at all, and never through a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EINVAL, ENOTDIR
from io import BufferedReader
from pathlib import Path


def make_new(path: Path, flags: int = os.O_WRONLY) -> int:
    """Return the descriptor of a file that did not exist, for its owner alone, whatever the umask is."""
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(fd, 0o600)
    return fd


def open_lock(path: Path) -> int:
    """Return the descriptor of a file to be locked, which is made if need be; OSError if it is a link."""
    try:
        return make_new(path, os.O_RDWR)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def own_folder(path: Path) -> None:
    """Make the folder, for its owner alone, if it does not exist; OSError if there is a link to another."""
    try:
        path.mkdir(mode=0o700)
        path.chmod(0o700)
    except FileExistsError:
        check_own(path)


def check_own(path: Path) -> None:
    """Raise OSError where a link, or anything but a folder, stands in the place of a store's own folder."""
    try:
        found = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found):
        raise NotADirectoryError(ENOTDIR, "this must be a folder of the store's own, and no link", str(path))


def store_folder(path: Path) -> None:
    """Make the folder of a store and those above it, for their owner alone, as far as they do not exist.

    The store itself may be a link: it is where its owner says.
    """
    if not path.is_dir():
        if path.parent != path:
            store_folder(path.parent)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o700)
        if not path.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(path))


def open_whole(path: Path) -> BufferedReader:
    """Return a regular file, opened for reading; OSError for anything else: a pipe would never end."""
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(EINVAL, "this is no regular file", str(path))
    return file


def read_whole(path: Path) -> bytes:
    """Return what is in a regular file; OSError for anything else."""
    with open_whole(path) as file:
        return file.read()


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Give a file beside `path`, for its owner alone, that takes its place once the block has filled it.

    Where the block raises, `path` is as it was. What is `synced` outlives a loss of power; the new name does
    so after `sync_directory`.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        os.close(make_new(temporary))
        yield temporary
        if synced:
            _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes, *, synced: bool = False) -> None:
    """Write the file, for its owner alone; raises OSError and leaves what was there if that fails."""
    with replacing(path, synced=synced) as temporary:
        temporary.write_bytes(data)


def sync_directory(path: Path) -> None:
    """Make the names that were put into the directory outlive a loss of power."""
    _sync(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
