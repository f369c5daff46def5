"""Wire formats read into facts: which model, what it said, how many tokens.

One file per provider knows its format; adding a provider is adding a file and naming it in `MODULES`.
What no module recognises stays plain HTTP. Every function here is pure and raises on no body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tracefork_backend.providers import anthropic, openai
from tracefork_backend.providers._body import decode_body
from tracefork_backend.providers._facts import Facts, Kind, Message, ProviderModule, Reply
from tracefork_backend.providers._json import clean, loads, top_level_string
from tracefork_backend.providers._sse import is_sse, sse_events

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MODULES",
    "Facts",
    "Kind",
    "Message",
    "ProviderModule",
    "decode_body",
    "facts",
    "recognise",
    "request_messages",
    "sse_events",
]

# Where several modules know a host and the path does not decide, the first one answers.
MODULES: tuple[ProviderModule, ...] = (openai, anthropic)


def recognise(method: str, url: str) -> ProviderModule | None:
    """Return the module that reads this endpoint's bodies, None where no provider is known.

    The path decides where it names a format, because hosts serve one another's formats (and local servers and
    gateways have hosts of their own); the host decides for a provider's other endpoints.
    """
    host, path = _place(url)
    for module in MODULES:
        if method.upper() == "POST" and module.operation(path) is not None:
            return module
    known = [module for module in MODULES if _named(host, module.HOSTS) is not None]
    own = [module for module in known if _named(host, module.HOSTS) == module.NAME]
    return next(iter([*own, *known]), None)


def request_messages(provider: ProviderModule | str | None, body: bytes) -> tuple[Message, ...]:
    """Return a request as messages, system first; empty where the provider or the JSON is not understood.

    `provider` is what `recognise` returned, or a provider's name where only that is known.
    """
    module = _module_named(provider) if isinstance(provider, str) else provider
    request = loads(body) if module is not None else None
    return module.request_messages(request) if module is not None and isinstance(request, dict) else ()


def facts(
    method: str, url: str, *, request: bytes, response: bytes | None, content_type: str | None
) -> Facts | None:
    """Return what a generation exchange asked for and got, None for any other exchange.

    `response` is the body with its content encoding undone, None where none came. A path of a known shape on
    an unknown host counts only if the request names a model: other services have such paths too.
    """
    module = recognise(method, url)
    if module is None:
        return None
    host, path = _place(url)
    operation = module.operation(path) if method.upper() == "POST" else None
    if operation is None:
        return None
    provider = _named(host, module.HOSTS)
    model = top_level_string(request, "model") or module.path_model(path)
    if provider is None and model is None:
        return None
    reply, streamed = _read(module, path, response, content_type)
    return Facts(
        provider=provider or module.NAME,
        operation=operation,
        model=_cleaned(model),
        response_model=_cleaned(reply.model),
        response_id=_cleaned(reply.response_id),
        finish_reason=_cleaned(reply.finish_reason),
        input_tokens=reply.usage.input_tokens,
        output_tokens=reply.usage.output_tokens,
        cached_tokens=reply.usage.cached_tokens,
        cache_write_tokens=reply.usage.cache_write_tokens,
        cache_write_1h_tokens=reply.usage.cache_write_1h_tokens,
        streamed=streamed,
        reply=reply.messages,
        text=reply.text,
        error_type=_cleaned(reply.error_type),
    )


def _read(
    module: ProviderModule, path: str, response: bytes | None, content_type: str | None
) -> tuple[Reply, bool]:
    """Return the reply in a response, and whether it came as a stream."""
    if response is None:
        return Reply(), False
    if is_sse(response, content_type):
        return module.streamed_reply(path, response), True
    whole = loads(response)
    return (module.reply(path, whole) if isinstance(whole, dict) else Reply()), False


def _place(url: str) -> tuple[str, str]:
    """Return a URL's lower-case host and its path without a trailing slash, empty where it is no URL."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), parts.path.rstrip("/")
    except ValueError:
        return "", ""


def _named(host: str, hosts: Mapping[str, str]) -> str | None:
    """Return the name under which the host stands in the table, by itself or by its ending."""
    if host in hosts:
        return hosts[host]
    return next((name for end, name in hosts.items() if end[0] in ".-" and host.endswith(end)), None)


def _module_named(name: str) -> ProviderModule | None:
    """Return the module of this name, else the first with a host of this name."""
    own = [module for module in MODULES if name == module.NAME]
    known = [module for module in MODULES if name in module.HOSTS.values()]
    return next(iter([*own, *known]), None)


def _cleaned(text: str | None) -> str | None:
    """Return the text such that it encodes as UTF-8."""
    return None if text is None else clean(text)
