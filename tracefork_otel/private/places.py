"""Which path of the agent's stands for which copy, and back."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..state.keeping import FILES, LIMIT
from ..state.kept import BESIDE, SHARED

_getcwd, _realpath = os.getcwd, os.path.realpath
_SQLITE = (*BESIDE, SHARED)

Change: TypeAlias = Literal["none", "part", "whole"]
"""What is about to be done to a path: nothing, something to what is there, or its replacement by another."""


def is_below(path: str, folder: str) -> bool:
    """Return whether the path is the folder, or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def temporary_folder() -> str:
    """Return it without links, as `tempfile` finds it, which would write there to do so."""
    return _realpath(next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp"))


class Places:
    """The copies of this process; a path that is in none of them is used as it is."""

    def __init__(self, places: Iterable[tuple[str, str]], *, spared: Iterable[Path] = ()) -> None:
        """`spared` are folders of ours: they are used as they are, whatever stands above them."""
        self._copies: dict[str, str] = {}
        self._originals: dict[str, str] = {}
        self._spared = tuple({_realpath(folder) for folder in spared})
        self._folders: dict[str, str] = {}
        """Folders as they were named, by which they are without links."""
        self._taken: frozenset[str] = frozenset()
        """What is beside a kept path, and is used in a copy although it was there before."""
        self.over = False
        """Whether nothing is redirected any more, by whatever code got hold of us."""
        for path, copy in places:
            self.add(path, copy)

    def add(self, path: str, copy: str) -> None:
        """Use the copy for this path, and for all that is below it."""
        # Made anew, as another thread may be looking through the old one.
        # The last name is that of the folder in which the agent runs now.
        self._originals = {**self._originals, copy: path, _realpath(copy): path}
        self._copies = {**self._copies, path: copy}

    def end(self) -> None:
        """Use every path as it is, from now on."""
        self.over = True
        self._copies, self._originals = {}, {}

    def forget_links(self) -> None:
        """Find out anew where links lead: one was made, moved or removed."""
        self._folders = {}

    def __bool__(self) -> bool:
        return bool(self._copies)

    def has(self, path: str) -> bool:
        """Return whether the path is in a copy."""
        return self.copy_of(path) is not None

    def copy_of(self, path: Any, *, follow: bool = True, change: Change = "none") -> Any:
        """Return the path that is used for this one, of its own type; None for the path itself.

        Where it is a link, it is where that leads, unless what is done to it does not `follow`. From a folder
        that is a copy, a path out of it leads to where it would from the agent's own folder.
        """
        if isinstance(path, int) or not self._copies:
            return None
        try:
            given = os.fspath(path)
        except TypeError:
            return None
        text = os.fsdecode(given)
        if not text or "\0" in text:
            return None
        own = None
        if text[0] != "/":
            folder = _getcwd()
            own = self.original_of(folder)
            text = os.path.join(own or folder, text)
        named = os.path.normpath(text)
        found = self._found(named, change) or self._found(self._without_links(named, follow), change)
        if found is None:
            if own is None:
                return None
            found = named
        if text[-1] == "/":
            found += "/"
        return os.fsencode(found) if isinstance(given, bytes) else found

    def root_copy_of(self, path: Any) -> Any:
        """Return the copy of exactly this path, of its own type; None where none was given of just it."""
        if isinstance(path, bytes):
            copy = self._copies.get(os.fsdecode(path))
            return None if copy is None else os.fsencode(copy)
        return self._copies.get(path)

    def original_of(self, path: str) -> str | None:
        """Return the agent's own path of what is in a copy; None for any other path."""
        originals = self._originals
        root = _nearest(path, originals)
        return None if root is None else originals[root] + path[len(root) :]

    def _without_links(self, path: str, follow: bool) -> str:
        folder, name = os.path.split(path)
        folders = self._folders  # another thread may put another one there
        real = folders.get(folder)
        if real is None:
            real = _realpath(folder)
            if os.path.isdir(real):  # else a link may come to be there
                folders[folder] = real
        if real != folder:
            path = os.path.join(real, name)
        # The last part may be a link itself; most are none.
        return _realpath(path) if follow and os.path.islink(path) else path

    def _found(self, path: str, change: Change) -> str | None:
        copies = self._copies
        root = _nearest(path, copies)
        if root is None:
            return None
        end = path[len(root) :]
        if self._is_spared(path):
            return None
        inside = end[:1] in ("", "/") or self._belongs_to(root, copies[root], end, change)
        return copies[root] + end if inside else None

    def _is_spared(self, path: str) -> bool:
        return any(is_below(path, folder) for folder in self._spared)

    def _belongs_to(self, original: str, copy: str, end: str, change: Change) -> bool:
        """Return whether a path beside a kept one takes part in its changes.

        SQLite's are known. Others, such as one that is written to take its place, are not there before, or
        are about to be changed: who keeps a backup beside does not lose it to a replay.
        """
        if end in _SQLITE:
            return True
        first = end.partition("/")[0]
        beside, copy = original + first, copy + first
        if beside in self._taken or os.path.lexists(copy) or not os.path.lexists(beside):
            return True
        if change == "none" or any(is_below(folder, beside) for folder in self._spared):
            return False
        if not _taken(beside, copy, change):
            return False
        self._taken |= {beside}
        return True


def _nearest(path: str, roots: Iterable[str]) -> str | None:
    """Return which one the path is or is in, else which one it is named after, if there is one."""
    beside = ""
    for root in roots:
        if is_below(path, root):
            return root
        if len(root) > len(beside) and path.startswith(root) and path[len(root)] in ".~-":
            beside = root
    return beside or None


def _taken(path: str, copy: str, change: Change) -> bool:
    """Return whether a copy can be what is there; it is made, if that is possible."""
    with suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size <= LIMIT:
            shutil.copy2(path, copy)
            return True
        if stat.S_ISDIR(found.st_mode) and _is_small(path):
            made = f"{copy}.{os.urandom(4).hex()}.tmp"
            try:
                shutil.copytree(path, made, symlinks=True)
                os.rename(made, copy)
            except (OSError, shutil.Error):
                shutil.rmtree(made, ignore_errors=True)
                return False
            return True
        return change == "whole" and not stat.S_ISDIR(found.st_mode)
    return False


def _is_small(folder: str) -> bool:
    """Return whether the folder has no more than what is kept of one."""
    size = number = 0
    for place, folders, files in os.walk(folder):
        number += len(folders) + len(files)
        size += sum(os.lstat(os.path.join(place, name)).st_size for name in files)
        if number > FILES or size > LIMIT:
            return False
    return True
