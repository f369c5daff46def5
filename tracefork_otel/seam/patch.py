"""The one place that touches HTTP clients: a wrapper around `_send_single_request` of httpx2 and httpx."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from .. import private_names as names
from ..session import current
from ..session.session import Session
from .recording import arecord, known_body, record
from .routing import aside, note_missed, routed
from .streams import Tees, tees_for
from .supported import is_supported


@dataclass(slots=True)
class _Patch:
    """A wrapped method; `active` is False where another's patch over ours keeps us from removing it."""

    cls: type[Any]
    module: ModuleType
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


def taken_out() -> list[str]:
    """Return the client classes in which another library put back what was there before our wrapper."""
    return [
        f"{patch.cls.__module__.partition('.')[0]}.{patch.cls.__name__}"
        for patch in _patches
        if patch.active and _leads_to(patch.original, patch.cls.__dict__.get(names.SEND))
    ]


def put_back() -> list[str]:
    """Wrap the classes of `taken_out` anew, around what is there now, and return their names."""
    gone = taken_out()
    if gone:
        for module in {id(patch.module): patch.module for patch in _patches}.values():
            install(module)
    return gone


def _leads_to(method: object, older: object) -> bool:
    """Return whether the function is the older one, or was seen to be put around it."""
    met, left = set[int](), [method]
    while left:
        one = left.pop()
        if one is older:
            return True
        if not isinstance(one, FunctionType) or id(one) in met:
            continue
        met.add(id(one))
        left += [one.__globals__.get(name) for name in one.__code__.co_names]
        for cell in one.__closure__ or ():
            with suppress(ValueError):  # it is empty
                left.append(cell.cell_contents)
    return False


def _wrap(cls: type[Any], module: ModuleType, tees: Tees, *, is_async: bool) -> None:
    present = cls.__dict__[names.SEND]
    for patch in list(_patches):
        if patch.cls is cls:
            if not _leads_to(patch.original, present):
                patch.active = True
                return
            _patches.remove(patch)  # somebody restored what was there before: our wrapper is gone
    patch = _Patch(cls, module, present, present)
    patch.wrapper = functools.wraps(present)(_wrapper(patch, module, tees, is_async=is_async))
    setattr(cls, names.SEND, patch.wrapper)
    _patches.append(patch)


def _wrapper(patch: _Patch, module: ModuleType, tees: Tees, *, is_async: bool) -> Callable[..., Any]:
    original = _unbound(patch.original)

    def send(client: Any, request: Any) -> Any:
        session = current.session
        if session is None or not patch.active:
            return original(client, request)
        try:
            sender = _sender(session, module, request, is_async=is_async)
        except Exception as error:
            if session.player is not None:
                raise  # a replay sends nothing
            session.lost("start of an exchange", error)
            sender = None
        if sender is None:
            return original(client, request)
        return sender(session, module, tees, original, client, request)

    async def asend(client: Any, request: Any) -> Any:
        return await send(client, request)

    return asend if is_async else send


def _unbound(method: Any) -> Callable[..., Any]:
    """Return what takes the client as its first argument, whatever kind of descriptor the method is.

    Called as it stands, a wrapper of wrapt (ddtrace's, New Relic's) would take the client for the request.
    """
    if type(method) is FunctionType:  # wrapt's would say by isinstance that they are functions
        return method
    return lambda client, request: method.__get__(client, type(client))(request)


def _sender(
    session: Session, module: ModuleType, request: Any, *, is_async: bool
) -> Callable[..., Any] | None:
    """Return what records in this session, plays, or leaves the request aside; None to send it as it is."""
    way, who = routed(session, request, lambda: known_body(module, request)[0])
    if way == "aside":
        return functools.partial(asend_aside if is_async else send_aside, who=who)
    if way == "paused":
        return amissed_while_paused if is_async else missed_while_paused
    if way == "record":
        return arecord if is_async else record
    if way == "own":
        return None
    from . import playing

    if way == "kept":
        return functools.partial(playing.akeep if is_async else playing.keep, who=who)
    if way == "refuse":
        return playing.arefuse if is_async else playing.refuse
    return playing.asend if is_async else playing.send


def send_aside(
    session: Session,
    module: ModuleType,
    tees: Tees,
    original: Callable[..., Any],
    client: Any,
    request: Any,
    *,
    who: str,
) -> Any:
    """Send the request as no part of what the agent does."""
    with aside(session, request.url, who):
        return original(client, request)


async def asend_aside(
    session: Session,
    module: ModuleType,
    tees: Tees,
    original: Callable[..., Any],
    client: Any,
    request: Any,
    *,
    who: str,
) -> Any:
    """Do what `send_aside` does, for an asynchronous client."""
    with aside(session, request.url, who):
        return await original(client, request)


def missed_while_paused(
    session: Session, module: ModuleType, tees: Tees, original: Callable[..., Any], client: Any, request: Any
) -> Any:
    """Send the request unrecorded, as the agent turned the recording off, and note that there was one."""
    note_missed(session, request.url.host)
    return original(client, request)


async def amissed_while_paused(
    session: Session, module: ModuleType, tees: Tees, original: Callable[..., Any], client: Any, request: Any
) -> Any:
    """Do what `missed_while_paused` does, for an asynchronous client."""
    return await missed_while_paused(session, module, tees, original, client, request)
