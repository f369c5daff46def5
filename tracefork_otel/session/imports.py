"""Callbacks for the moment at which a module is imported, so that we import nothing ourselves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import ModuleType

from wrapt import register_post_import_hook

from .. import private_names as names
from ..log import LOG

Callback = Callable[[ModuleType], None]


def when_imported(name: str, callback: Callback) -> Callable[[], None]:
    """Call back with the module, now or right after its import; return what forgets about it.

    The hooks are wrapt's, as those of other tracers are: a finder of our own would meet theirs.
    """
    if is_being_imported(name):
        with suppress(Exception):
            import_module(name)  # waits for another thread's import
    if is_being_imported(name):
        LOG.warning(
            "tracefork cannot see when the import of %s ends, as it was called from within: call "
            "TraceforkInstrumentor().instrument() after that import",
            name,
        )
        return lambda: None
    wanted = True

    def hook(module: ModuleType) -> None:
        if not wanted:
            return
        try:
            callback(module)
        except Exception:
            LOG.exception("tracefork could not hook into %s", name)

    def forget() -> None:
        # wrapt has no way to take a hook off again.
        nonlocal wanted
        wanted = False

    register_post_import_hook(hook, name)
    return forget


def is_being_imported(name: str) -> bool:
    """Return whether an import of the module has begun, and not ended."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, names.INITIALIZING, False))
