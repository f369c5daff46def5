"""The one line that turns recording on: `TraceforkInstrumentor().instrument()`."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from . import launch
from .errors import UsageError
from .log import LOG
from .session import current
from .session.imports import when_imported
from .settings import Settings

if TYPE_CHECKING:
    from .session.session import Session

_STOCK = {"httpx2": "HTTPX2ClientInstrumentor", "httpx": "HTTPXClientInstrumentor"}

_AUTOMATIC = frozenset({"skip_dep_check", "raise_exception_on_conflict"})
"""Arguments that only `opentelemetry-instrument` gives."""


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
        skip_hosts: Iterable[str] | None = None,
        state: str | Path | Iterable[str | Path] | None = None,
        **others: Any,
    ) -> None:
        """Record every HTTP exchange of this process from now on, through clients old and new.

        `state` names files and folders of the agent's: replays and forks begin with what is there now.
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
            "skip_hosts": None if skip_hosts is None else tuple(skip_hosts),
            "state": None if state is None else _paths(state),
        }
        if self.is_instrumented_by_opentelemetry:
            from .seam import unseen

            unseen.put_back()
        if not _AUTOMATIC.isdisjoint(others):
            others.setdefault("via", "entry_point")
        said = {name: value for name, value in given.items() if value is not None}
        if not self.is_instrumented_by_opentelemetry:
            super().instrument(tracer_provider=tracer_provider, given=said, **others)
            return
        for name in _AUTOMATIC:
            others.pop(name, None)
        # What the line says holds also where `opentelemetry-instrument` found us before.
        self._instrument(tracer_provider=tracer_provider, given=said, **others)

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
            if wanted.absolute() != present.settings.store.absolute() and not present.launched:
                LOG.warning("tracefork: this process already records into %s", present.settings.store)
            session.adjust(given)
            _more_draws(session)
            if "state" in given:
                _keep_files(session)
        if via == "instrument" and not session.launched:
            atexit.unregister(_say_if_nothing)
            atexit.register(_say_if_nothing, os.getpid())
        from .session import providers

        again = self.is_instrumented_by_opentelemetry
        if tracer_provider is not None or not again:
            providers.use_provider(tracer_provider)
        if not session.settings.http_spans:
            _stock_off()
        elif session.settings.mode == "record" and not (again and _turned_on):
            launch.undo.add(_stock_off)
            for name in _STOCK:
                if find_spec(name) is not None:
                    launch.undo.add(when_imported(name, _stock_on))

    def _uninstrument(self, **kwargs: Any) -> None:
        from .session import providers

        launch.shut(_caller())
        providers.use_provider(None)


def _say_if_nothing(pid: int) -> None:
    """Say at the end of a process that its agent asked nobody, as far as that could be seen."""
    session = current.session
    if session is None or not session.is_idle or os.getpid() != pid or session.remote is not None:
        return
    pools = sys.modules.get("multiprocessing")  # each of its children has loaded it
    if session.said_why or session.player is not None or (pools and pools.parent_process() is not None):
        return
    from .seam import unseen

    others = "; ".join(f"{one}, and is not captured" for one in unseen.summary(session))
    LOG.warning(
        "tracefork captured nothing: this process made no request through httpx, httpx2, urllib3 or"
        " aiohttp%s. What goes by other clients is recorded from outside: tracefork-otel run --proxy --"
        " COMMAND",
        f"; {others}" if others else "",
    )


def _caller() -> str | None:
    """Return the agent's line that is at work."""
    from .seam.noting import caller

    return caller()


def _more_draws(session: Session) -> None:
    """Record what the agent draws also where the process recorded already; a replay goes by its tape."""
    if session.draws is not None:
        session.draws.include(session.settings.draws_include)
    elif session.settings.draws and session.settings.mode == "record":
        launch.start_draws(session)


def _paths(given: str | Path | Iterable[str | Path]) -> tuple[Path, ...]:
    several = (given,) if isinstance(given, str | Path) else given
    return tuple(Path(path).expanduser().absolute() for path in several if os.fspath(path))


def _keep_files(session: Session) -> None:
    from .session.files import keep_files

    keep_files(session)


_turned_on: list[Any] = []


def _stock_on(module: ModuleType) -> None:
    from opentelemetry.instrumentation import httpx as stock

    cls = getattr(stock, _STOCK.get(module.__name__, ""), None)
    if cls is None:
        return
    instrumentor = cls()
    if not instrumentor.is_instrumented_by_opentelemetry:
        from .session.guarded import GuardedProvider
        from .session.providers import given_provider

        # Nobody asked for these spans, so no processor of the user's may break a call by them.
        instrumentor.instrument(tracer_provider=GuardedProvider(given_provider()), skip_dep_check=True)
        _turned_on.append(instrumentor)


def _stock_off() -> None:
    while _turned_on:
        instrumentor = _turned_on.pop()
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
