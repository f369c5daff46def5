"""The one line that turns recording on: `TraceforkInstrumentor().instrument()`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from . import launch
from .errors import UsageError
from .log import LOG
from .session import current
from .session.imports import when_imported
from .session.session import Session
from .settings import Settings

_STOCK = {"httpx2": "HTTPX2ClientInstrumentor", "httpx": "HTTPXClientInstrumentor"}


class TraceforkInstrumentor(BaseInstrumentor):
    """The switch that turns recording on and off in this process; also found by `opentelemetry-instrument`.

    >>> from tracefork_otel import TraceforkInstrumentor
    >>> TraceforkInstrumentor().instrument(store="runs")
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no requirement: whichever clients are installed are captured."""
        return ()

    def instrument(
        self,
        *,
        store: str | Path | None = None,
        tracer_provider: Any = None,
        http_spans: bool | None = None,
        event_body_limit: int | None = None,
        redact_headers: Iterable[str] | None = None,
        redact_params: Iterable[str] | None = None,
        redact: str | Path | None = None,
        draws: bool | None = None,
        draws_include: Iterable[str] | None = None,
        **others: Any,
    ) -> None:
        """Record every HTTP exchange of this process from now on, through clients old and new.

        An argument that is not given comes from the environment (see `Settings`). In a process that
        `tracefork-otel run` or a replay started, mode and store are theirs, whatever is given here.
        """
        given = {
            "store": None if store is None else Path(store),
            "http_spans": http_spans,
            "event_body_limit": event_body_limit,
            "redact_headers": None if redact_headers is None else tuple(redact_headers),
            "redact_params": None if redact_params is None else tuple(redact_params),
            "redact": None if redact is None else Path(redact).absolute(),
            "draws": draws,
            "draws_include": None if draws_include is None else tuple(draws_include),
        }
        if "skip_dep_check" in others or "raise_exception_on_conflict" in others:
            others.setdefault("via", "entry_point")  # only `opentelemetry-instrument` gives these
        super().instrument(
            tracer_provider=tracer_provider,
            given={name: value for name, value in given.items() if value is not None},
            **others,
        )

    def _instrument(self, **kwargs: Any) -> None:
        tracer_provider = kwargs.pop("tracer_provider", None)
        given: dict[str, Any] = kwargs.pop("given", {})
        via: str = kwargs.pop("via", "instrument")
        sink = kwargs.pop("sink", None)
        if kwargs:
            raise UsageError(f"instrument() has no argument {', '.join(sorted(kwargs))}: see its docstring")
        present = current.session
        session = launch.boot(via, replace(Settings.from_env(), **given), sink=sink)
        if session is None:
            if "tracefork_otel.draws.drawing" in sys.modules:  # a warm process, whose children have sessions
                sys.modules["tracefork_otel.draws.drawing"].include(given.get("draws_include", ()))
            return
        if present is not None:
            wanted = given.pop("store", present.settings.store)
            if wanted != present.settings.store and not present.launched:
                LOG.warning("tracefork: this process already records into %s", present.settings.store)
            session.adjust(given)
            _more_draws(session)
        from .session import providers

        providers.use_provider(tracer_provider)
        if session.settings.http_spans and session.settings.mode == "record":
            launch.undo.add(_stock_off)
            for name in _STOCK:
                if find_spec(name) is not None:
                    launch.undo.add(when_imported(name, _stock_on))

    def _uninstrument(self, **kwargs: Any) -> None:
        from .session import providers

        launch.shut()
        providers.use_provider(None)


def _more_draws(session: Session) -> None:
    """Record what the agent draws also where the process recorded already; a replay goes by its tape."""
    if session.draws is not None:
        session.draws.include(session.settings.draws_include)
    elif session.settings.draws and session.settings.mode == "record":
        launch.start_draws(session)


_turned_on: list[Any] = []


def _stock_on(module: ModuleType) -> None:
    from opentelemetry.instrumentation import httpx as stock

    cls = getattr(stock, _STOCK.get(module.__name__, ""), None)
    if cls is None:
        return
    instrumentor = cls()
    if not instrumentor.is_instrumented_by_opentelemetry:
        from .session import providers

        instrumentor.instrument(tracer_provider=providers.given_provider(), skip_dep_check=True)
        _turned_on.append(instrumentor)


def _stock_off() -> None:
    while _turned_on:
        instrumentor = _turned_on.pop()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
