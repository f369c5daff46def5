"""Functions of ours in the places of others, and whether it is we who are at work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import update_wrapper
from types import FunctionType, ModuleType
from typing import Any

from ..undo import Undo

_CAPABLE = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
"""What `os` says of its functions, in which ours take their places."""

_ORIGINALS = {
    "posix",
    "os",
    "io",
    "_io",
    "builtins",
    "importlib",
    "_frozen_importlib_external",
    "tracefork_otel",
}
"""Modules that have the originals, or use them for themselves."""

_at_work = threading.local()


def is_at_work() -> bool:
    """Return whether this thread opens a copy, or finds out whether there is one."""
    return getattr(_at_work, "busy", False)


class _Busy:
    def __enter__(self) -> None:
        _at_work.busy = True

    def __exit__(self, *of_error: object) -> None:
        _at_work.busy = False


busy = _Busy()


class Instead:
    """A function in the place of one that is built in: like it, it is no method where it is in a class."""

    def __init__(self, original: Any, ours: Callable[..., Any], module: str) -> None:
        update_wrapper(self, original)
        self.__module__ = module
        self._ours = ours
        self.original = original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ours returns."""
        return self._ours(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.original)

    def originals(self) -> Iterator[Any]:
        """Say in whose place it is, and in whose place that was."""
        original = self.original
        while isinstance(original, Instead):
            yield original
            original = original.original
        yield original

    def __reduce__(self) -> str:
        return str(self.__name__)  # type: ignore[attr-defined]  # pickled by its name, as the original is


def replace(owner: Any, name: str, ours: Any, undo: Undo) -> None:
    """Set the owner's function, which can do what the one that was there can, until that is undone."""
    original = getattr(owner, name)
    undo.replace(owner, name, ours)
    for capable in _CAPABLE:
        functions: set[Any] = getattr(owner, capable, set[Any]())
        if original in functions:
            functions.add(ours)
            undo.add(lambda functions=functions: functions.discard(ours))


def replace_taken(taken: Mapping[int, Any], undo: Undo) -> None:
    """Replace the functions also in the modules that took them for their own, as `bz2` and `tarfile` do.

    `taken` has ours by the identity of the originals.
    """
    for name, module in list(sys.modules.items()):
        if type(module) is ModuleType and name.partition(".")[0] not in _ORIGINALS:
            found = [(one, taken.get(id(value))) for one, value in list(vars(module).items())]
            for one, ours in found:
                if ours is not None:
                    undo.replace(module, one, ours)
    # A temporary file is removed by a function that is the default of an argument.
    closer: Any = getattr(sys.modules.get("tempfile"), "_TemporaryFileCloser", None)
    for function in list(vars(closer).values()) if closer is not None else ():
        if type(function) is FunctionType and function.__defaults__:
            defaults = tuple(taken.get(id(value), value) for value in function.__defaults__)
            undo.replace(function, "__defaults__", defaults)


def put_back(module: ModuleType, name: str, ours: Instead) -> None:
    """Set the module's function to the original, if it is ours."""
    if getattr(module, name, None) is ours:
        setattr(module, name, ours.original)
