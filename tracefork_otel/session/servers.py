"""The servers of web applications: the one place in each at which it has its application."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from weakref import WeakKeyDictionary

from .. import private_names as names
from ..tape.start import ASGI, REQUESTS, WSGI
from ..undo import Undo
from . import current
from .applications import AsgiApplication, Recorded, WsgiApplication
from .imports import when_imported
from .process import importable


def _nobody(server: Any) -> str | None:
    return None


def _always(server: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server has its application: an attribute that it reads for each request."""

    module: str
    owner: str
    """The class."""
    attribute: str
    speaks: Literal["asgi", "wsgi"] | None = None
    """None where that depends on the application."""
    named: Callable[[Any], str | None] = _nobody
    """Gives the name by which the server was told of the application, if it knows it."""
    is_ready: Callable[[Any], bool] = _always
    """Whether the attribute is what is asked; before that the server may look at it more closely."""


def _named_to_uvicorn(config: Any) -> str | None:
    app = config.app if isinstance(config.app, str) else name_of(config.app)
    if app is None:
        return None
    return f"{WSGI if config.interface == 'wsgi' else ASGI}{app}{'()' if config.factory else ''}"


def _named_to_gunicorn(worker: Any) -> str | None:
    """Return what `gunicorn app:app` names; `app` alone is its `application`."""
    uri = getattr(worker.app, "app_uri", None)
    return uri if uri is None or ":" in uri else f"{uri}:application"


_NAME = re.compile(r"([aw]sgi:)?[\w.]+:[\w.]+(\(\))?")
"""What can be imported, and called with nothing."""
SERVERS = (
    Server(
        module="uvicorn.config",
        owner="Config",
        attribute="loaded_app",
        speaks="asgi",
        named=_named_to_uvicorn,
        is_ready=lambda config: bool(config.loaded),
    ),
    Server(module="hypercorn.app_wrappers", owner="ASGIWrapper", attribute="app", speaks="asgi"),
    Server(module="hypercorn.app_wrappers", owner="WSGIWrapper", attribute="app", speaks="wsgi"),
    Server(module="gunicorn.workers.base", owner="Worker", attribute="wsgi", named=_named_to_gunicorn),
    Server(
        module="gunicorn.workers.gasgi",
        owner="ASGIWorker",
        attribute="asgi",
        speaks="asgi",
        named=_named_to_gunicorn,
    ),
    Server(module="werkzeug.serving", owner="BaseWSGIServer", attribute="app", speaks="wsgi"),
    Server(module="daphne.server", owner="Server", attribute="application", speaks="asgi"),
    Server(module="waitress.server", owner="BaseWSGIServer", attribute="application", speaks="wsgi"),
    # Django's `runserver` has one of these.
    Server(module="wsgiref.simple_server", owner="WSGIServer", attribute="application", speaks="wsgi"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A function of a server that is given its application, before any request."""

    module: str
    function: str
    speaks: Literal["asgi", "wsgi"]
    argument: str
    place: int


_MP, _MT = "granian.server.mp", "granian.server.mt"
GIVEN = (
    Given(module=_MP, function=names.GRANIAN_ASGI, speaks="asgi", argument="callback", place=0),
    Given(module=_MP, function=names.GRANIAN_WSGI, speaks="wsgi", argument="callback", place=0),
    Given(module=_MT, function=names.GRANIAN_ASGI, speaks="asgi", argument="callback", place=0),
    Given(module=_MT, function=names.GRANIAN_WSGI, speaks="wsgi", argument="callback", place=0),
    # Its reloader starts another process, before there is a server in this one.
    Given(module="werkzeug.serving", function="run_simple", speaks="wsgi", argument="application", place=2),
)


def watch(module: ModuleType, undo: Undo) -> None:
    """Have the applications of the module's servers be recorded, until that is undone."""
    for given in GIVEN:
        if given.module == module.__name__:
            undo.replace(module, given.function, _given(given, getattr(module, given.function)))
    for server in SERVERS:
        if server.module == module.__name__:
            owner = getattr(module, server.owner)
            before = owner.__dict__.get(server.attribute)
            undo.replace(owner, server.attribute, _InPlaceOf(server, before))


def _given(given: Given, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which gets the application recorded."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            if given.argument in named:
                named[given.argument] = _served(named[given.argument], None, given.speaks)
            else:
                at = given.place
                app = _served(arguments[at], None, given.speaks)
                arguments = (*arguments[:at], app, *arguments[at + 1 :])
        except Exception as error:
            _lost(given.module, error)
        return function(*arguments, **named)

    return wrapped


def _lost(module: str, error: Exception) -> None:
    if (session := current.session) is not None:
        session.lost(f"hook into {module}", error)


class _InPlaceOf:
    """The attribute of a server, which gives the application that it has, recorded."""

    def __init__(self, server: Server, default: Any) -> None:
        self._server = server
        self._default = default
        self._made: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()

    def __get__(self, one: Any, owner: type | None = None) -> Any:
        if one is None:
            return self._default
        name = self._server.attribute
        try:
            app = one.__dict__[name]
        except KeyError:
            if self._default is not None:
                return self._default
            raise AttributeError(f"{type(one).__name__!r} object has no attribute {name!r}") from None
        if app is None:
            return None
        try:
            return self._recorded(one, app)
        except Exception as error:
            _lost(self._server.module, error)
            return app

    def __set__(self, one: Any, app: Any) -> None:
        if _importing is not None:  # before the server starts anything of it
            _served(app, self._server.named(one), self._server.speaks)
        one.__dict__[self._server.attribute] = app

    def __delete__(self, one: Any) -> None:
        one.__dict__.pop(self._server.attribute, None)

    def _recorded(self, one: Any, app: Any) -> Any:
        if not self._server.is_ready(one):
            return app
        known, made = self._made.get(one, (None, None))
        if known is not app:
            made = _served(app, self._server.named(one), self._server.speaks)
            self._made[one] = app, made
        return made


def _served(app: Any, named: str | None, speaks: str | None) -> Recorded:
    """Return the application with its requests recorded, as its server has it now."""
    made = recorded(app, named, speaks)
    if _importing is not None and made.entrypoint == _importing.entrypoint:
        raise _Serves(sys.modules[_importing.module])
    if current.session is not None:
        current.session.runs.serves = True
    return made


class _Serves(BaseException):
    """A module serves the application, for which it is imported; so far it has come."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self.module = module


@dataclass(frozen=True, slots=True)
class _Importing:
    """The module that is imported for one of its applications."""

    entrypoint: str
    module: str


_importing: _Importing | None = None


def module_of(entrypoint: str) -> ModuleType:
    """Return the module of `asgi:pkg.mod:app`, imported up to where it serves that itself, if it does.

    A recording had come as far when it was asked. Raises what the module raises.
    """
    global _importing
    module = entrypoint.split(":")[1]
    changes = Undo()
    for name in {server.module for server in (*SERVERS, *GIVEN)}:
        changes.add(when_imported(name, lambda served: watch(served, changes)))
    _importing = _Importing(entrypoint, module)
    try:
        return importlib.import_module(module)
    except _Serves as serves:
        # An import that ended so has taken it away.
        sys.modules[module] = serves.module
        package, _, name = module.rpartition(".")
        if package:
            setattr(sys.modules[package], name, serves.module)
        return serves.module
    finally:
        _importing = None
        changes.take_back()


def recorded(app: Any, named: str | None = None, speaks: str | None = None) -> Recorded:
    """Return the application with its requests recorded; `named` is what its server calls it."""
    if isinstance(app, Recorded):
        return app
    by_asgi = speaks == "asgi" if speaks else _speaks_asgi(app)
    name = named if named and _NAME.fullmatch(named) else name_of(app)
    if name is not None and not name.startswith(REQUESTS):
        name = (ASGI if by_asgi else WSGI) + name
    return (AsgiApplication if by_asgi else WsgiApplication)(app, name)


def _speaks_asgi(app: Any) -> bool:
    """Return whether an application is called as ASGI has it, as servers tell it."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def name_of(app: Any) -> str | None:
    """Return `pkg.mod:app` of an application that is a module's own; None where it is none's."""
    if isinstance(app, Recorded):
        return None if app.entrypoint is None else app.entrypoint.partition(":")[2]
    for module_name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or "-packages" in file:
            continue
        for name, value in list(vars(module).items()):
            if value is app:
                return f"{importable(module_name, module, file)}:{name}"
    return _name_of_made(app)


def _name_of_made(app: Any) -> str | None:
    """Return the name of what a server put something around, or of what makes an application."""
    if getattr(app, "__module__", None) in _AROUND:
        closed_over = inspect.getclosurevars(app).nonlocals if inspect.isfunction(app) else vars(app)
        inner = closed_over.get("app") or closed_over.get("application")
        return None if inner is None else name_of(inner)
    if (made := _MADE_BY.get(f"{type(app).__module__}.{type(app).__qualname__}")) is not None:
        return made
    # Where Flask looks for an application, too.
    module = sys.modules.get(getattr(app, "import_name", None) or "")
    for name in ("create_app", "make_app"):
        if callable(getattr(module, name, None)):
            return f"{getattr(module, '__name__', '')}:{name}()"
    return _name_of_commanded()


def _name_of_commanded() -> str | None:
    """Return the factory that the command names, as `mod:make()` or `--factory mod:make`, if it does."""
    for word in sys.argv[1:]:
        if (named := _COMMANDED.fullmatch(word)) is None:
            continue
        name = named["module"]
        if "/" in name or name.endswith(".py"):
            name = Path(name).stem
        if callable(getattr(sys.modules.get(name), named["factory"], None)):
            return f"{name}:{named['factory']}()"
    return None


_COMMANDED = re.compile(r"([aw]sgi:)?(?P<module>[^:]+):(?P<factory>\w+)(\(\))?")
"""What a server's command calls its application."""


_AROUND = (
    "werkzeug.debug",
    "werkzeug.middleware.shared_data",
    "django.contrib.staticfiles.handlers",
    "waitress.proxy_headers",
)
_MADE_BY = {
    "django.core.handlers.wsgi.WSGIHandler": "django.core.wsgi:get_wsgi_application()",
    "django.core.handlers.asgi.ASGIHandler": "django.core.asgi:get_asgi_application()",
}
