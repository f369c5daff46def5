"""An agent function called in this process, every request of which is served from a tape meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context

from tracefork_otel import launch
from tracefork_otel.decorators.generators import consumed
from tracefork_otel.settings import Settings

_one_at_a_time = threading.Lock()


@contextmanager
def playing(settings: Settings, trace_id: str, span_id: str) -> Iterator[None]:
    """Serve this process with all its threads from the tape within the block, recorded below that span."""
    remote = (int(trace_id, 16), int(span_id, 16), 1)
    with _one_at_a_time, launch.playing(settings, remote=remote):
        # The caller's own span, if one is open here, is no part of the replay.
        token = otel_context.attach(otel_context.Context())
        try:
            yield
        finally:
            otel_context.detach(token)


def call(function: Callable[..., Any], arguments: Any) -> Any:
    """Call the function, with the recorded arguments if it takes them; return what it gives in the end."""
    given = arguments or {}
    args, kwargs = given.get("args", ()), given.get("kwargs", {})
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):
        args, kwargs = (), {}
    return consumed(function(*args, **kwargs), _awaited)


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    # The loop of a notebook runs in this thread already, so the agent gets one in a thread of its own.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
