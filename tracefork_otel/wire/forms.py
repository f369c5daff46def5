"""The provider modules, and which of them reads an endpoint's bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import anthropic, gemini, openai

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .messages import ProviderModule

# Where several modules know a host and the path does not decide, the first one answers.
MODULES: tuple[ProviderModule, ...] = (openai, anthropic, gemini)


def recognise(method: str, url: str) -> ProviderModule | None:
    """Return the module that reads this endpoint's bodies, None where no provider is known.

    The path decides where it names a format, because hosts serve one another's formats (and local servers and
    gateways have hosts of their own); the host decides for a provider's other endpoints.
    """
    host, path = place(url)
    for module in MODULES:
        if method.upper() == "POST" and module.operation(path) is not None:
            return module
    known = [module for module in MODULES if named(host, module.HOSTS) is not None]
    own = [module for module in known if named(host, module.HOSTS) == module.NAME]
    return next(iter([*own, *known]), None)


def place(url: str) -> tuple[str, str]:
    """Return a URL's lower-case host and its path without a trailing slash, empty where it is no URL."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.path.rstrip("/")
    except ValueError:
        return "", ""


def named(host: str, hosts: Mapping[str, str]) -> str | None:
    """Return the name under which the host stands in the table, by itself or by its ending."""
    if host in hosts:
        return hosts[host]
    return next((name for end, name in hosts.items() if end[0] in ".-" and host.endswith(end)), None)


def module_named(name: str) -> ProviderModule | None:
    """Return the module of this name, else the first with a host of this name."""
    own = [module for module in MODULES if name == module.NAME]
    known = [module for module in MODULES if name in module.HOSTS.values()]
    return next(iter([*own, *known]), None)
