"""The write-ahead log: one `write()` per record, so that kill -9 loses nothing acknowledged.

A file is a magic line and records `u32 length, u32 crc32, payload`; a payload is `u32 header length`, a JSON
header and raw body bytes. A request body is a delta against an earlier body of the same file. The process
holds an flock on its file: when the lock is gone, the process is, and the file can be sealed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ..errors import StoreError
from ..files import make_new, own_folder, store_folder
from . import codec as form
from .delta import WHOLE, Recent
from .records import ExchangeEnded, ExchangeStarted, ProcessStarted, Record, Rotated, SpanRecord
from .wal_reading import NAME

ROTATE_BYTES = 64 * 1024 * 1024
_MAX_RECORD = 0x7FFFF000
"""Linux writes no more than this in one call."""
_RETRY_BYTES = 1024 * 1024
"""After a rotation that failed, the file grows by this much before the next attempt."""
_ATTEMPTS = 5

_open_wals: weakref.WeakSet[Wal] = weakref.WeakSet()


class Wal:
    """The WAL of this process; the first append makes the file, whose lock lasts as long as the process."""

    def __init__(
        self,
        store: Path,
        process: ProcessStarted,
        *,
        sync: Literal["never", "exchange"] = "never",
        rotate_bytes: int = ROTATE_BYTES,
        on_rotated: Callable[[Path], None] | None = None,
    ) -> None:
        # Absolute, for the process may change its directory.
        self._store = Path(os.path.abspath(store))
        self._process = process
        self._sync = sync == "exchange"
        self._rotate_bytes = rotate_bytes
        self._rotate_at = rotate_bytes
        self._on_rotated = on_rotated
        # A signal handler can append while its own thread is in `append`: `_busy` tells. While the file
        # changes, its records wait for the new one.
        self._lock = threading.RLock()
        self._busy = False
        self._moving = False
        self._waiting: list[Record] = []
        self._index = 0
        self._fd = -1
        self._identity = (-1, -1)
        """Device and inode of the file, as an agent that closed our descriptor may be given its number."""
        self._end = 0
        self._recent = Recent()
        self._open: dict[str, ExchangeStarted | SpanRecord] = {}
        """Start records whose end has not come, by span id: a rotation carries them over."""
        self._closed: str | None = None
        _open_wals.add(self)

    @property
    def path(self) -> Path:
        """The file that the next record goes to."""
        return self._path(self._index)

    def append(self, record: Record) -> None:
        """Write the record into the file, where it outlives the process; raise StoreError if that fails."""
        rotated = None
        with self._lock:
            if self._closed is not None:
                raise StoreError(f"{self.path}: nothing is appended, {self._closed}")
            if self._moving:
                self._waiting.append(record)
                return
            nested, self._busy = self._busy, True
            try:
                self._ready()
                while self._waiting and not nested:
                    self._put(self._waiting.pop(0), self._recent)
                # A signal handler appends in the middle of another record: the slots may be half changed.
                self._put(record, None if nested else self._recent)
                if self._end >= self._rotate_at and not nested:
                    rotated = self._rotate()
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise StoreError(f"{self.path}: a record could not be written: {error}") from error
            finally:
                self._busy = nested
            if self._waiting and not nested:
                self.append(self._waiting.pop(0))
        if rotated is not None and self._on_rotated is not None:
            self._on_rotated(rotated)

    def _put(self, record: Record, recent: Recent | None) -> None:
        self._end += self._written(record, recent)
        self._follow(record)
        if self._sync and isinstance(record, ExchangeEnded):
            # macOS has no fdatasync.
            getattr(os, "fdatasync", os.fsync)(self._fd)

    def _written(self, record: Record, recent: Recent | None) -> int:
        """Write the record to the file and return its size; where that fails the file is as it was."""
        try:
            return self._write(self._fd, self._end, record, recent)
        except OSError:
            if self._held() is not None:
                # Without this, the next record would follow a torn one.
                os.ftruncate(self._fd, self._end)
                raise
        # The agent has taken the descriptor's number since it was looked at.
        self._ready()
        return self._write(self._fd, self._end, record, None if recent is None else self._recent)

    def close(self) -> None:
        """Let the lock go, so that the file can be sealed; a later append raises StoreError."""
        with self._lock:
            self._closed = self._closed or "the WAL is closed"
            self._close_file()
        _open_wals.discard(self)

    def discard(self) -> None:
        """Remove the files, as if nothing had been appended, and close."""
        with self._lock:
            for index in range(self._index + 1):  # before the lock goes: then nobody can have sealed them
                self._path(index).unlink(missing_ok=True)
            self.close()

    def set_aside(self) -> Path | None:
        """Close the file for anyone to seal and return it, if there is one; appends go on in a new one."""
        with self._lock:
            if self._fd < 0 or self._open or self._busy or self._moving:
                return None  # what is open would have its start in one file and its end in another
            path = self.path
            self._close_file()
            self._index += 1
            return path

    @property
    def closed(self) -> bool:
        """Whether appends raise StoreError."""
        return self._closed is not None

    @property
    def size(self) -> int:
        """Bytes in the file that the next record goes to."""
        return self._end

    def reset_after_fork(self) -> None:
        """Forget the parent's file in a forked child; its lock is left to the parent alone."""
        self._busy = False
        self._closed = "the WAL belongs to the parent process: make a new one in the child"
        # Closing (never unlocking) keeps the parent's lock, and lets it go when the parent dies.
        self._close_file()
        self._recent, self._open = Recent(), {}
        _open_wals.discard(self)

    def _close_file(self) -> None:
        if self._held() is not None:
            os.close(self._fd)
        self._fd = -1

    def _held(self) -> os.stat_result | None:
        """Return the state of the file, if the descriptor is still that of the file."""
        try:
            found = os.fstat(self._fd)
        except OSError:
            return None
        return found if (found.st_dev, found.st_ino) == self._identity else None

    def _path(self, index: int) -> Path:
        return self._store / "wal" / f"{self._process.process_id}-{index}.wal"

    def _ready(self) -> None:
        if self._fd >= 0:
            held = self._held()
            if held is not None and held.st_nlink:
                return
            if held is None and self._reopened():
                return
            # Somebody removed the store's files while the process runs, or is sealing this one: go on in a
            # new one. The name of a WAL that a manifest holds must not come back, or its records would be
            # taken for sealed.
            self._close_file()
            kept = (self._store / "MANIFEST.json").exists() or self.path.exists()
            self._index = self._index + 1 if kept else 0
        self._recent = Recent()
        self._moving = True
        try:
            self._take(*self._create(self.path, self._recent))
        finally:
            self._moving = False
        self._rotate_at = self._rotate_bytes

    def _take(self, fd: int, end: int) -> None:
        """Let the next record go to that file, at its end."""
        found = os.fstat(fd)
        self._fd, self._end, self._identity = fd, end, (found.st_dev, found.st_ino)

    def _reopened(self) -> bool:
        """Open and lock the file whose descriptor the agent has closed; return whether that succeeded.

        What has the old number now is the agent's and is left alone.
        """
        with _fork_guard:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(fd)
            file = (found.st_dev, found.st_ino, found.st_size)
            ours = found.st_nlink > 0 and file == (*self._identity, self._end)
        except OSError:
            ours = False
        if ours:
            self._fd = fd
        else:
            os.close(fd)
        return ours

    def _create(self, path: Path, recent: Recent) -> tuple[int, int]:
        """Create a file that holds the process and what is open; return its descriptor, locked, and size."""
        store_folder(self._store)
        own_folder(path.parent)
        # The name appears only when the lock is held: a sealer never takes a fresh file for that of a dead
        # process.
        hidden = path.with_name(f".{path.name}.tmp")
        fd = make_new(hidden, os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            end = _write_all(fd, 0, [form.MAGIC])
            for record in (self._process, *self._open.values()):
                end += self._write(fd, end, record, recent)
            os.rename(hidden, path)
        except BaseException:
            os.unlink(hidden)
            os.close(fd)
            raise
        return fd, end

    def _write(self, fd: int, at: int, record: Record, recent: Recent | None) -> int:
        """Write the record, a request's body against the recent ones, and return its size."""
        if recent is None or not isinstance(record, ExchangeStarted):
            return _write_all(fd, at, form.encode(record, WHOLE))
        body, conversation = record.request.body, record.trace_id
        delta = recent.choose(body, conversation)
        written = _write_all(fd, at, form.encode(record, delta))
        recent.keep(delta, body, conversation)
        return written

    def _follow(self, record: Record) -> None:
        if isinstance(record, ExchangeStarted) or (
            isinstance(record, SpanRecord) and record.ended_ns is None
        ):
            self._open[record.span_id] = record
        elif isinstance(record, ExchangeEnded | SpanRecord):
            self._open.pop(record.span_id, None)

    def _rotate(self) -> Path | None:
        """Return the path of the file that ended, None if it goes on because a new one could not be made."""
        recent, old, new = Recent(), self.path, self._path(self._index + 1)
        self._moving = True
        try:
            fd, end = self._create(new, recent)
            try:
                self._written(Rotated(to=new.name, carried=tuple(self._open)), recent)
            except OSError:
                os.unlink(new)
                os.close(fd)
                raise
        except OSError:
            self._rotate_at = self._end + _RETRY_BYTES
            return None
        finally:
            self._moving = False
        self._close_file()
        self._take(fd, end)
        self._recent = recent
        self._index += 1
        # What is carried over can alone be more than `rotate_bytes`.
        self._rotate_at = max(self._rotate_bytes, 2 * end)
        return old


def _write_all(fd: int, at: int, buffers: list[bytes]) -> int:
    """Write at the file's end, which is about `at`."""
    size = sum(map(len, buffers))
    if size > _MAX_RECORD:
        raise ValueError(f"a record of {size} bytes is more than one write takes")
    if sys.platform == "linux":
        # It goes to the file's end whatever the place; what has no places (a socket or a pipe, should the
        # agent have put one there since we looked) takes nothing.
        written = os.pwritev(fd, buffers, at)
    else:
        written = os.writev(fd, buffers)
    if written != size:
        raise OSError(errno.ENOSPC, "a part of it alone was written: is the disk full?")
    return size


_fork_guard = threading.RLock()
_taken: set[int] = set()
"""Descriptors that hold the lock of a WAL which is being sealed."""
_paused: list[Wal] = []
"""The WALs of this process while it forks, none of them in the middle of an append."""


def _before_fork() -> None:
    # A fork in the middle of an append or of opening a file would give the child a descriptor that nobody
    # knows of, and with it the lock, for as long as the child lives.
    _fork_guard.acquire()
    _paused[:] = _open_wals
    for wal in _paused:
        wal._lock.acquire()


def _after_fork_in_parent() -> None:
    for wal in _paused:
        wal._lock.release()
    _paused.clear()
    _fork_guard.release()


def _after_fork_in_child() -> None:
    for wal in _paused:
        wal.reset_after_fork()
    for fd in _taken:
        os.close(fd)
    _taken.clear()
    _after_fork_in_parent()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)


def wal_files(store: Path) -> list[Path]:
    """Return the WALs of a store, those of one process together and in order."""
    named: list[tuple[str, int, Path]] = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(store / "wal") as found:
        for one in found:
            # A link would lead out of the store, and reading a pipe would never end.
            if (match := NAME.fullmatch(one.name)) and one.is_file(follow_symlinks=False):
                named.append((match["process"], int(match["index"]), Path(one.path)))
    return [path for _, _, path in sorted(named)]


def not_files(store: Path) -> list[Path]:
    """Return what has the name of a WAL and is none: a link, a folder, a pipe, in which nobody looks."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(store / "wal") as found:
        return sorted(
            Path(one.path)
            for one in found
            if NAME.fullmatch(one.name) and not one.is_file(follow_symlinks=False)
        )
    return []


def process_of(path: Path) -> str:
    """Return the process that wrote a WAL, by the file's name."""
    match = NAME.fullmatch(path.name)
    return match["process"] if match else path.stem


def is_live(path: Path) -> bool:
    """Return whether somebody holds the lock of a WAL: its process, or who is sealing it."""
    with _fork_guard:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
    return False


def take(path: Path) -> int | None:
    """Return a descriptor that holds the lock of the WAL until it is let go; None if somebody else has it."""
    with _fork_guard:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        _taken.add(fd)
    # A reader that asks `is_live` holds the lock for some microseconds: that is no reason to give up.
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        if os.fstat(fd).st_nlink:
            return fd
        break  # It was sealed and removed between the two calls.
    let_go(fd)
    return None


def let_go(fd: int) -> None:
    """Free the lock that `take` gave."""
    with _fork_guard:
        _taken.discard(fd)
        os.close(fd)
