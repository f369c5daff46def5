"""What frameworks ask of their makers beside the agent's work: no step, not recorded, not replayed."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import NamedTuple
from urllib.parse import urlsplit

from ..wire import registry

asking: ContextVar[str | None] = ContextVar("tracefork_housekeeping", default=None)
"""Who asks, while a request of housekeeping is sent by a client that is captured: its connections too."""
renewing: ContextVar[bool] = ContextVar("tracefork_renewing", default=False)
"""Whether a fork asks for a key that its recording had and does not hold, before its change."""

KNOWN = (
    ("agno", "os-api.agno.com"),
    ("agno", "api.agno.com"),
    ("CrewAI", "telemetry.crewai.com"),
    ("CrewAI", "app.crewai.com/crewai_plus/api/v1/tracing"),
    ("openai-agents", "api.openai.com/v1/traces/ingest"),
    ("litellm", "raw.githubusercontent.com/BerriAI/litellm"),
    ("OpenLIT", "raw.githubusercontent.com/openlit/openlit"),
    # Inference has hosts of its own: what is asked here is where a model is served, once a day or a process.
    ("huggingface_hub", "huggingface.co/api"),
    *(
        ("LangSmith", f"{region}api.smith.langchain.com/{path}")
        for region in ("", "eu.", "apac.", "aws.")
        for path in ("runs", "otel", "info")
    ),
    ("MLflow", "*.mlflow-telemetry.io"),
    # Its inference has a host of its own.
    ("wandb", "api.wandb.ai"),
    ("Weave", "trace.wandb.ai/call"),
    ("Weave", "trace.wandb.ai/otel"),
    ("Langfuse", "cloud.langfuse.com/api/public/ingestion"),
    ("Traceloop", "api.traceloop.com"),
    ("PostHog", "*.posthog.com"),
    ("Segment", "api.segment.io"),
    ("Sentry", "*.sentry.io"),
    ("Scarf", "*.scarf.sh"),
    ("ragas", "t.explodinggradients.com"),
    ("Gradio", "api.gradio.app"),
    ("tiktoken", "openaipublic.blob.core.windows.net"),
    # The cloud that a machine may be in is asked what it is, by Ray and SDKs of clouds.
    ("a cloud's SDK", "169.254.169.254"),
    ("a cloud's SDK", "metadata.google.internal"),
)
"""Who asks, and `HOST[:PORT][/PATH]`; `*.` stands for any host below.

What a model is asked is never left out.
"""

_TELLERS = frozenset(
    {
        *("agno", "CrewAI", "Langfuse", "MLflow", "openai-agents", "PostHog", "ragas", "Scarf", "Segment"),
        *("Sentry", "Traceloop"),
    }
)
"""Who of them takes what it is sent, and says nothing that a process goes on with."""
_ASKING = ("/flags", "/decide")
"""Paths of theirs that are asked all the same."""


def only_tells(who: str, method: str, path: str) -> bool:
    """Return whether nobody needs the answer of this request: it says what was done, or what there was."""
    return who in _TELLERS and method in ("POST", "PUT", "PATCH") and not path.startswith(_ASKING)


class Housekeeping:
    """The known places and those that a user names, asked for each request."""

    def __init__(self, skip_hosts: Iterable[str] = ()) -> None:
        self._exact: dict[str, list[_Place]] = {}
        self._below: list[tuple[str, _Place]] = []
        for who, told in (*KNOWN, *(("", told) for told in skip_hosts)):
            authority, slash, path = told.removeprefix("https://").removeprefix("http://").partition("/")
            host, port = _split(authority.lower())
            place = _Place(who, port, slash + path)
            if host.startswith("*."):
                self._below.append((host[1:], place))
            else:
                self._exact.setdefault(host, []).append(place)
        self._ends = tuple(end for end, _ in self._below)

    def of(self, host: str, path: str | None, port: int | None) -> str | None:
        """Return who asks this place, empty for one that the user named; None where it is no such place.

        A connection shows no path: it counts where all of the host, or of its port, is housekeeping.
        """
        below = (place for end, place in self._below if host.endswith(end))
        for place in (*self._exact.get(host, ()), *below):
            if place.port in (None, port) and _within(path, place.path):
                return place.who
        return None

    def of_url(self, url: str) -> str | None:
        """Return who asks this URL, as `of` does."""
        host, path = registry.place(url)
        try:
            parts = urlsplit(url)
            return self.of(host, path, registry.port_of(parts))
        except ValueError:
            return self.of(host, path, None)

    def has(self, host: str) -> bool:
        """Return whether any place is at this host."""
        return host in self._exact or host.endswith(self._ends)


class _Place(NamedTuple):
    who: str
    port: int | None
    """None for any."""
    path: str


def _split(authority: str) -> tuple[str, int | None]:
    """Return the host, and the port if one is named."""
    host, _, port = authority.rpartition(":")
    if not port.isdecimal() or (":" in host and not host.endswith("]")):
        host, port = authority, ""  # an IPv6 address has colons of its own
    return host.removeprefix("[").removesuffix("]"), int(port) if port else None


def _within(path: str | None, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return not prefix or (path is not None and f"{path.partition('?')[0]}/".startswith(f"{prefix}/"))
