"""Class methods of a C type replaced in the type itself, so that its identity and every bound name stay."""

from __future__ import annotations

import ctypes
import gc
from typing import Any


def replace(cls: type, name: str, value: Any) -> Any:
    """What stood under that name, where the value stands now; raises TypeError if it cannot."""
    names: Any = next((found for found in gc.get_referents(cls.__dict__) if type(found) is dict), None)
    if names is None or name not in names:
        raise TypeError(f"{cls.__name__} keeps its names where they cannot be replaced")
    before = names[name]
    names[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
    if cls.__dict__[name] is not value:
        raise TypeError(f"{cls.__name__}.{name} cannot be replaced")
    return before
