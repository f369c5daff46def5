"""Callbacks for the moment at which a module is imported, so that we import nothing ourselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..log import LOG

Callback = Callable[[ModuleType], None]

_waiting: dict[str, list[Callback]] = {}


def when_imported(name: str, callback: Callback) -> Callable[[], None]:
    """Call back with the module, now or right after its import; return what forgets about it."""
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        callback(module)
        return lambda: None
    _waiting.setdefault(name, []).append(callback)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return lambda: _forget(name, callback)


def _forget(name: str, callback: Callback) -> None:
    callbacks = _waiting.get(name, [])
    if callback in callbacks:
        callbacks.remove(callback)
    if not callbacks:
        _waiting.pop(name, None)
    if not _waiting and _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)


class _Finder:
    """Finds nothing itself: it lets the other finders find, and watches the module being executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have for a module that somebody waits for, else None."""
        if name not in _waiting:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    _watch(name, spec.loader)
                return spec
        return None


def _watch(name: str, loader: Any) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        for callback in _waiting.pop(name, []):
            try:
                callback(module)
            except Exception:
                LOG.exception("tracefork could not hook into %s", name)

    try:
        loader.exec_module = exec_module
    except AttributeError:
        LOG.warning(
            "tracefork cannot see when %s is imported (its loader is %r): call "
            "TraceforkInstrumentor().instrument() after that import",
            name,
            type(loader).__name__,
        )


_FINDER: Any = _Finder()
