"""The one place that touches HTTP clients: a wrapper around `_send_single_request` of httpx2 and httpx."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS

from .. import private_names as names
from ..session import current
from ..session.session import Session
from .recording import arecord, record
from .streams import Tees, tees_for
from .supported import is_supported


@dataclass(slots=True)
class _Patch:
    """A wrapped method; `active` is False where another's patch over ours keeps us from removing it."""

    cls: type[Any]
    original: Callable[..., Any]
    wrapper: Callable[..., Any]
    active: bool = True


_patches: list[_Patch] = []


def install(module: ModuleType) -> None:
    """Wrap the client classes of this module, once, whatever names the module goes by."""
    if not is_supported(module):
        return
    tees = tees_for(module)
    _wrap(module.Client, module, tees, is_async=False)
    _wrap(module.AsyncClient, module, tees, is_async=True)


def uninstall() -> None:
    """Stop capturing; a patch that others put over ours stays as it is."""
    for patch in list(_patches):
        patch.active = False
        if patch.cls.__dict__.get(names.SEND) is patch.wrapper:
            setattr(patch.cls, names.SEND, patch.original)
            _patches.remove(patch)


def _wrap(cls: type[Any], module: ModuleType, tees: Tees, *, is_async: bool) -> None:
    present = cls.__dict__[names.SEND]
    for patch in list(_patches):
        if patch.cls is cls:
            if present is not patch.original:
                patch.active = True
                return
            _patches.remove(patch)  # somebody restored the original: our wrapper is gone
    patch = _Patch(cls, present, present)
    patch.wrapper = functools.wraps(present)(_wrapper(patch, module, tees, is_async=is_async))
    setattr(cls, names.SEND, patch.wrapper)
    _patches.append(patch)


def _wrapper(patch: _Patch, module: ModuleType, tees: Tees, *, is_async: bool) -> Callable[..., Any]:
    original = patch.original

    def send(client: Any, request: Any) -> Any:
        session = current.session
        if session is None or not patch.active or _suppressed():
            return original(client, request)
        sender = _sender(session, is_async=is_async)
        return sender(session, module, tees, original, client, request)

    async def asend(client: Any, request: Any) -> Any:
        return await send(client, request)

    return asend if is_async else send


def _sender(session: Session, *, is_async: bool) -> Callable[..., Any]:
    """Return what records in this session, or plays."""
    if session.player is None:
        return arecord if is_async else record
    from . import playing

    return playing.asend if is_async else playing.send


def _suppressed() -> bool:
    # Exporters set this around their own calls. The key for HTTP spans alone is set by SDK instrumentations
    # around the very calls that are to be recorded, so it does not count.
    return bool(otel_context.get_value(SUPPRESS))
