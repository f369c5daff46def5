"""Which tracer provider spans of ours go to; each that is met feeds our processor."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from .. import private_names as names
from ..log import warn_once
from ..version import __version__
from . import current, guarded, spans
from .processor import TraceforkSpanProcessor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_adopt_lock = threading.Lock()
_adopted: list[Any] = []
"""A handful at most (one, in a program); kept alive, as not every provider can be referred to weakly."""
_tracer: tuple[Any, trace.Tracer | None] | None = None
"""The last provider and its tracer: to ask for one takes longer than to write a record."""
_given_provider: Any = None
"""The provider that `instrument(tracer_provider=…)` named."""
_stand_in: TracerProvider | None = None


def use_provider(provider: Any) -> None:
    """Send spans of ours to this provider; None means the global one, whenever it comes."""
    global _given_provider
    _given_provider = provider
    if provider is not None:
        adopt(provider)


def given_provider() -> Any:
    """Return the provider that `use_provider` named, or None."""
    return _given_provider


def adopt(provider: Any) -> bool:
    """Add our processor to the provider, once; return whether it took it."""
    if any(known is provider for known in _adopted):
        return True
    add = getattr(provider, "add_span_processor", None)
    if add is None:
        return False
    with _adopt_lock:
        if not any(known is provider for known in _adopted):
            sdk = sys.modules.get("opentelemetry.sdk.trace")
            try:
                if sdk is not None and isinstance(provider, sdk.TracerProvider):
                    # A vendor's own way may take its default exporter out for the first that is added.
                    sdk.TracerProvider.add_span_processor(provider, TraceforkSpanProcessor())
                else:
                    add(TraceforkSpanProcessor())
            except Exception as error:
                guarded.refused(provider, error)
                return False
            _adopted.append(provider)
            session = current.session
            if session is not None and provider is not _stand_in:
                # It sends its spans itself, so nobody has to do so for it.
                session.note("provider", {"class": type(provider).__qualname__})
    return True


def adopted() -> list[Any]:
    """Return the providers that feed our processor."""
    with _adopt_lock:
        return list(_adopted)


def provider() -> Any:
    """Return the provider that spans of ours go to, or None where none would tell us of them."""
    chosen = _given_provider if _given_provider is not None else getattr(trace, names.GLOBAL_PROVIDER, None)
    session = current.session
    if chosen is None and session is not None and session.settings.provider:
        chosen = stand_in()
    if chosen is None:
        return None
    if adopt(chosen):
        return chosen
    warn_once(
        "foreign",
        "the global TracerProvider (%s) takes no span processors: exchanges are stored, other spans are not",
        type(chosen).__name__,
    )
    return None


def stand_in() -> TracerProvider:
    """Return the one provider that stands in where the application has none."""
    global _stand_in
    if _stand_in is None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        # Not set as the global one: that can be done once, and is the application's to do.
        _stand_in = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    return _stand_in


def tracer() -> trace.Tracer | None:
    """Return the tracer for spans of ours, or None where no provider records them."""
    global _tracer
    chosen = provider()
    if chosen is None:
        return None
    known = _tracer
    if known is None or known[0] is not chosen:
        known = _tracer = (chosen, guarded.tracer_of(chosen, spans.SCOPE, __version__))
    return known[1]
