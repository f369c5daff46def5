"""What a program imported of what is installed: a process that has done so too can be forked in its place."""

from __future__ import annotations

import atexit
import json
import os
import site
import sys
import sysconfig
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_OURS = ("tracefork_otel", "tracefork_backend", "sitecustomize", "usercustomize", "__main__", "__mp_main__")


def tell_at_exit(path: Path) -> None:
    """Have this process write at its end, as JSON, which installed modules it imported, in their order.

    Between their names stands what had changed in the environment when the next of them was imported, as
    {variable: its value, None where it was taken away}: modules read it. A process that is killed tells
    nothing.
    """
    process, changes = os.getpid(), list[tuple[int, dict[str, str | None]]]()
    known = dict(os.environ)

    def on(event: str, args: tuple[Any, ...]) -> None:
        nonlocal known
        if event != "import" or os.getpid() != process:
            return
        now = dict(os.environ)
        if now != known:
            changed: dict[str, str | None] = {
                name: now.get(name) for name in now.keys() | known.keys() if now.get(name) != known.get(name)
            }
            changes.append((len(sys.modules), changed))
            known = now

    def tell() -> None:
        if os.getpid() != process:
            return
        told: list[str | dict[str, str | None]] = []
        left = iter([*changes, (sys.maxsize, {})])
        place, changed = next(left)
        for at, (name, module) in enumerate([*sys.modules.items()]):
            while at >= place:
                told.append(changed)
                place, changed = next(left)
            if is_installed(name, module):
                told.append(name)
        with suppress(OSError):
            hidden = path.with_name(f".{path.name}-{process}")
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(told, file)
            os.replace(hidden, path)

    sys.addaudithook(on)
    atexit.register(tell)


def is_installed(name: str, module: ModuleType) -> bool:
    """Return whether the module is Python's or an installed package's, and can be imported by this name."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or name.partition(".")[0] in _OURS:
        return False
    if not spec.has_location:  # a folder without a file of its own comes with what is below it
        return spec.submodule_search_locations is None
    return is_below_installed(spec.origin)


def is_below_installed(file: str | None) -> bool:
    """Return whether the file is Python's own or an installed package's."""
    return file is not None and os.path.realpath(file).startswith(_places())


@cache
def _places() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    places = (*map(sysconfig.get_path, names), *site.getsitepackages(), site.getusersitepackages())
    return tuple({os.path.realpath(place) + os.sep for place in places})
