"""What a request is a call of: hosts and forms, built in and brought by other packages.

Nothing here parses a body or loads a form's file until it is asked for one, and every reader asks here: the
seam, the proxy and the facts name one provider for one request. Packages bring forms and hosts by the
entry-point group `tracefork.wire`: each entry is an object with a `FORMS` or a `HOSTS`, or with both.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

from ..errors import UsageError
from .forms import FORMS, Form, Path
from .hosts import HOSTS, Host
from .json_places import outermost_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .interface import WireForm

T = TypeVar("T")
GROUP = "tracefork.wire"
_LOG = logging.getLogger("tracefork_otel")

_MODULES = {row.name: row.module for row in FORMS}
_failed: dict[str, str] = {}
"""Forms of plugins that failed in this process, each with the reason."""
_KEY = b'"model"'
_LONGEST = 200
"""Characters of a model's name: what is longer is none."""
_DEEPEST = 2
"""Parts of a call's path behind a root: `/chat/completions`."""


class FormFailed(UsageError):
    """A wire form that a package brings cannot be used."""


class Call(NamedTuple):
    """A request that is recognised as a call of a model."""

    form: str
    provider: str
    """`gen_ai.provider.name`."""
    operation: str
    """`gen_ai.operation.name`."""
    model: str | None
    """`gen_ai.request.model`; None also where it cannot be told without parsing the body."""


class Registered(NamedTuple):
    """All hosts and forms, and the plugins that were left out, each with the reason."""

    hosts: tuple[Host, ...] = HOSTS
    forms: tuple[Form, ...] = FORMS
    refused: tuple[tuple[str, str], ...] = ()


def recognise(method: str, url: str, body: bytes) -> Call | None:
    """Return the call that a request makes, None where its path is no known model API's.

    A path of a known shape on an unknown host counts only if the body may name a model: other services have
    such paths too.
    """
    host, path = place(url)
    found = placed(path, method.upper())
    if found is None:
        return None
    form, rule, named, stand_in = found
    model = named or model_of(body) or stand_in
    known = host_of(host)
    if known is None and model is None and _KEY not in body and rule.method == "POST":
        return None
    return Call(form.name, rule.provider if known is None else known.provider, rule.operation, model)


@lru_cache(maxsize=512)
def place(url: str) -> tuple[str, str]:
    """Return a URL's lower-case host and its path, unquoted, without a slash at its end; empty for no URL."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower(), unquote(parts.path).rstrip("/")
    except ValueError:
        return "", ""


class _Url(Protocol):
    @property
    def scheme(self) -> str: ...
    @property
    def port(self) -> int | None: ...


def port_of(url: _Url) -> int:
    """Return the port that the URL goes to; ValueError where it names none that there is."""
    return url.port or (443 if url.scheme == "https" else 80)


@lru_cache(maxsize=512)
def placed(path: str, method: str = "POST") -> tuple[Form, Path, str | None, str | None] | None:
    """Return whose path this is: its form, the rule, the model that it names, and what stands in for one."""
    for form in _forms():
        found = form.place(path, method)
        if found is not None:
            named = found[1].groupdict()
            return form, found[0], named.get("model"), named.get("deployment")
    return None


def model_in_path(url: str) -> str | None:
    """Return the model or the deployment that a model API's path names, None where it names none."""
    found = placed(place(url)[1])
    return None if found is None else found[2] or found[3]


@lru_cache(maxsize=512)
def host_of(name: str) -> Host | None:
    """Return the row of the host of that name, None where no provider is known by it."""
    lower = name.lower().rstrip(".")
    return next((row for row in _hosts() if row.is_called(lower)), None)


def is_model_host(name: str) -> bool:
    """Return whether a model provider answers under that name, and little else does."""
    known = host_of(name)
    return known is not None and known.watched


def price_name(provider: str) -> str:
    """Return the name under which the price list has a provider."""
    rows = (row for row in registered().hosts if row.provider == provider)
    return next((row.price or provider for row in rows), provider)


def host_named(provider: str) -> str:
    """Return a host of a provider, one that nobody has where none is known."""
    names = (row.name for row in registered().hosts if row.provider == provider and "*" not in row.name)
    return next(names, f"{provider}.invalid")


def base_urls() -> dict[str, str]:
    """Return the variables that lead a provider's SDKs, each with the base URL that holds without it."""
    rows = registered().hosts
    return {row.variable: f"https://{row.name}{row.base_path}" for row in rows if row.variable is not None}


def root_of(host: str) -> str:
    """Return what all paths of that provider's host begin with; nothing where that is not known."""
    return next((row.root for row in registered().hosts if row.name == host), "")


@lru_cache(maxsize=512)
def is_called_at(path: str, root: str) -> bool:
    """Return whether a model is called right behind that root by this path, or by one above it."""
    parts = path[len(root) :].split("/")[: _DEEPEST + 1]
    heads = [root + "/".join(parts[:end]) for end in range(2, len(parts) + 1)]
    places = (form.place(head) for form in _forms() for head in heads)
    return any(found is not None and found[1].start() <= len(root) for found in places)


def load(form: str) -> WireForm:
    """Return the module of the form of this name; raise FormFailed where a plugin's cannot be imported."""
    built_in = _MODULES.get(form)
    if built_in is not None:
        return cast("WireForm", import_module(built_in))
    module = next(row.module for row in _forms() if row.name == form)
    try:
        return cast("WireForm", import_module(module))
    except (Exception, SystemExit) as error:
        raise left_out(form, error) from error


def is_built_in(form: str) -> bool:
    """Return whether the form of this name is one of ours."""
    return form in _MODULES


def left_out(form: str, error: BaseException) -> FormFailed:
    """Return the error that a plugin's form comes to by failing; warn of it, once."""
    why = f"the wire form {form}, which a package brings by {GROUP}, fails: {type(error).__name__}: {error}"
    if form not in _failed:
        _failed[form] = why
        _LOG.warning("%s; its calls are recorded, but not read: mend or remove the package", why)
    return FormFailed(why)


def unless_failed(form: str, read: Callable[[], T]) -> T | None:
    """Return what is read, None where the form is a package's and fails: that is warned of, once."""
    try:
        return read()
    except FormFailed:
        return None
    except Exception as error:
        if is_built_in(form):
            raise
        left_out(form, error)
        return None


def refused() -> tuple[tuple[str, str], ...]:
    """Return the plugins and their forms that are left out, each with the reason; imports those forms."""
    for form in registered().forms:
        if not is_built_in(form.name):
            with suppress(FormFailed):
                load(form.name)
    return (*registered().refused, *_failed.items())


@lru_cache(maxsize=1)
def registered() -> Registered:
    """Return all hosts and forms. A plugin that fails or takes a name that is taken is warned of, once."""
    # Here, not above: it takes as long to load as all else of ours.
    from importlib import metadata

    known = Registered()
    for entry in metadata.entry_points(group=GROUP):
        try:
            known = _with(known, entry.load())
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}"
            _LOG.warning("the plugin %s (%s) of %s is left out: %s", entry.name, entry.value, GROUP, why)
            known = known._replace(refused=(*known.refused, (entry.name, why)))
    return known


def _forms() -> Iterator[Form]:
    """Yield all forms, the built-in ones first: plugins are looked for where none of those is the one."""
    yield from FORMS
    yield from registered().forms[len(FORMS) :]


def _hosts() -> Iterator[Host]:
    """Yield all hosts, as `_forms` does."""
    yield from HOSTS
    yield from registered().hosts[len(HOSTS) :]


def _with(known: Registered, plugin: object) -> Registered:
    """Return what is known with a plugin's hosts and forms; raise ValueError where a name is taken."""
    hosts = tuple(_host(*row) for row in getattr(plugin, "HOSTS", ()))
    forms = tuple(
        Form(name, module, tuple(Path(*path) for path in paths))
        for name, module, paths in getattr(plugin, "FORMS", ())
    )
    for kind, given, own in (("host", hosts, known.hosts), ("form", forms, known.forms)):
        names = [row.name for row in own]
        for row in given:
            if row.name in names:
                raise ValueError(f"the {kind} {row.name} is known already")
            names.append(row.name)
    for path in (path for form in forms for path in form.paths):
        re.compile(path.pattern)
    return known._replace(hosts=(*known.hosts, *hosts), forms=(*known.forms, *forms))


def _host(name: str, provider: str, *more: Any) -> Host:
    """Return a plugin's row of a host; raise TypeError where it is none."""
    host = Host(name.lower(), provider, *more) if isinstance(name, str) else None
    texts = (
        (host.name, host.provider, host.price or "", host.variable or "", host.base_path) if host else (None,)
    )
    if host is None or not all(isinstance(text, str) for text in texts) or not (host.name and host.provider):
        raise TypeError(f"({name!r}, {provider!r}, …) is no row of a host")
    return host


def model_of(body: bytes) -> str | None:
    """Return the value of the top-level `model` of a JSON object, None where that cannot be told cheaply."""
    found = outermost_string(body, "model")
    return found if found and len(found) <= _LONGEST else None
