"""Programs that this process starts: what they are given of kept files, and where they start, is the copy."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, cast

from ..session import current
from ..session.imports import when_imported
from ..session.interpreter import is_python
from ..undo import Undo
from .instead import busy, is_at_work
from .places import Places

_OURS = "TRACEFORK_"


def lead_programs(places: Places, undo: Undo) -> None:
    """Have programs be started on the copies, until that is undone.

    A Python finds them by itself; of a shell's line nothing is changed but the folder in which it runs.
    """
    undo.add(when_imported("subprocess", lambda module: _on_subprocess(module, places, undo)))


def _on_subprocess(module: ModuleType, places: Places, undo: Undo) -> None:
    original = module.Popen.__init__

    @functools.wraps(original)
    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        if places.over or not places or is_at_work():
            original(self, *args, **kwargs)
            return
        bound = inspect.signature(original).bind(self, *args, **kwargs)
        given = dict(bound.arguments)
        try:
            with busy:
                bound.arguments.update(_led(given, places))
        except Exception as error:
            if current.session is not None:
                current.session.lost("arguments of a program", error)
        try:
            original(*bound.args, **bound.kwargs)
        except OSError as error:
            own = None if error.filename is None else places.original_of(os.fsdecode(error.filename))
            error.filename = own or error.filename
            raise
        finally:
            self.args = given["args"]

    undo.replace(module.Popen, "__init__", start)


def _led(given: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Return what is to be given instead, by the names of the parameters."""
    led: dict[str, Any] = {}
    cwd, argv = given.get("cwd"), given["args"]
    is_line = isinstance(argv, str | bytes | os.PathLike)
    words = [argv] if is_line else list(cast("Sequence[Any]", argv))
    if words and is_python(os.path.basename(os.fsdecode(words[0]))):
        return led
    here = os.getcwd()
    own = places.original_of(here)
    folder = os.path.join(own or here, os.fsdecode(cwd) if cwd is not None else "")
    copied = places.copy_of(cwd if cwd is not None else here)
    if copied is not None and os.path.isdir(copied):
        led["cwd"] = copied
    copied = copied or (own if cwd is None else None)
    env = given.get("env")
    found = dict(os.environ if env is None else env)
    moved = {
        name: copy
        for name, value in found.items()
        if not os.fsdecode(name).startswith(_OURS) and (copy := places.root_copy_of(value)) is not None
    }
    if moved:
        led["env"] = {**found, **moved}
    if not (is_line or given.get("shell")):
        # In a folder that is a copy itself, what is relative is right as it is.
        led["args"] = [words[0], *(_word(word, None if copied else folder, places) for word in words[1:])]
    return led


def _word(word: Any, folder: str | None, places: Places) -> Any:
    """Return the argument with the copy in it, if it is a path of one, or ends in one after `=`."""
    text = os.fsdecode(word)
    before, mark, path = text.rpartition("=")
    if not mark:
        before, path = "", text
    if path[:1] != "/":
        if folder is None or not path:
            return word
        path = os.path.join(folder, path)
    copy = places.copy_of(path)
    if copy is None or not (os.path.lexists(copy) or places.root_copy_of(os.path.normpath(path))):
        return word
    made = before + mark + copy
    return os.fsencode(made) if isinstance(word, bytes) else made
