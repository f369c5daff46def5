"""Class methods of a C type replaced in the type itself, so that its identity and every bound name stay."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

TRIED = ((3, 11), (3, 14))
"""The first and the last CPython that this was run on; a type's memory may be laid out otherwise after it."""


def refusal() -> str | None:
    """Return why types of this interpreter are better left alone, or None."""
    name, version = sys.implementation.name, sys.version_info[:2]
    first, last = TRIED
    if name != "cpython":
        return f"not on {name}"
    if not first <= version <= last:
        return f"not tried on Python {version[0]}.{version[1]}"
    locked = getattr(sys, "_is_gil_enabled", None)
    return "not on a free-threaded Python" if locked is not None and not locked() else None


def replace(cls: type, name: str, value: Any) -> Any:
    """Put the value under that name and return what stood there; raise TypeError where that cannot be."""
    why = refusal()
    if why is not None:
        raise TypeError(why)
    names: Any = next((found for found in gc.get_referents(cls.__dict__) if type(found) is dict), None)
    if names is None or name not in names or len(names) != len(cls.__dict__):
        raise TypeError(f"{cls.__name__} keeps its names where they cannot be replaced")
    before = names[name]
    names[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
    # By the proxy, and by the interpreter's own look-up, which has a cache.
    bound = getattr(getattr(cls, name), "__func__", None)
    if cls.__dict__[name] is not value or bound is not getattr(value, "__func__", None):
        names[name] = before
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
        raise TypeError(f"{cls.__name__}.{name} cannot be replaced")
    return before
