"""The one place that touches urllib3, hence requests and botocore: a wrapper around an attempt of a pool."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .. import private_names as names
from ..session import current
from .http1 import TUNNEL
from .supported import left_alone

_originals: dict[tuple[type[Any], str], tuple[Callable[..., Any], Callable[..., Any]]] = {}
"""What was there, and ours, by class and name."""


def install(module: ModuleType) -> None:
    """Wrap the pools of urllib3, once; a version that cannot be is left alone, which is said."""
    pools = sys.modules[f"{module.__name__}.connectionpool"]
    plain, secure = pools.HTTPConnectionPool, pools.HTTPSConnectionPool
    make, prepare = names.MAKE_REQUEST, names.PREPARE_PROXY
    needed = ((plain, make), (plain, prepare), (secure, prepare))
    lacking = [f"{cls.__name__}.{name}" for cls, name in needed if name not in vars(cls)]
    if lacking:
        left_alone(module, f"it has no {lacking[0]}")
        return
    _wrap(plain, make, lambda original: _making(module, original))
    for cls in (plain, secure):
        _wrap(cls, prepare, _preparing)


def uninstall() -> None:
    """Stop capturing; what others put over ours stays as it is, and goes by ours to what was there."""
    for (cls, name), (original, ours) in list(_originals.items()):
        if cls.__dict__.get(name) is ours:
            setattr(cls, name, original)
            del _originals[cls, name]


def is_captured() -> bool:
    """Return whether urllib3 is wrapped."""
    return bool(_originals)


def _wrap(cls: type[Any], name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    original = cls.__dict__[name]
    if (cls, name) not in _originals:
        ours = functools.wraps(original)(make(original))
        setattr(cls, name, ours)
        _originals[cls, name] = original, ours


def _preparing(original: Callable[..., Any]) -> Callable[..., Any]:
    def prepare(pool: Any, conn: Any) -> Any:
        if current.session is None:
            return original(pool, conn)
        # Once it is known for which request, and that this goes out: what fails here is how that one ends.
        setattr(conn, TUNNEL, functools.partial(original, pool, conn))
        return None

    return prepare


def _making(module: ModuleType, original: Callable[..., Any]) -> Callable[..., Any]:
    def make(pool: Any, *args: Any, **kwargs: Any) -> Any:
        session = current.session
        if session is None:
            tunnel = vars(args[0] if args else kwargs["conn"]).pop(TUNNEL, None)
            if tunnel is not None:  # the recorder was turned off in between
                tunnel()
            return original(pool, *args, **kwargs)
        from . import pooling  # it loads OpenTelemetry, and many programs only import urllib3

        return pooling.sent(session, module, original, pool, args, kwargs)

    return make
