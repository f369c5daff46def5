"""What an agent that runs again writes outside of its copies, seen by Python's audit events and noted."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..session import current
from ..session.session import Session
from ..undo import Undo
from .databases import database_of
from .instead import is_at_work
from .places import temporary_folder
from .redirect import WRITING

_CHANGING = {"os.remove": 1, "os.rename": 2, "os.truncate": 1, "os.rmdir": 1}
"""Audit events of changes, and how many paths each has: after these, their folders."""
_EVENTS = frozenset({"open", "sqlite3.connect", *_CHANGING})
_MOST = 20
"""So many files of one process are noted: who writes more is known by then."""
_NOBODYS = ("/dev/", "/proc/", "/sys/")

_installed = False
_inside = threading.local()
_watches: list[_Watch] = []


class _Watch:
    def __init__(self, session: Session, spared: Iterable[Path]) -> None:
        self._session = session
        folders = {os.path.realpath(one) for one in (*spared, sys.prefix, sys.base_prefix)}
        folders.add(temporary_folder())
        self._spared = (*_NOBODYS, *(folder.rstrip("/") + "/" for folder in folders))
        self._noted: set[tuple[str, str]] = set()

    def saw(self, path: Any, *, folders: bool) -> None:
        """Note that this file is about to be changed, or folder if it may be one."""
        if isinstance(path, int) or path is None or len(self._noted) >= _MOST:
            return
        named = os.path.abspath(os.fsdecode(path))
        once = (self._session.process_id, named)
        if once in self._noted or "/__pycache__/" in named:
            return
        real = os.path.realpath(named)
        if f"{real}/".startswith(self._spared):
            return
        try:
            mode = os.stat(real).st_mode
            if not (stat.S_ISREG(mode) or (folders and stat.S_ISDIR(mode))):
                return  # a terminal, a pipe, or a folder that is listed
        except OSError:
            pass  # it is about to be made
        self._noted.add(once)
        self._session.note("written", {"path": named})


def watch_writes(session: Session, spared: Iterable[Path], undo: Undo) -> Callable[[Any], None]:
    """Note the files that this process opens for writing, but in `spared` folders, until that is undone.

    Returns what notes another one.
    """
    global _installed
    watch = _Watch(session, spared)
    _watches.append(watch)
    undo.add(lambda: _watches.remove(watch))
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)  # for good: audit hooks cannot be taken off
    return lambda path: _saw((path,), folders=True)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event in _EVENTS and _watches and not is_at_work() and not getattr(_inside, "hook", False):
        _saw(_paths(event, args))


def _saw(paths: Iterable[Any], *, folders: bool = False) -> None:
    session = current.session
    _inside.hook = True
    try:
        for path in paths:
            if _watches:
                _watches[-1].saw(path, folders=folders)
    except Exception as error:
        if session is not None:
            session.lost("watch of files", error)
    finally:
        _inside.hook = False


def _paths(event: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if event == "open":
        path, _, flags = args
        return (path,) if isinstance(flags, int) and flags & WRITING else ()
    if event == "sqlite3.connect":
        found = database_of(args[0])
        return () if found is None else (found,)
    paths = _CHANGING[event]
    if event == "os.truncate":
        return args[:paths]
    # Where a folder is given by a descriptor it is not known which one that is.
    return tuple(path for path, folder in zip(args[:paths], args[paths:], strict=False) if folder == -1)
