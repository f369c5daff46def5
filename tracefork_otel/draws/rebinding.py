"""Names of the agent's modules that were bound to a clock before it was replaced."""

from __future__ import annotations

import datetime as _datetime
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import BuiltinMethodType, FunctionType, ModuleType
from typing import Any, cast

from .scope import USER, Scope

_DATES = ("now", "utcnow", "today")
Replace = Callable[[Any, str, Any], None]


class Rebinding:
    """What each true function is replaced by, wherever a user's module holds it."""

    def __init__(self, made: Iterable[tuple[Any, Any]], replace: Replace) -> None:
        # Kept alive by the pairs; bound methods of one function are different objects each time.
        self._made = list(made)
        self._ours = {id(true): ours for true, ours in self._made}
        self._methods = {
            (true.__name__, id(true.__self__)): ours
            for true, ours in self._made
            if type(true) is BuiltinMethodType and not isinstance(true.__self__, ModuleType)
        }
        self._replace = replace
        self.left: list[str] = []
        """`module.name` of what holds one and was not changed: containers, models, frozen objects."""

    def run(self, scope: Scope) -> None:
        """Bind every name that can be reached anew; what was not touched is in `left`."""
        users: set[str] = set()
        for name, module in list(sys.modules.items()):
            if type(module) is ModuleType and _is_users(module, scope):
                users.add(name)
                self._module(name, module)
        for owner in self._holders(users):
            self._object(owner)

    def _holders(self, users: set[str]) -> list[Any]:
        """Return the objects of the agent's own classes that hold a true function in an attribute."""
        sought = [true for true, _ in self._made if type(true) is BuiltinMethodType]
        dates = gc.get_referrers(_datetime.datetime, _datetime.date)
        sought += [one for one in dates if type(one) is BuiltinMethodType and one.__name__ in _DATES]
        holders = gc.get_referrers(*sought)
        globals_of = {id(vars(module)) for module in list(sys.modules.values()) if type(module) is ModuleType}
        attributes = [one for one in holders if type(one) is dict and id(one) not in globals_of]
        if attributes:  # of objects whose attributes are in a dict, to which they alone refer
            holders += gc.get_referrers(*attributes)
        return list({id(one): one for one in holders if self._is_object(one, users)}.values())

    def _is_object(self, one: Any, users: set[str]) -> bool:
        # By its type alone: to ask a proxy for anything else may run whatever code.
        return type(one).__module__ in users and not issubclass(type(one), (type, ModuleType, Mapping))

    def _object(self, owner: Any) -> None:
        cls = type(owner)
        try:
            names = [*vars(owner)] if hasattr(owner, "__dict__") else []
            names += [name for base in cls.__mro__ for name in _slots(base)]
            held = {
                name: ours for name in names if (ours := self._of(getattr(owner, name, None))) is not None
            }
        except Exception:  # an object of the agent's may raise whatever it likes
            return
        for name, ours in held.items():
            try:
                self._replace(owner, name, ours)
            except Exception:  # a frozen one
                self.left.append(f"{cls.__module__}.{cls.__qualname__}.{name}")

    def _module(self, name: str, module: ModuleType) -> None:
        held = vars(module).values()
        classes = [one for one in held if isinstance(one, type) and one.__module__ == module.__name__]
        for owner in (module, *classes):
            self._model(name, owner)
            for key, value in list(vars(owner).items()):
                if isinstance(value, FunctionType) and id(value) not in self._ours:
                    # Also a dataclass's own `__init__`, for its factories.
                    self._function(value)
                    continue
                ours = None if key.startswith("__") else self._of(value)
                if ours is not None:
                    self._replace(owner, key, ours)
                elif not key.startswith("__") and self._holds(value):
                    self.left.append(f"{name}.{key}")

    def _model(self, name: str, owner: Any) -> None:
        """Note the factories of a pydantic model's fields: they are in its compiled schema, for good."""
        for key, field in dict(vars(owner).get("__pydantic_fields__") or {}).items():
            if self._of(getattr(field, "default_factory", None)) is not None:
                self.left.append(f"{name}.{owner.__qualname__}.{key}")

    def _function(self, function: FunctionType) -> None:
        defaults = function.__defaults__ or ()
        ours = [self._of(value) for value in defaults]
        if any(one is not None for one in ours):
            pairs = zip(defaults, ours, strict=True)
            function.__defaults__ = tuple(value if one is None else one for value, one in pairs)
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not bound yet
                one = self._of(cell.cell_contents)
                if one is not None:
                    cell.cell_contents = one

    def _of(self, value: Any) -> Any:
        """Return what replaces the value, None where it is no true function and holds none."""
        if type(value) is staticmethod:
            ours = self._of(value.__func__)
            return None if ours is None else staticmethod(ours)
        if type(value) is functools.partial:
            ours = self._of(value.func)
            return None if ours is None else functools.partial(ours, *value.args, **value.keywords)
        if type(value) is FunctionType:
            return self._ours.get(id(value))
        if type(value) is not BuiltinMethodType:
            return None
        ours = self._ours.get(id(value)) or self._methods.get((value.__name__, id(value.__self__)))
        if ours is None and value.__self__ in (_datetime.datetime, _datetime.date):
            return getattr(value.__self__, value.__name__) if value.__name__ in _DATES else None
        return ours

    def _holds(self, value: Any) -> bool:
        if isinstance(value, Mapping):
            value = list(cast("Mapping[Any, Any]", value).values())
        if not isinstance(value, (list, tuple, set, frozenset)):
            return False
        return any(self._of(found) is not None for found in cast("list[Any]", value))


def _slots(cls: type) -> tuple[str, ...]:
    found = vars(cls).get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _is_users(module: ModuleType, scope: Scope) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__"
    # Most modules are libraries', and known by their paths as they stand: links are costly to follow.
    return scope.of_module(module.__name__, file) == USER and (
        scope.of_module(module.__name__, os.path.realpath(file)) == USER
    )
