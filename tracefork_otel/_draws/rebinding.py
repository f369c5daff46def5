"""Names of the agent's modules that were bound to a clock before it was replaced."""

from __future__ import annotations

import datetime as _datetime
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
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
        """`module.name` of containers that hold one, which are the agent's to change."""

    def run(self, scope: Scope) -> int:
        """How many names were bound anew; the containers that were not touched are in `left`."""
        count = 0
        for name, module in list(sys.modules.items()):
            if type(module) is ModuleType and _is_users(module, scope):
                count += self._module(name, module)
        return count

    def _module(self, name: str, module: ModuleType) -> int:
        count = 0
        owners: list[Any] = [module]
        owners += [
            found
            for found in vars(module).values()
            if isinstance(found, type) and found.__module__ == module.__name__
        ]
        for owner in owners:
            for key, value in list(vars(owner).items()):
                if isinstance(value, FunctionType) and id(value) not in self._ours:
                    # Also a dataclass's own `__init__`, for its factories.
                    count += self._function(value)
                    continue
                ours = None if key.startswith("__") else self._of(value)
                if ours is not None:
                    self._replace(owner, key, ours)
                    count += 1
                elif not key.startswith("__") and self._holds(value):
                    self.left.append(f"{name}.{key}")
        return count

    def _function(self, function: FunctionType) -> int:
        count = 0
        defaults = function.__defaults__
        if defaults and any(self._of(value) is not None for value in defaults):
            function.__defaults__ = tuple(self._or_same(value) for value in defaults)
            count += 1
        for cell in function.__closure__ or ():
            try:
                ours = self._of(cell.cell_contents)
            except ValueError:  # not bound yet
                continue
            if ours is not None:
                cell.cell_contents = ours
                count += 1
        return count

    def _or_same(self, value: Any) -> Any:
        ours = self._of(value)
        return value if ours is None else ours

    def _of(self, value: Any) -> Any:
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


def _is_users(module: ModuleType, scope: Scope) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__"
    return scope.of_module(module.__name__, os.path.realpath(file)) == USER
