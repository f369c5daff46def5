"""Files and folders kept in a store as they are at this moment, each content once."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..errors import StoreError, UsageError
from ..files import make_new, open_lock, own_folder, store_folder
from .kept import BESIDE, DBM, DEPTH, SHARED, SQLITE, Entry, Kept, Kind, objects_of, tree_of
from .reading import reading

LIMIT = 256 * 2**20
"""Bytes that are kept of one recording's state, unless the user says more: each trial gets a copy."""
FILES = 20_000
"""Files, folders and links that are kept of it."""
_LOCK = ".lock"
_PIECE = 2**20
WITHIN_S = 10.0
"""So long a moment is waited for in which nothing is written."""
_PAUSE_S = 0.05
_SETTLED_NS = 20_000_000
"""A file that was changed this long ago shows every later change by its time, however coarse the clock is."""

Look = Callable[[bytes], str | None]
"""Says why a content must not be kept, if so."""


class _Found(NamedTuple):
    """A file, folder or link of what is to be kept."""

    entry: Entry
    source: str
    seen: tuple[int, ...]
    """What tells it from the same place at another time."""


class _Changed(Exception):
    """Something was changed while it was read."""


def keep(
    paths: Sequence[str | Path],
    store: Path,
    *,
    limit: int = LIMIT,
    look: Look | None = None,
    within_s: float = WITHIN_S,
) -> tuple[Kept, ...]:
    """Keep what is at these paths in the store, as it is at one moment; of one inside another, that other.

    A moment in which nothing is written is waited for so long. Raises UsageError for what is no state that
    can be kept, StoreError where the store cannot be written.
    """
    found: list[Kept] = []
    for real, path in _outer(paths).items():
        room = limit - sum(one.bytes for one in found)
        found.append(_Keeper(path, real, store, room, look, limit).kept(within_s))
    return tuple(found)


def look_of(paths: Sequence[str | Path], store: Path) -> object:
    """Return what is equal as long as nothing is changed at these paths; None where that cannot be told."""
    now, seen = time.time_ns(), list[object]()
    try:
        for real, path in _outer(paths).items():
            for one in _Keeper(path, real, store, 0, None, 0).found():
                if 0 <= now - one.entry.mtime_ns < _SETTLED_NS:
                    return None
                seen.append((one.source, one.seen))
    except (UsageError, OSError):
        return None
    return seen


def _outer(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return the paths that are in no other one, as they were named, by what they are without links."""
    reals: dict[str, str] = {}
    for path in paths:
        if not os.fspath(path):
            raise UsageError("a path of state is empty: name a file or folder, `.` for the whole folder")
        named = os.path.abspath(os.path.expanduser(path))
        reals.setdefault(os.path.realpath(named), named)
    return {real: path for real, path in reals.items() if not any(_is_below(real, one) for one in reals)}


def _is_below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder.rstrip("/") + "/")


class _Keeper:
    """Keeps what is at one path."""

    def __init__(self, path: str, real: str, store: Path, room: int, look: Look | None, limit: int) -> None:
        self._path = path
        self._real = real
        self._name = os.path.basename(path) or "root"
        self._store = os.path.realpath(store)
        self._objects = objects_of(store)
        self._room = room
        self._look = look
        self._limit = limit

    def kept(self, within_s: float) -> Kept:
        """Return what is known of it, once its files are in the store."""
        try:
            mode = os.stat(self._real).st_mode
        except FileNotFoundError:
            entries, tree = self._at_one_moment(within_s) if any(self._of_dbm()) else ([], "")
            return self._known("absent", entries, tree)
        except OSError as error:
            raise self._refused(self._path, error) from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(
                f"{self._path} is {_kind(mode)}: only files and folders are state that can be kept"
            )
        entries, tree = self._at_one_moment(within_s)
        return self._known("folder" if stat.S_ISDIR(mode) else "file", entries, tree)

    def _known(self, kind: Kind, entries: Sequence[Entry], tree: str) -> Kept:
        size = sum(one.bytes for one in entries)
        return Kept(path=self._path, real=self._real, kind=kind, tree=tree, bytes=size)

    def _at_one_moment(self, within_s: float) -> tuple[list[Entry], str]:
        """Copy until nothing was changed meanwhile: what others write is then as they left it, whole."""
        until = time.monotonic() + within_s
        while True:
            try:
                began = time.time_ns()
                before = list(self.found())
                self._check_size(before)
                if any(0 <= began - one.entry.mtime_ns < _SETTLED_NS for one in before):
                    raise _Changed
                entries = [self._copied(one) for one in before]
                if [one.seen for one in self.found()] == [one.seen for one in before]:
                    return entries, self._add(tree_of(entries))
            except (_Changed, FileNotFoundError, NotADirectoryError):
                pass  # it was changed, or is being
            except OSError as error:
                raise self._refused(error.filename or self._path, error) from error
            if time.monotonic() > until:
                raise UsageError(
                    f"{self._path} is written to all the time, so no moment of it can be kept: end who "
                    "writes it"
                )
            time.sleep(_PAUSE_S)

    def _refused(self, path: str, error: OSError) -> UsageError:
        return UsageError(f"{path}: its content cannot be kept as state: {error.strerror or error}")

    def _check_size(self, found: Sequence[_Found]) -> None:
        size = sum(one.entry.bytes for one in found)
        if size > self._room or len(found) > FILES:
            held = f"{len(found)} files" if len(found) > FILES else f"{size} bytes"
            most = f"{FILES} files" if len(found) > FILES else f"{self._limit} bytes in all"
            raise UsageError(
                f"{self._path} has {held}, and state is kept up to {most}, as each replay and fork gets a "
                "copy: name less of it, or raise TRACEFORK_STATE_LIMIT"
            )

    def found(self) -> Iterator[_Found]:
        """Yield what is to be kept, as it is seen."""
        ends = [end for end in BESIDE if os.path.isfile(self._real + end)]
        if not os.path.lexists(self._real):
            ends = list(self._of_dbm())
        else:
            yield from self._below(self._real, self._name)
            if os.path.isdir(self._real):
                return
        for end in ends:
            yield from self._below(self._real + end, self._name + end)

    def _of_dbm(self) -> Iterator[str]:
        """Say the ends of those of its files that are there, if it is a name for `dbm`."""
        for end in DBM:
            if _is_of_dbm(self._real + end):
                yield end

    def _below(self, source: str, path: str) -> Iterator[_Found]:
        left = [(source, path)]
        while left:
            source, path = left.pop()
            found = self._seen(source, path)
            if found is None:
                continue
            yield found
            if found.entry.kind == "folder":
                if path.count("/") >= DEPTH:
                    raise UsageError(
                        f"{source} is deeper than the {DEPTH} folders in each other that are kept"
                    )
                names = sorted(os.listdir(source), reverse=True)
                left += [
                    (os.path.join(source, name), f"{path}/{name}")
                    for name in names
                    if not _is_index(source, name)
                ]

    def _seen(self, source: str, path: str) -> _Found | None:
        """Return what is there, if it is to be kept."""
        found = os.lstat(source)
        entry = Entry(
            path=path,
            kind="folder",
            mode=stat.S_IMODE(found.st_mode) & 0o777,
            mtime_ns=found.st_mtime_ns,
        )
        if stat.S_ISLNK(found.st_mode):
            target = self._target(source)
            if target is not None:
                return _Found(replace(entry, kind="link", target=target), source, (found.st_ino,))
            found = os.stat(source)
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(
                    f"{source} is a link out of {self._path}, and leads to no file: name that by --state too"
                )
        seen = (found.st_ino, found.st_mtime_ns)
        if stat.S_ISREG(found.st_mode):
            entry = replace(entry, kind="file", mtime_ns=found.st_mtime_ns, bytes=found.st_size)
            return _Found(entry, source, (*seen, found.st_size))
        if stat.S_ISDIR(found.st_mode) and os.path.realpath(source) != self._store:
            return _Found(replace(entry, mtime_ns=0), source, seen)
        return None

    def _target(self, link: str) -> str | None:
        """Return where the link leads, if that is inside of what is kept; as one from its own folder."""
        to = os.path.realpath(link)
        if not (to == self._real or _is_below(to, self._real)):
            return None
        return os.path.relpath(to, os.path.realpath(os.path.dirname(link)))

    def _copied(self, found: _Found) -> Entry:
        """Return the entry, once its content is in the store."""
        entry = found.entry
        if entry.kind != "file":
            return entry
        with reading(found.source) as read:
            pieces = iter(lambda: read(_PIECE), b"")
            if self._look is None:
                return replace(entry, sha256=self._write(pieces))
            content = b"".join(pieces)
        why = self._look(content)
        if why is not None:
            raise UsageError(f"{found.source} cannot be kept as state: {why}")
        return replace(entry, sha256=self._add(content))

    def _add(self, content: bytes) -> str:
        return self._write((content,))

    def _write(self, pieces: Iterable[bytes]) -> str:
        try:
            return add(self._objects, pieces)
        except _Unwritable as error:
            raise StoreError(f"{self._objects}: state cannot be kept here: {error}") from error


@contextmanager
def in_use(store: Path) -> Iterator[None]:
    """Let nobody take away within the block what is kept for a run that is not recorded yet.

    Where the store cannot be written, what would be kept says so.
    """
    objects, descriptor = objects_of(store), None
    with suppress(OSError):
        store_folder(store)
        own_folder(objects)
        descriptor = open_lock(objects / _LOCK)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def alone(objects: Path) -> Iterator[bool]:
    """Say whether nobody keeps anything there; nobody does within the block if so."""
    descriptor = open_lock(objects / _LOCK)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
            return
        yield False
    finally:
        os.close(descriptor)


class _Unwritable(Exception):
    """The store takes no files."""


def add(objects: Path, pieces: Iterable[bytes]) -> str:
    """Return the sha256 of the content, once a file of that name holds it."""
    digest = sha256()
    try:
        store_folder(objects.parent)
        own_folder(objects)
        temporary = objects / f".{os.urandom(8).hex()}.tmp"
        descriptor = make_new(temporary)
    except OSError as error:
        raise _Unwritable(error.strerror or error) from error
    try:
        with open(descriptor, "wb") as file:
            for piece in pieces:
                digest.update(piece)
                try:
                    file.write(piece)
                except OSError as error:
                    raise _Unwritable(error.strerror or error) from error
        name = objects / digest.hexdigest()
        if not name.exists():
            os.replace(temporary, name)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return digest.hexdigest()


def _is_index(folder: str, name: str) -> bool:
    """Return whether it is what SQLite makes anew beside a database that is used."""
    return name.endswith(SHARED) and is_database(os.path.join(folder, name.removesuffix(SHARED)))


def is_database(path: str) -> bool:
    """Return whether a database of SQLite is there."""
    with suppress(OSError, ValueError), reading(path) as read:
        return read(len(SQLITE)) == SQLITE
    return False


def _is_of_dbm(path: str) -> bool:
    """Return whether a file is there that is no database of SQLite: such a one has that name for itself."""
    return os.path.isfile(path) and not is_database(path)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISSOCK, "a socket"), (stat.S_ISFIFO, "a named pipe"))
    return next((name for test, name in kinds if test(mode)), "a device")
