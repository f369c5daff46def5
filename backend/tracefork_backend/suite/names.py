"""Where a test's tape stands."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

_LONGEST = 100
"""Of a name: file systems take 255 bytes with the suffix."""
SUFFIX = ".jsonl"


def folder_of(item: pytest.Item) -> Path:
    """Return the folder of the tapes of a test's file."""
    return item.path.parent / str(item.config.getini("tracefork_tapes")) / item.path.stem


def tape_of(item: pytest.Item, given: object = None) -> Path:
    """Return the path of a test's tape: by the name that its mark gives, else by the test's own."""
    _, _, ident = item.name.partition("[")
    classes = [one.name for one in item.listchain() if isinstance(one, pytest.Class)]
    if given is None:
        own = ".".join((*classes, item.name))
    else:
        own = f"{given}[{ident}" if ident else str(given)
    return folder_of(item) / f"{cleaned(own)}{SUFFIX}"


def cleaned(name: str) -> str:
    """Return the name as a file's: equal for no two names, and the name itself where that can be."""
    plain = re.sub(r"[^\w.,=@+-]+", "-", name.removesuffix("]").replace("[", "-", 1)).strip("-.") or "tape"
    back = name if "[" not in name else f"{name.removesuffix(']').replace('[', '-', 1)}"
    if plain == back and len(plain) <= _LONGEST:
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def said(path: Path, item: Any) -> str:
    """Return the path as the person who runs the tests would write it."""
    try:
        return str(path.relative_to(item.config.invocation_params.dir))
    except ValueError:
        return str(path)
