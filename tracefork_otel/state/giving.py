"""Kept state given back: a copy of its own for each agent that is started again."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from ..errors import StoreError, TapeError
from ..files import make_new, own_folder, read_whole, write_whole
from .kept import Entry, Kept, entries_of

_PLACES = "places.json"
_CACHES = "caches"
_PIECE = 2**20


def give(kept: Sequence[Kept], objects: Path, folder: Path) -> list[Path]:
    """Return a copy of each path that was kept, below the folder, which is made.

    Raises StoreError where the store has no longer what was kept.
    """
    own_folder(folder)
    return [give_one(one, objects, folder / str(number)) for number, one in enumerate(kept)]


def give_one(kept: Kept, objects: Path, home: Path) -> Path:
    """Return a copy of the path that was kept, in the folder `home`, which is made.

    Raises StoreError where what was kept is not there any more.
    """
    own_folder(home)
    if kept.tree:
        try:
            _fill(home, entries_of(_content(kept, kept.tree, objects)), kept, objects)
        except (TapeError, OSError) as error:
            raise StoreError(f"the state of {kept.path} cannot be given back: {error}") from error
    return home / kept.name


def write_places(folder: Path, places: Iterable[tuple[str, Path]]) -> None:
    """Write down in the folder which path an agent finds in which copy; where there is none, nothing."""
    told = [[path, str(copy)] for path, copy in places]
    if told:
        write_whole(folder / _PLACES, json.dumps(told).encode())


def read_places(folder: Path) -> list[tuple[str, str]]:
    """Return what `write_places` wrote; FileNotFoundError where the folder is gone."""
    try:
        found = cast("list[Any]", json.loads(read_whole(folder / _PLACES)))
    except FileNotFoundError:
        folder.stat()
        return []
    return [(str(path), str(copy)) for path, copy in found]


def cache_in(folder: Path, path: str) -> Path:
    """Return where a cache that would be at this path is, empty at first; the same in every process."""
    return folder / _CACHES / sha256(os.fsencode(path)).hexdigest()[:16] / (os.path.basename(path) or "cache")


def take_away(folder: Path) -> None:
    """Remove the copies, whatever the agent made of them."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(os.path.join(place, name)):
                with suppress(OSError):
                    os.chmod(os.path.join(place, name), 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _fill(home: Path, entries: Sequence[Entry], kept: Kept, objects: Path) -> None:
    folders: list[Entry] = []
    for one in entries:
        place = home / one.path
        if place.parent != home:
            _check_plain(home, place.parent)
        if one.kind == "link":
            os.symlink(one.target, place)
        elif one.kind == "folder":
            own_folder(place)
            folders.append(one)
        else:
            _copy(kept, one.sha256, objects, place)
            os.chmod(place, one.mode | stat.S_IRUSR)
            os.utime(place, ns=(one.mtime_ns, one.mtime_ns))
    for one in folders:  # after what is in them
        os.chmod(home / one.path, one.mode | stat.S_IRWXU)


def _check_plain(home: Path, folder: Path) -> None:
    """Raise TapeError where a link stands for a folder: what is below would be elsewhere."""
    if os.path.realpath(folder) != os.path.join(os.path.realpath(home), os.path.relpath(folder, home)):
        raise TapeError(f"{folder.name!r} is no folder of the copy")


def _source(kept: Kept, digest: str, objects: Path) -> Path:
    if len(digest) != sha256().digest_size * 2 or not set(digest) <= set("0123456789abcdef"):
        raise TapeError(f"{digest!r} is no sha256")
    source = objects / digest
    if not source.is_file():
        raise StoreError(
            f"{kept.path}: the store has not what was kept of it any more ({source} is missing); restore "
            "that file, or record anew"
        )
    return source


def _content(kept: Kept, digest: str, objects: Path) -> bytes:
    source = _source(kept, digest, objects)
    content = read_whole(source)
    _check(source, digest, sha256(content).hexdigest())
    return content


def _copy(kept: Kept, digest: str, objects: Path, place: Path) -> None:
    source, found = _source(kept, digest, objects), sha256()
    with source.open("rb") as file, open(make_new(place), "wb") as copy:
        while piece := file.read(_PIECE):
            found.update(piece)
            copy.write(piece)
    _check(source, digest, found.hexdigest())


def _check(source: Path, digest: str, found: str) -> None:
    if found != digest:
        raise StoreError(f"{source}: this is not the state that was kept: it was changed; restore it")


def digests_of(kept: Iterable[Kept], objects: Path) -> set[str]:
    """Return the digests of all files that hold what was kept.

    Raises StoreError, TapeError or OSError where what names them cannot be read.
    """
    found: set[str] = set()
    for one in kept:
        if one.tree:
            found |= {entry.sha256 for entry in entries_of(_content(one, one.tree, objects))} - {""}
            found.add(one.tree)
    return found


def what_is_wrong(kept: Iterable[Kept], objects: Path) -> str | None:
    """Return why what was kept could not be given back; None if it could."""
    for one in kept:
        try:
            if one.tree:
                for entry in entries_of(_content(one, one.tree, objects)):
                    if entry.kind == "file":
                        _content(one, entry.sha256, objects)
        except (StoreError, TapeError, OSError) as error:
            return str(error)
    return None


def carried(kept: Iterable[Kept], objects: Path) -> Mapping[str, bytes]:
    """Return all files that hold what was kept, by their digests; StoreError where one is missing."""
    found: dict[str, bytes] = {}
    for one in kept:
        for digest in sorted(digests_of((one,), objects)):
            found[digest] = _content(one, digest, objects)
    return found
