"""Requests as a fork's changes make them, for a replay or fork of it, whose agent asks as it always did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from ..errors import UsageError
from ..exchange import Request
from .intervention import Intervention
from .onward import with_edits

_WAYS = 64


def changed_by(changes: Iterable[Intervention], request: Request) -> list[Request]:
    """Return the request, and each other one that some of the changes make of it, in their order."""
    ways = [request]
    for change in changes:
        for one in tuple(ways):
            for made in (_at_its_step(change, one), _onward(change, one)):
                if made is not None and made not in ways and len(ways) < _WAYS:
                    ways.append(made)
    return ways


def held_by(changes: Iterable[Intervention], request: Request) -> Request:
    """Return the request with all that holds in each; itself where nothing does."""
    for change in changes:
        request = _onward(change, request) or request
    return request


def _at_its_step(change: Intervention, request: Request) -> Request | None:
    if not change.edits and change.path is None:
        return None
    try:
        made = with_edits(request, change.edits)
    except UsageError:
        return None  # another request, which has no such path
    if change.path is None:
        return made
    return replace(made, url=urlsplit(made.url)._replace(path=change.path).geturl())


def _onward(change: Intervention, request: Request) -> Request | None:
    held = None if change.onward is None else change.onward.held(request)
    return None if held is None else held.request
