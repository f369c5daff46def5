"""What is known of kept state: which paths, and what was there, by digests of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, cast

from ..errors import TapeError

Kind: TypeAlias = Literal["file", "folder", "absent"]

FOLDER = "state"
"""The folder of a store that holds the files, each by its sha256."""
DEPTH = 200
"""Folders in each other that are kept: who removes a copy calls itself for each."""
_LATEST_NS = 2**63 - 1
SQLITE = b"SQLite format 3\0"
BESIDE = ("-wal", "-journal")
"""Ends of names of files in which SQLite has a part of a database's content."""
SHARED = "-shm"
"""The one that SQLite makes anew: an index of the first."""
DBM = (".dat", ".dir", ".bak", ".db", ".pag")
"""Ends of names of the files that `dbm` and `shelve` make of a name, at which no file is then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A path whose content was kept."""

    path: str
    """As it was named, absolute."""
    real: str
    """The same without links."""
    kind: Kind
    """What was at the path itself: where nothing was, there may be files that `dbm` made of its name."""
    tree: str
    """The sha256 of what says its files; empty where nothing was there."""
    bytes: int

    @property
    def name(self) -> str:
        """The last part of its path, by which it is found in a copy."""
        return PurePosixPath(self.path).name or "root"

    @property
    def ends(self) -> tuple[str, ...]:
        """What follows the path in the names of its files: nothing, but where it is a name for `dbm`."""
        return ("", *DBM) if self.kind == "absent" else ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, folder or link of what was kept."""

    path: str
    """Below the folder in which the kept path stands; it begins with its name."""
    kind: Literal["file", "folder", "link"]
    mode: int = 0o600
    mtime_ns: int = 0
    sha256: str = ""
    bytes: int = 0
    target: str = ""
    """Where a link leads."""


def text_of(kept: Iterable[Kept]) -> str | None:
    """Return what is kept as a text, as a recording says it; None for nothing."""
    found = [asdict(one) for one in kept]
    # In ASCII, as a name that is no UTF-8 could not be written down otherwise.
    return json.dumps(found) if found else None


def kept_of(text: str | None) -> tuple[Kept, ...]:
    """Return what `text_of` made the text of; raise TapeError where it made none."""
    found: tuple[Kept, ...] = tuple(_read(Kept, one) for one in _list(text)) if text else ()
    for path in (path for one in found for path in (one.path, one.real)):
        if not path.startswith("/") or not _is_plain(path):
            raise TapeError(f"what was kept of its state cannot be read: {path!r} is no path of it")
    return found


def tree_of(entries: Iterable[Entry]) -> bytes:
    """Return the entries as the bytes by which a store knows them."""
    return json.dumps([asdict(one) for one in entries], ensure_ascii=False).encode("utf-8", "surrogateescape")


def entries_of(tree: bytes) -> tuple[Entry, ...]:
    """Return the entries that `tree_of` made the bytes of; raise TapeError for others, or for one outside."""
    found: list[Entry] = [_read(Entry, one) for one in _list(tree.decode("utf-8", "surrogateescape"))]
    for one in found:
        if not _is_inside(one.path) or (one.kind == "link" and not _leads_inside(one)):
            raise TapeError(f"kept state names {one.path!r}, which would be outside of its copy")
    return tuple(
        replace(one, mode=one.mode & 0o777, mtime_ns=max(-_LATEST_NS, min(one.mtime_ns, _LATEST_NS)))
        for one in found
    )


def _is_taken(path: str) -> bool:
    """Return whether the system takes it for a path."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _is_plain(path: str) -> bool:
    """Return whether it is a path of which no part leads up again."""
    return _is_taken(path) and ".." not in PurePosixPath(path).parts


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    # One folder more than the deepest has a file.
    return 0 < len(parts) <= DEPTH + 1 and not path.startswith("/") and _is_plain(path)


def _leads_inside(link: Entry) -> bool:
    if link.target.startswith("/") or not _is_taken(link.target):
        return False
    depth = len(PurePosixPath(link.path).parts) - 1
    for part in PurePosixPath(link.target).parts:
        depth += -1 if part == ".." else 1
        if depth < 1:  # the kept path itself is the highest
            return False
    return True


def _list(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TapeError(f"what was kept of its state cannot be read: {error}") from None
    if not isinstance(found, list):
        raise TapeError("what was kept of its state cannot be read: it is no list")
    return cast("list[Any]", found)


_TYPES = {"str": str, "int": int}


def _read(cls: Any, told: object) -> Any:
    told = cast("Mapping[str, Any]", told) if isinstance(told, dict) else {}
    values = {field.name: told.get(field.name) for field in fields(cls)}
    wrong = [
        field.name
        for field in fields(cls)
        if type(values[field.name]) is not _TYPES.get(str(field.type), str)
    ]
    if wrong:
        raise TapeError(f"what was kept of its state cannot be read: {', '.join(wrong)} is no such value")
    return cls(**values)


def objects_of(store: Path) -> Path:
    """Return the folder of a store that holds kept files."""
    return store / FOLDER
