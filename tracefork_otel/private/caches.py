"""Caches on disk of known libraries: a replay or fork has one of its own, empty at first.

Else what a fork was answered would be the next ordinary run's answer, and a warm cache would be asked where
the recording asked a model.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..files import own_folder
from ..session.imports import when_imported
from ..session.session import Session
from ..state.giving import cache_in
from ..undo import Undo


class _Known(NamedTuple):
    """A class whose objects keep answers on disk."""

    module: str
    name: str
    argument: str
    """The parameter that says where."""


KNOWN = (
    # DSPy's, litellm's and instructor's are of these two.
    _Known("diskcache.fanout", "FanoutCache", "directory"),
    _Known("diskcache.core", "Cache", "directory"),
    _Known("langchain_community.cache", "SQLiteCache", "database_path"),
)


def private_caches(session: Session, folder: Path, use: Callable[[str, str], bool], undo: Undo) -> None:
    """Have the caches that are made from now on be in the folder, until that is undone.

    `use` has a path stand for another one, and says whether it did not before.
    """

    def moved(path: str, library: str) -> None:
        copy = cache_in(folder, path)
        for made in (copy.parent.parent, copy.parent):
            own_folder(made)
        if use(path, str(copy)):
            session.note("cache", {"path": path, "library": library})

    for known in KNOWN:
        undo.add(when_imported(known.module, lambda module, one=known: _on(module, one, moved, undo)))


def _on(module: ModuleType, known: _Known, moved: Callable[[str, str], None], undo: Undo) -> None:
    cls: Any = getattr(module, known.name)
    original = cls.__init__
    signature = inspect.signature(original)

    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        place = bound.arguments.get(known.argument)
        if place is not None:  # else it is a temporary one
            named = os.path.expandvars(os.path.expanduser(os.fspath(place)))
            moved(os.path.abspath(named), known.module.partition(".")[0])
        original(self, *args, **kwargs)

    undo.replace(cls, "__init__", init)
