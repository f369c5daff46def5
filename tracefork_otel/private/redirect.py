"""Files by name, as Python code opens them: a path that has a copy is that copy, in what is asked and told.

What opens files by itself, below Python or in a program of another kind, is not reached.
"""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import shutil
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import quote

from ..session.imports import when_imported
from ..undo import Undo
from .databases import file_of
from .instead import Instead, busy, is_at_work, put_back, replace, replace_taken
from .moves import copy_beside, move
from .places import Change, Places
from .scan import Scan

_ONE = (
    *("open", "stat", "lstat", "access", "listdir", "mkdir", "rmdir", "unlink", "remove", "readlink"),
    *("truncate", "utime", "chmod", "chown", "lchown", "chdir", "statvfs", "mkfifo", "pathconf"),
    *("getxattr", "setxattr", "listxattr", "removexattr"),
)
_NATIVE = (
    ("duckdb", "connect", "database"),
    ("lmdb", "open", "path"),
    ("chromadb", "PersistentClient", "path"),
)
"""Functions of libraries in which another language opens files: a module, its function, the parameter."""
_TWO = ("rename", "replace", "link")
_ITSELF = ("lstat", "unlink", "remove", "rmdir", "lchown")
"""Those that do to a link what they do, not to where it leads."""
_CHANGES = ("unlink", "remove", "rmdir", "truncate", "utime", "chmod", "chown", "lchown")
_LINKS = ("unlink", "remove", "rmdir")
"""Those that may take away a link by which a folder was named."""
_WRITES = frozenset("wax+")
_MOST_NEW = 10_000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def redirect_databases(places: Places, undo: Undo, opens: Callable[[Any, bool], None] | None = None) -> None:
    """Have `sqlite3` use the copies, until that is undone.

    `opens` is told of each database, as it was named and whether that may be a URI, before it is looked for.
    """
    made = _Made(places, opens)
    for name in ("sqlite3", "sqlite3.dbapi2"):
        undo.add(when_imported(name, lambda module: made.on_database(module, "connect", made.connect, undo)))


def redirect_native(places: Places, undo: Undo, changes: Callable[[Any], None]) -> None:
    """Have libraries that open files by themselves use the copies; `changes` is told of what has none."""
    made = _Made(places, changes=changes)
    for module, function, parameter in _NATIVE:
        way = functools.partial(made.native, parameter=parameter)
        undo.add(
            when_imported(
                module, lambda found, name=function, way=way: made.on_database(found, name, way, undo)
            )
        )


def redirect_changes(
    places: Places, undo: Undo, *, removes: Callable[[Any], None], overwrites: Callable[[Any], None]
) -> None:
    """Have files be removed, replaced and written in the copies, until that is undone.

    `removes` or `overwrites` is told of each before its copy is looked for.
    """
    made = _Made(places)
    new: set[str] = set()

    def telling(original: Any, way: Callable[[Any], Any], told: Callable[..., None]) -> Instead:
        ours = way(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not is_at_work():
                with busy:
                    told(*args, **kwargs)
            return ours(*args, **kwargs)

        return Instead(original, call, original.__module__)

    def removed(path: Any, *_: Any, dir_fd: Any = None, **__: Any) -> None:
        if dir_fd is None:
            removes(path)

    def replaced(src: Any, dst: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None) -> None:
        for path, folder in ((src, src_dir_fd), (dst, dst_dir_fd)):
            if folder is None and isinstance(path, str | bytes | os.PathLike) and not os.path.islink(path):
                if path is src and os.path.abspath(os.fsdecode(path)) in new:
                    continue  # it is nobody's yet: a file that was written to take its place
                overwrites(path)

    def written(path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            if not os.path.lexists(path) and len(new) < _MOST_NEW:
                new.add(os.path.abspath(os.fsdecode(path)))
            overwrites(path)

    def opened(file: Any, mode: Any = "r", *_: Any, **__: Any) -> None:
        if isinstance(mode, str) and not _WRITES.isdisjoint(mode):
            written(file)

    def truncated(path: Any, *_: Any, **__: Any) -> None:
        overwrites(path)

    def opened_low(path: Any, flags: Any, *_: Any, dir_fd: Any = None, **__: Any) -> None:
        if dir_fd is None and _change_by(flags) != "none":
            written(path)

    ways = {"unlink": removed, "remove": removed, "truncate": truncated, "open": opened_low}
    for name, told in ways.items():
        replace(os, name, telling(getattr(os, name), made.one, told), undo)
    for name in ("rename", "replace"):
        replace(os, name, telling(getattr(os, name), made.two, replaced), undo)
    ours = telling(io.open, made.opened, opened)
    for owner in (builtins, io):
        undo.replace(owner, "open", ours)


def redirect(places: Places, undo: Undo, changes: Callable[[Any], None] | None = None) -> None:
    """Have Python code use the copies, until that is undone.

    `changes` is told of each path outside of them that is changed in the course of what is done to a copy.
    """
    made = _Made(places, changes=changes)
    taken: dict[int, Any] = {}
    for name in (*_ONE, *_TWO, "scandir", "symlink", "getcwd", "getcwdb"):
        original = getattr(os, name, None)
        if original is not None:
            way = made.two if name in _TWO else getattr(made, name, made.one)
            ours = Instead(original, way(original), "os")
            replace(os, name, ours, undo)
            taken.update(dict.fromkeys(map(id, ours.originals()), ours))
    # What it finds out by descriptors is not led to a copy, so that is made before.
    taken[id(shutil.rmtree)] = removed = Instead(shutil.rmtree, made.removed(shutil.rmtree), "shutil")
    undo.replace(shutil, "rmtree", removed)
    taken[id(io.open)] = opened = Instead(io.open, made.opened(io.open), "io")
    for owner in (builtins, io):
        undo.replace(owner, "open", opened)
    replace_taken(taken, undo)
    redirect_databases(places, undo)
    for name in ("dbm.gnu", "dbm.ndbm"):
        undo.add(when_imported(name, lambda module: made.on_database(module, "open", made.one, undo)))


class _Made:
    """Makes functions that use the copies."""

    def __init__(
        self,
        places: Places,
        opens: Callable[[Any, bool], None] | None = None,
        changes: Callable[[Any], None] | None = None,
    ) -> None:
        self._places = places
        self._opens = opens
        self._changes = changes
        self._databases: list[Instead] = []
        self._connections: dict[tuple[Any, bool], Any] = {}

    def on_database(self, module: ModuleType, name: str, way: Callable[[Any], Any], undo: Undo) -> None:
        """Put ours in the place of the module's function, until that is undone."""
        original = getattr(module, name, None)
        if isinstance(original, Instead) and original in self._databases:
            # The module took it, when it was imported, from the one in which it is replaced.
            undo.add(lambda: put_back(module, name, original))
        elif original is not None and not isinstance(original, Instead):
            ours = Instead(original, way(original), module.__name__)
            self._databases.append(ours)
            undo.replace(module, name, ours)

    def _copy(self, path: Any, *, follow: bool = True, change: Change = "none") -> Any:
        if is_at_work():
            return None
        with busy:
            copy = self._places.copy_of(path, follow=follow, change=change)
            if copy is None or change == "none" or self._places.original_of(os.fsdecode(copy)) is not None:
                return copy
        self._outside(copy)
        return copy

    def _outside(self, path: Any) -> None:
        if self._changes is not None:
            self._changes(path)

    def _call(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the original with copies; what it raises tells of the agent's own paths."""
        try:
            with busy:
                return original(*args, **kwargs)
        except OSError as error:
            for name in ("filename", "filename2"):
                told = getattr(error, name)
                if isinstance(told, str | bytes):
                    own = self._places.original_of(os.fsdecode(told))
                    if own is not None:
                        setattr(error, name, os.fsencode(own) if isinstance(told, bytes) else own)
            raise

    def one(self, original: Any) -> Callable[..., Any]:
        """Return a function whose first argument is a path."""
        name_of_it = getattr(original, "__name__", "")
        follows = name_of_it not in _ITSELF
        changes: Change = "part" if name_of_it in _CHANGES else "none"

        def call(*args: Any, **kwargs: Any) -> Any:
            name = "path" if "path" in kwargs else "file"
            given = args[0] if args else kwargs.get(name)
            if given is None or kwargs.get("dir_fd") is not None:
                return original(*args, **kwargs)
            change = changes
            if name_of_it == "open":
                change = _change_by(args[1] if len(args) > 1 else kwargs.get("flags"))
            copy = self._copy(given, follow=follows and kwargs.get("follow_symlinks", True), change=change)
            if copy is None:
                return original(*args, **kwargs)
            if args:
                return self._call(original, copy, *args[1:], **kwargs)
            return self._call(original, **{**kwargs, name: copy})

        return self._relinking(call) if name_of_it in _LINKS else call

    def _relinking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def relinking(*args: Any, **kwargs: Any) -> Any:
            try:
                return call(*args, **kwargs)
            finally:
                self._places.forget_links()

        return relinking

    def two(self, original: Any) -> Callable[..., Any]:
        """Return a function that moves from one path to another, or links them."""
        links = original.__name__ == "link"

        def call(src: Any, dst: Any, **kwargs: Any) -> Any:
            if any(kwargs.get(name) is not None for name in ("src_dir_fd", "dst_dir_fd")):
                return original(src, dst, **kwargs)
            first = self._copy(src, follow=False, change="part")
            second = self._copy(dst, follow=False, change="part" if links else "whole")
            if first is None and second is None:
                return original(src, dst, **kwargs)
            if first is None and not links and os.path.lexists(src):
                self._outside(src)
            if second is None:
                self._outside(dst)
            one, other = (src if first is None else first), (dst if second is None else second)
            if links and (first is None or second is None):
                # As one file it would be changed by way of its copy.
                return self._call(copy_beside, one, other)
            try:
                return self._call(original, one, other, **kwargs)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            # A copy may be on another disk than what it stands for.
            return self._call(copy_beside if links else move, one, other)

        return self._relinking(call)

    def removed(self, original: Any) -> Callable[..., Any]:
        """Return a function that removes a folder with all that is in it."""

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is None and not is_at_work():
                copy = self._copy(path, follow=False, change="part")
                if copy is None and os.path.lexists(path):
                    self._outside(path)
            return original(path, *args, **kwargs)

        return call

    def symlink(self, original: Any) -> Callable[..., Any]:
        """Return a function that makes a link, which may lead anywhere."""

        def call(src: Any, dst: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("dir_fd") is not None:
                return original(src, dst, *args, **kwargs)
            copy = self._copy(dst, follow=False, change="part")
            if copy is None:
                if not is_at_work():
                    self._outside(dst)
                return original(src, dst, *args, **kwargs)
            to = self._copy(src) if os.path.isabs(src) else None
            return self._call(original, src if to is None else to, copy, *args, **kwargs)

        return self._relinking(call)

    def readlink(self, original: Any) -> Callable[..., Any]:
        """Return a function that says where a link leads."""

        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            copy = self._copy(path, follow=False)
            if copy is None:
                return original(path, *args, **kwargs)
            found = self._call(original, copy, *args, **kwargs)
            own = self._places.original_of(os.fsdecode(found))
            return found if own is None else os.fsencode(own) if isinstance(found, bytes) else own

        return call

    def getcwd(self, original: Any) -> Callable[..., Any]:
        """Return a function that says in which folder the agent is, as the agent calls it."""

        def call() -> str:
            found = original()
            return self._places.original_of(found) or found

        return call

    def getcwdb(self, original: Any) -> Callable[..., Any]:
        """Return the same function for bytes."""

        def call() -> bytes:
            found = original()
            own = self._places.original_of(os.fsdecode(found))
            return found if own is None else os.fsencode(own)

        return call

    def scandir(self, original: Any) -> Callable[..., Any]:
        """Return a function that lists a folder, its entries as in the agent's own."""

        def call(path: Any = ".") -> Any:
            copy = self._copy(path)
            if copy is None:
                return original(path)
            return Scan(self._call(original, copy), os.fspath(path))

        return call

    def opened(self, original: Any) -> Callable[..., Any]:
        """Return `open`, whose files have the names by which they were opened."""

        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            if (args[6] if len(args) > 6 else kwargs.get("opener")) is not None:
                return original(file, *args, **kwargs)  # who opens it comes by here
            mode = args[0] if args else kwargs.get("mode")
            writes = isinstance(mode, str) and not _WRITES.isdisjoint(mode)
            copy = None if isinstance(file, int) else self._copy(file, change="part" if writes else "none")
            if copy is None:
                return original(file, *args, **kwargs)
            # By an opener the file is called as the agent calls it.
            kwargs["opener"] = lambda _, flags: _os_open(copy, flags, 0o666)
            return self._call(original, file, *args[:6], **kwargs)

        return call

    def native(self, original: Any, *, parameter: str) -> Callable[..., Any]:
        """Return a function of a library, whose first argument is a path, or `parameter` is."""

        def call(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs.get(parameter)
            if self._places.over or not isinstance(given, str | os.PathLike):
                return original(*args, **kwargs)
            copy = self._copy(given)
            if copy is None:
                if str(given) and str(given)[0] != ":" and not _only_reads(kwargs):
                    self._outside(given)
                return original(*args, **kwargs)
            if args:
                return self._call(original, copy, *args[1:], **kwargs)
            return self._call(original, **{**kwargs, parameter: copy})

        return call

    def connect(self, original: Any) -> Callable[..., Any]:
        """Return `sqlite3.connect`, which takes paths and URIs."""

        def call(*args: Any, **kwargs: Any) -> Any:
            database = args[0] if args else kwargs.get("database")
            uri = kwargs.get("uri", len(args) > 7 and args[7])
            copy = self._database(database, uri=bool(uri))
            args, kwargs = self._leading(args, kwargs, uri=bool(uri))
            if copy is None:
                return original(*args, **kwargs)
            if args:
                return self._call(original, copy, *args[1:], **kwargs)
            return self._call(original, **{**kwargs, "database": copy})

        return call

    def _leading(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, uri: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with a class of connections whose SQL opens the copies, too."""
        if self._places.over or is_at_work():
            return args, kwargs
        from sqlite3 import Connection

        from .attached import leading

        given = args[5] if len(args) > 5 else kwargs.get("factory", Connection)
        known = self._connections.get((given, uri))
        if known is None:
            known = leading(given, lambda name: self._database(name, uri=uri))
            self._connections[given, uri] = known
        if len(args) > 5:
            return (*args[:5], known, *args[6:]), kwargs
        return args, {**kwargs, "factory": known}

    def _database(self, database: Any, *, uri: bool) -> Any:
        path = file_of(database, uri=uri)
        if path is None or self._places.over or is_at_work():
            return None
        if self._opens is not None:
            with busy:
                self._opens(database, uri)
        text = os.fsdecode(database)
        if not (uri and text.startswith("file:")):
            return self._copy(database)
        copy = self._copy(path)
        _, mark, query = text.partition("?")
        return None if copy is None else f"file:{quote(copy)}{mark}{query}"


_os_open = os.open


def _only_reads(asked: Mapping[str, Any]) -> bool:
    return bool(asked.get("read_only") or asked.get("readonly"))


def _change_by(flags: Any) -> Change:
    return "part" if isinstance(flags, int) and flags & WRITING else "none"
