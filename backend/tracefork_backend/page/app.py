"""The page as an application: which address is answered by what, and how a failure is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tracefork_otel.errors import TraceforkError, UnknownRun, UsageError

from . import acting, looking
from .context import Page

_FORM = 32 * 1024 * 1024
"""Bytes of a filled form: a prompt of a few megabytes fits."""


def application(page: Page) -> Starlette:
    """Return what answers the page's addresses to whoever has passed the guard."""
    get = {**looking.GET, **acting.GET}
    return Starlette(
        routes=[
            *(Route(path, _asked(page, one), methods=["GET"]) for path, one in get.items()),
            *(Route(path, _with_form(page, one), methods=["POST"]) for path, one in acting.POST.items()),
        ],
        exception_handlers={
            TraceforkError: partial(_failed, page),
            404: partial(_nothing_here, page),
            405: partial(_nothing_here, page),
        },
    )


def _asked(page: Page, handler: Callable[[Page, Request], Response]) -> Any:
    """Return what asks the handler on a thread of its own: it reads the store."""

    async def asked(request: Request) -> Response:
        return await run_in_threadpool(handler, page, request)

    return asked


def _with_form(page: Page, handler: Callable[[Page, Request, Mapping[str, str]], Response]) -> Any:
    """Return the same of the handler of a filled form."""

    async def asked(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > _FORM:
                return PlainTextResponse("the form is larger than 32 MB\n", 413)
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        return await run_in_threadpool(handler, page, request, form)

    return asked


async def _failed(page: Page, request: Request, error: Exception) -> Response:
    status = 404 if isinstance(error, UnknownRun) else 400 if isinstance(error, UsageError) else 503
    if request.headers.get("hx-request-type") == "partial" or request.method == "POST":
        return page.part("problem.html", problem=str(error), status=status)
    return page.whole("error.html", problem=str(error), status=status)


async def _nothing_here(page: Page, request: Request, error: Exception) -> Response:
    known = isinstance(error, HTTPException) and error.status_code == 405
    what = "this cannot be asked for so" if known else "there is no such page"
    answer = page.whole("error.html", problem=what, status=405 if known else 404)
    if isinstance(error, HTTPException):
        answer.headers.update(error.headers or {})
    return answer
