"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[Path]:
    """Give a file beside `path`, for its owner alone, that takes its place once the block has filled it.

    Where the block raises, `path` is as it was. What is `synced` outlives a loss of power; the new name does
    so after `sync_directory`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
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
