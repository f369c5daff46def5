"""A command's providers behind a proxy: the variables that lead its SDKs there, kept for its replays."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracefork_otel import shapes
from tracefork_otel.errors import TapeError, UsageError
from tracefork_otel.redaction import redact
from tracefork_otel.settings import Settings
from tracefork_otel.tape.start import HowStarted
from tracefork_otel.wire.registry import base_urls, root_of

from .addresses import LOOPBACK, bind

if TYPE_CHECKING:
    from .proxy import Proxy

VARIABLE = "TRACEFORK_PROXY"
"""In the recorded environment of a command: its routes, by which a replay knows that it needs a proxy."""
_PORTS = {"http": 80, "https": 443}
_OLLAMA = "OLLAMA_HOST"
_OLLAMA_PORT = 11434


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A base URL that leads to the proxy instead of its provider."""

    variable: str
    origin: str
    """The provider's scheme and host; the requests on the tape have it in their URLs."""
    path: str
    port: int = 0
    """The proxy's port; 0 where it was not chosen yet."""

    @property
    def base_url(self) -> str:
        """What the agent is given instead."""
        return f"http://{LOOPBACK}:{self.port}{self.path}"


def _bedrock(environ: Mapping[str, str]) -> str | None:
    # What AWS signs names the host that is asked, so a signed request cannot go by way of another. A key can.
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    keyed = environ.get("AWS_BEARER_TOKEN_BEDROCK")
    return f"https://bedrock-runtime.{region}.amazonaws.com" if region and keyed else None


def _vertex(environ: Mapping[str, str]) -> str | None:
    location = environ.get("GOOGLE_CLOUD_LOCATION")
    if not (location and environ.get("GOOGLE_CLOUD_PROJECT")):
        return None
    return f"https://{'' if location == 'global' else f'{location}-'}aiplatform.googleapis.com"


def _nowhere(environ: Mapping[str, str]) -> str | None:
    return None  # the address is the user's own


_PLACED: Mapping[str, Callable[[Mapping[str, str]], str | None]] = {
    _OLLAMA: lambda _: f"http://{LOOPBACK}:{_OLLAMA_PORT}",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": _bedrock,
    "GOOGLE_VERTEX_BASE_URL": _vertex,
    "AZURE_OPENAI_ENDPOINT": _nowhere,
    "ANTHROPIC_FOUNDRY_BASE_URL": _nowhere,
    "ANTHROPIC_VERTEX_BASE_URL": _nowhere,
}
"""Variables of SDKs whose address depends on the environment: what holds without them, if that is known."""


def variables() -> tuple[str, ...]:
    """Return all variables that lead SDKs to a proxy, where there is an address that they stand for."""
    return (*base_urls(), *_PLACED)


def routes_of(environ: Mapping[str, str]) -> tuple[Route, ...]:
    """Return a route for each provider, where its variable leads or to its own address; else UsageError."""
    found: list[Route] = []
    defaults = {**base_urls(), **{name: place(environ) for name, place in _PLACED.items()}}
    for variable, default in defaults.items():
        url = environ.get(variable) or default
        if url is None:
            continue
        if variable == _OLLAMA and "://" not in url:
            url = f"http://{url}" if _has_port(url) else f"http://{url.rstrip('/')}:{_OLLAMA_PORT}"
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise UsageError(
                f"{variable}={url!r} is no http or https URL, so the proxy cannot stand before it"
            )
        origin = f"{parts.scheme}://{parts.netloc}"
        found.append(Route(variable=variable, origin=origin, path=parts.path.rstrip("/")))
    return tuple(found)


def _has_port(place: str) -> bool:
    try:
        return urlsplit(f"//{place}").port is not None
    except ValueError:
        return True  # what is wrong with it is said by whoever reads it


def recorded_routes(start: HowStarted) -> tuple[Route, ...]:
    """Return the routes that a command was recorded with; none if it was recorded without a proxy."""
    text = start.environment.get(VARIABLE)
    if not text:
        return ()
    # The variable is set for the agent, and a fork's calls go to the origin with the user's own keys.
    shape = shapes.many(
        shapes.record(
            {
                "variable": shapes.text("|".join(variables()), "a variable that leads to a provider"),
                "origin": shapes.text(r"https?://[^\s/?#]+", "an http or https URL of a host"),
                "path": shapes.text(r"(/[^\s?#]*)?", "a path"),
            },
            {"port": shapes.number(0, 65535)},
        )
    )
    try:
        return tuple(Route(**route) for route in shape(shapes.parsed(text)))
    except ValueError as error:
        raise TapeError(f"how the command was reached by its proxy cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class Behind:
    """A proxy that runs, and the environment that leads an agent to it."""

    proxy: Proxy | None
    environment: Mapping[str, str]
    recorded: Mapping[str, str]
    """What the recording keeps, so that a replay listens where it did."""


@contextlib.contextmanager
def behind_proxy(
    routes: tuple[Route, ...], settings: Settings, *, launch: tuple[str, str], name: str
) -> Iterator[Behind]:
    """Answer on each route's port, or on a free one, within the block; without routes start no proxy."""
    if not routes:
        yield Behind(None, {}, {})
        return
    # Here, not above: most commands need no proxy, and its libraries take a while to load.
    from .proxy import Proxy, Upstream

    sockets = [bind(LOOPBACK, route.port, or_any=True) for route in routes]
    placed = [
        replace(route, port=int(listener.getsockname()[1]))
        for route, listener in zip(routes, sockets, strict=True)
    ]
    upstreams = [
        Upstream(socket=listener, origin=route.origin, base=root_of(urlsplit(route.origin).hostname or ""))
        for route, listener in zip(placed, sockets, strict=True)
    ]
    redactor = redact.of(settings)
    kept = [asdict(replace(route, origin=redactor.url(route.origin))) for route in placed]
    environment = {route.variable: route.base_url for route in placed}
    # The proxy sees all: a recorder inside the agent would write every call a second time.
    environment["TRACEFORK_MODE"] = "off"
    for variable in ("NO_PROXY", "no_proxy"):
        others = os.environ.get(variable)
        environment[variable] = f"{others},{LOOPBACK}" if others else LOOPBACK
    with Proxy(upstreams, settings=settings, name=name, launch=launch) as proxy:
        # Written at once, so that the proxy counts as reached also where no request comes.
        proxy.ledger.note("proxy", {"ports": {route.variable: route.port for route in placed}})
        yield Behind(proxy, environment, {VARIABLE: json.dumps(kept)})
